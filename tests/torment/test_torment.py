"""The proof: whatever is done to workers and sink, the store ends up as if nothing had happened, row for row.

``MDH_TORMENT_ACTIONS`` sets how many kills, stops and suspensions there are, ``MDH_TORMENT_METERS`` the load.
"""

from __future__ import annotations

import os
import shutil
from datetime import date, timedelta
from pathlib import Path

import orjson
import pytest

from connectors.enterprise.master import parse_master
from mdh.simulation.head_end import HeadEnd, Settings
from tests.torment.chain import CODEC, TOPOLOGY, Chain, Tormentor, dump, undisturbed

ACTIONS = int(os.environ.get("MDH_TORMENT_ACTIONS", "9"))
METERS = int(os.environ.get("MDH_TORMENT_METERS", "60"))
DAYS, CHUNK = 14, 20
START = date(2025, 3, 24)  # the spring clock change is among the days
RATES = dict.fromkeys(("spike", "negative", "gap", "missing", "zero", "duplicate", "late", "unknown"), 0.02)
COMMON = {"seconds": 1800, "zone": "Europe/Madrid", "chunk": CHUNK, "registers": True}


def second_of(day: date) -> int:
    return (day - date(1970, 1, 1)).days * 86_400


def send(chain: Chain, head_end: HeadEnd, run: str, *, postscript: bool) -> list[str]:
    """Sends a head end's payloads, those of one group of meters through one source so that their order is that of the source."""
    ids = []
    for payload in head_end.payloads():
        if ("again" in payload.name) == postscript:
            chunk = int(payload.name.rsplit("-", 1)[1].split(".")[0]) // CHUNK
            about = {"source": f"hes-{chunk}", "name": payload.name, "received_at": str(second_of(START))}
            ids.append(chain.send("hes.reads", f"hes-{chunk}", payload.data, f"{run}:{payload.name}", **about))
    return ids


def story(chain: Chain, calm: object = None) -> None:
    """Master data, two weeks of reads, time passing, then what comes late, again and otherwise, and time passing again."""
    head_end = HeadEnd(Settings(meters=METERS, days=DAYS, rates=RATES, seed=7, start=START, **COMMON))
    present = CODEC.encode("MasterPresent", {"at": second_of(START)})
    ids = []
    for number in range(TOPOLOGY.partitions):
        ids.append(f"present-{number}")
        chain.producer.produce("master.data", present, partition=number, headers={"id": ids[-1].encode()})
    lines = b"\n".join(orjson.dumps(line) for line in head_end.master())
    for number, record in enumerate(parse_master(lines)[0]):
        ids.append(chain.send("master.data", record["device"], CODEC.encode("MasterChannel", record), f"master-{number}"))
    chain.settle(ids)
    chain.settle(send(chain, head_end, "first", postscript=False))
    chain.settle(chain.tick(second_of(START + timedelta(days=DAYS + 40))))
    ids = send(chain, head_end, "late", postscript=True)
    other = HeadEnd(Settings(meters=METERS // 2, days=1, seed=8, start=START + timedelta(days=3), **COMMON))
    ids += send(chain, other, "corrected", postscript=False)  # long out of VEE's state: recalled from the store
    chain.settle(ids)
    if calm is not None:
        calm()  # the end is told by a quiet chain, so that the test itself cannot outlive its patience
    chain.settle(chain.tick(second_of(START + timedelta(days=DAYS + 42))))


@pytest.mark.torment
@pytest.mark.timeout(3600)
def test_killed_stopped_suspended_and_failing_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    expected_chain = Chain(tmp_path / "calm")
    with undisturbed(expected_chain):
        story(expected_chain)
        expected_chain.wait_for_sink(600)
    expected = dump(expected_chain)
    expected_chain.close()

    chain = Chain(tmp_path / "wild")
    tormentor = Tormentor(chain, ACTIONS, seed=int(os.environ.get("MDH_TORMENT_SEED", "1")))
    try:
        story(chain, tormentor.calm)
        chain.wait_for_sink(600)
    finally:
        tormentor.stop()
    found = dump(chain)
    chain.close()

    print("torment:", dict(tormentor.done), {table: len(rows) for table, rows in found.items()})  # noqa: T201
    assert expected["final_days"]
    assert expected["bill_determinants"]
    assert expected["exceptions"]
    for table, rows in expected.items():
        assert found.get(table, []) == rows, f"{table}: {differences(rows, found.get(table, []))}"
    shutil.rmtree(tmp_path, ignore_errors=True)


def differences(expected: list[bytes], found: list[bytes]) -> str:
    missing, extra = set(expected) - set(found), set(found) - set(expected)
    return f"{len(missing)} missing, {len(extra)} extra of {len(expected)}: {sorted(missing)[:2]} against {sorted(extra)[:2]}"
