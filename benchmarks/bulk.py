"""``mdh bench bulk``: a bulk of SAP devices from the SOAP door through the agents to its confirmations, and the same bulk again.

The door is measured alone first: a bulk of many items against one of few, in bytes the process grew by. Then every item goes the whole
way: door, ingest, enterprise, master, and back to enterprise, which confirms it. Topics are forgotten as they are read, so that what
stays is the agents' state. Times are processor times, because other work on the machine must not count.
"""

from __future__ import annotations

import gc
import io
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import psutil

from connectors.enterprise.intake import Intake
from connectors.enterprise.sap.catalog import HEADER, catalog
from connectors.enterprise.sap.documents import build, envelope
from connectors.enterprise.sap.door import Door
from connectors.enterprise.simulator.sap import device
from mdh.agents import plans_and_folds
from schemas.codec import Codec
from schemas.topology import load_topology
from streams.runtime.lane import Record
from streams.runtime.replay import Pipeline

SERVICE: Final = "UtilitiesDeviceERPSmartMeterCreateRequest"
BULK: Final = "UtilitiesDeviceERPSmartMeterBulkCreateRequest"
AGENTS: Final = ("ingest", "enterprise", "master")
NOW: Final = 1_800_000_000
SMALL: Final = 1000
Say = Callable[[str], None]


class Bulk(io.RawIOBase):
    """A bulk of ``count`` devices, made as it is read, the same at every reading."""

    def __init__(self, count: int) -> None:
        made = "2027-01-15T08:00:00Z"
        head = {"UUID": "00000000-0000-4000-8000-000000000000", "CreationDateTime": made, "SenderBusinessSystemID": "SAP"}
        words = {HEADER: {**head, "UUID": "11111111-1111-4111-8111-111111111111"}, "UtilitiesDevice": device("@number@")}
        whole = envelope(build(catalog().roots[BULK], head, [words]))
        tag = f"<{SERVICE}Message>".encode()
        self._head, _, tail = whole.partition(tag)
        item, _, self._tail = tail.partition(b"</" + tag[1:])
        self._item = tag + item + b"</" + tag[1:]
        self._count = count
        self.seek(0)

    def seek(self, at: int, _: int = 0) -> int:
        self._next, self._rest, self._at = 0, self._head, 0
        return at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and self._next < self._count:
            some = range(self._next, min(self._next + 100, self._count))
            self._rest += b"".join(self._made(number) for number in some)
            self._next = some.stop
            if self._next == self._count:
                self._rest += self._tail
        piece, self._rest = self._rest[:size], self._rest[size:]
        self._at += len(piece)
        return piece

    def _made(self, number: int) -> bytes:
        return self._item.replace(b"11111111-1111-4111-8111-111111111111", b"%08x-1111-4111-8111-111111111111" % number).replace(
            b"@number@", b"B%07d" % number
        )


class Into:
    """A writer that hands records to a taker at once."""

    timeout = 1.0

    def __init__(self, take: Callable[[str, bytes, bytes, Mapping[str, bytes], int], None]) -> None:
        self._take = take

    def write(self, topic: str, value: bytes, *, key: bytes, headers: Mapping[str, bytes], partition: int) -> Future[tuple[int, int]]:
        self._take(topic, value, key, headers, partition)
        done: Future[tuple[int, int]] = Future()
        done.set_result((partition, 0))
        return done


class Chain:
    """The agents a device goes through, in memory. What they said is counted and forgotten."""

    def __init__(self) -> None:
        self.topology, self.codec = load_topology(None), Codec()
        self.pipeline = Pipeline(plans_and_folds(self.topology, AGENTS), self.codec)
        self._read: dict[tuple[str, int], int] = {}
        self.changes: dict[str, int] = {}
        self.answers: dict[str, tuple[str, str]] = {}  # item → id of its confirmation, category

    def door(self) -> Door:
        return Door(self.topology.enterprise, Intake(Into(self._taken), self.codec, lambda: NOW), "UTC")  # type: ignore[arg-type]

    def _taken(self, topic: str, value: bytes, key: bytes, headers: Mapping[str, bytes], partition: int) -> None:
        self.pipeline.publish(topic, partition, key, value, headers)
        self.pipeline.run()
        for name, partitions in self.pipeline.topics.items():
            for number, log in enumerate(partitions):
                for at in range(self._read.get((name, number), 0), len(log)):
                    self._heard(name, log[at])
                    log[at] = _FORGOTTEN
                self._read[name, number] = len(log)

    def _heard(self, topic: str, record: Record) -> None:
        if topic == "master.changes":
            outcome = self.codec.decode(record.value or b"")["outcome"]
            self.changes[outcome] = self.changes.get(outcome, 0) + 1
        elif topic == "enterprise.messages":
            body = self.codec.decode(record.value or b"")
            self.answers |= {item["reference"]: (item["id"], item["category"]) for item in body["items"]}

    def state(self) -> tuple[int, int]:
        """Bytes of all state rows, and a hash of those of the master agent."""
        size = sum(len(key) + len(value or b"") for rows in self.pipeline.states.values() for key, value in rows.items())
        return size, hash(frozenset(self.pipeline.states["master", 0].items()))


_FORGOTTEN: Final = Record("", 0, b"", b"", {})


def run(items: int, say: Say) -> dict[str, Any]:
    """All figures for a bulk of so many devices. Raises ValueError where the second time changes anything."""
    say("the door alone")
    small, large = _grown(SMALL), _grown(items)
    chain = Chain()
    say("through the agents")
    Chain().door().take(SERVICE, Bulk(10))  # type: ignore[arg-type]
    began = _rss()
    first = _cpu(lambda: chain.door().take(SERVICE, Bulk(items)))  # type: ignore[arg-type]
    applied, told, (size, before) = dict(chain.changes), dict(chain.answers), chain.state()
    if applied != {"applied": items} or len(told) != items or any(category for _, category in told.values()):
        raise ValueError(f"of {items} devices {applied} were applied and {len(told)} confirmed")
    grew = _rss() - began
    say("the same bulk again")
    chain.answers.clear()
    second = _cpu(lambda: chain.door().take(SERVICE, Bulk(items)))  # type: ignore[arg-type]
    _, after = chain.state()
    if chain.changes != applied or after != before or chain.answers != told:
        raise ValueError("the same bulk again changed something")
    return {
        "bench": "bulk", "items": items, "us_per_item": round(first / items * 1e6, 1), "again_us_per_item": round(second / items * 1e6, 1),
        "ratio_again": round(second / first, 2), "door_grew_kib_small": small, "door_grew_kib": large,
        "state_bytes_per_item": round(size / items), "process_bytes_per_item": round(grew / items), "changes_again": 0,
        "confirmed": len(told),
    }  # fmt: skip


def _grown(items: int) -> int:
    """KiB by which the process grows while the door takes a bulk whose records go nowhere."""
    entry = Door(load_topology(None).enterprise, Intake(Into(lambda *_: None), Codec(), lambda: NOW), "UTC")  # type: ignore[arg-type]
    entry.take(SERVICE, Bulk(10))  # type: ignore[arg-type]
    gc.collect()
    before = _rss()
    entry.take(SERVICE, Bulk(items))  # type: ignore[arg-type]
    gc.collect()
    return max(_rss() - before, 0) // 1024


def _rss() -> int:
    return int(psutil.Process(os.getpid()).memory_info().rss)


def _cpu(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
