"""Which partition each row of a block belongs to."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.block import Block, pack_text, unpack_text
from schemas.identity import partition_of

AnyBlock = TypeVar("AnyBlock", bound=Block)


@lru_cache(maxsize=256)
def _partitions(packed: bytes, size: int, partitions: int) -> npt.NDArray[np.int64]:
    # Head ends send the same meters in the same order again and again: hash each list of keys once
    return np.array([partition_of(key, partitions) for key in unpack_text(packed, size).to_pylist()], np.int64)


def split(block: AnyBlock, keys: pa.StringArray, partitions: int) -> list[tuple[int, AnyBlock]]:
    """The block as one block per partition that has rows, by partition number; rows keep their order."""
    if len(block) == 0:
        return []
    numbers = _partitions(pack_text(keys), len(keys), partitions)
    present = np.unique(numbers)
    if len(present) == 1:
        return [(int(present[0]), block)]
    return [(int(number), block.take(np.flatnonzero(numbers == number))) for number in present]
