"""What a block costs depends little on its rows: a payload reaches each partition in as few blocks as its reads need."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.load import Load
from connectors.head_end.formats import Options, decode
from schemas.block import ReadBlock
from streams.ingest.fold import TOGETHER, IngestFold
from streams.runtime.fold import RAW, Message

PARTITIONS = 4


def taken(blocks: list[ReadBlock]) -> dict[int, list[ReadBlock]]:
    fold = IngestFold(lambda *_: SimpleNamespace(format="json", blocks=blocks, problems=[]), 0, PARTITIONS)
    result = fold.apply(Message(RAW, b"", "m", "p"))
    assert result.figures["reads"] == sum(len(block.values) for block in blocks)
    found: dict[int, list[ReadBlock]] = defaultdict(list)
    for output in result.outputs:
        assert output.partition is not None
        found[output.partition].append(output.body.check())
    return found


@pytest.mark.parametrize("channels", [2000, 5000])
def test_a_payload_reaches_a_partition_in_as_few_blocks_as_its_reads_need(channels: int) -> None:
    blocks = [
        block for _, name, data in Load(channels, 1).payloads() for block in decode(data, Options(name=name, payload="p")).blocks
    ]  # fmt: skip
    rows = {device: row for block in blocks for row, device in enumerate(block.device.to_pylist())}
    for parts in taken(blocks).values():
        reads = sum(len(part.values) for part in parts)
        assert len(parts) <= -(-reads // TOGETHER) + 1
        assert all(len(part.values) <= TOGETHER for part in parts)
    assert sum(len(part) for parts in taken(blocks).values() for part in parts) == len(rows)


def test_rows_of_a_partition_keep_their_order_and_what_was_said_of_them() -> None:
    blocks = decode(next(Load(500, 1).payloads())[2], Options(name="a", payload="p", source="one")).blocks
    halves = [block.take(np.arange(first, len(block), 2)) for block in blocks for first in (0, 1)]
    halves[1] = ReadBlock(**{name: getattr(halves[1], name) for name in ReadBlock.__slots__} | {"source": "two"})
    for parts in taken([*halves, halves[0]]).values():
        assert [part.source for part in parts] == ["one", "two", "one"]  # in the order they came, never joined past another
        first = parts[0].device.to_pylist()
        assert first == [device for device in halves[0].device.to_pylist() if device in first]


def test_the_way_into_the_store_does_without_pandas() -> None:
    script = (
        "import sys\n"
        "from benchmarks.load import Load\n"
        "from connectors.clickhouse import rows\n"
        "from connectors.head_end.formats import Options, decode\n"
        "from streams.determinants.fold import DeterminantsFold\n"
        "from streams.vee.fold import VeeFold\n"
        "from schemas.topology import load_topology\n"
        "from streams.runtime.fold import Message\n"
        "topology = load_topology(None)\n"
        "vee, sums = VeeFold(topology.vee.within(topology.zone), 0, 1), DeterminantsFold(topology.determinants, 0, 1)\n"
        "blocks = decode(next(Load(200, 1).payloads())[2], Options(name='a')).blocks\n"
        "outputs = [o for b in blocks for o in vee.apply(Message('ReadBlock', b, 'm', 'p')).outputs]\n"
        "finals = [o for o in outputs if o.type == 'FinalBlock']\n"
        "days = [o.body for f in finals for o in sums.apply(Message('FinalBlock', f.body, 'd', 'p')).outputs]\n"
        "found = [rows.with_seconds(o.body, 'start', 'end') for o in outputs if o.type == 'VeeException']\n"
        "assert rows.final_days([f.body for f in finals]).num_rows and rows.determinant_days(days).num_rows\n"
        "assert rows.from_dicts('vee_exceptions', found).num_rows\n"
        "assert 'pandas' not in sys.modules, 'pandas was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
