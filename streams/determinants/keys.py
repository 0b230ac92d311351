"""Who a sum belongs to: account, device, channel and unit, as one key of a state table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.arrow import texts
from schemas.block import FinalBlock

SEPARATOR: Final = "\0"
_JOINT: Final = texts([SEPARATOR])[0]  # an Arrow scalar made from a Python string would import pandas
_ESCAPE: Final = str.maketrans({"\0": "\1\2", "\1": "\1\3"})


def keys_of(block: FinalBlock) -> list[str]:
    """The key of each row."""
    columns = (block.account, block.device, block.channel, block.unit)
    joined: list[str] = pc.binary_join_element_wise(*columns, _JOINT).to_pylist()
    if _plain(columns):
        return joined
    return [key_of(*parts) for parts in zip(*(column.to_pylist() for column in columns), strict=True)]


def described(block: FinalBlock) -> pa.StringArray | None:
    """The key of each row with its service point and zone; None where a text holds a character that keys must escape."""
    columns = (block.account, block.device, block.channel, block.unit, block.service_point, block.zone)
    return pc.binary_join_element_wise(*columns, _JOINT) if _plain(columns) else None


def mark_of(block: FinalBlock) -> bytes:
    """Bytes that are equal for blocks of the same channels, described alike, in the same order."""
    texts = (block.account, block.device, block.channel, block.unit, block.service_point, block.zone)
    parts = [part for column in texts for part in _contents(column)]
    return b"".join([*parts, block.direction.tobytes(), block.seconds.tobytes()])


def _contents(column: pa.StringArray) -> tuple[bytes, bytes]:
    """Where each string ends, and all of them."""
    if not len(column):
        return b"", b""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4)
    first, last = int(bounds[0]), int(bounds[-1])
    return (bounds - bounds[0]).tobytes(), bytes(data[first:last]) if last > first else b""


def key_of(*parts: str) -> str:
    """The key of an account, device, channel and unit."""
    return SEPARATOR.join(part.translate(_ESCAPE) for part in parts)


def parts_of(key: str) -> list[str]:
    """Account, device, channel and unit of a key, and whatever was joined behind them."""
    parts = key.split(SEPARATOR)
    return [part.replace("\1\2", "\0").replace("\1\3", "\1") for part in parts] if "\1" in key else parts


def _plain(columns: Iterable[pa.StringArray]) -> bool:
    """Whether no text holds a character that keys must escape. Buffers may hold more than the column: then a false alarm costs little."""
    buffers = [column.buffers()[2] for column in columns]
    return not any(b"\0" in data or b"\1" in data for data in (bytes(buffer) for buffer in buffers if buffer is not None))
