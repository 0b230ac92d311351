"""Bad input over the doors, one file per case in tests/bad_input: sent by HTTP and by ``mdh send`` into the chain behind the real router.

What must hold of every case: it is caught by the rule it names, parked or refused with the reason it names, what is good beside it is kept,
and nothing is lost: what is refused lies in the dead letters byte for byte, what waits comes out when master data or time permit.
"""

from __future__ import annotations

import base64
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from connectors.enterprise.master import parse_master
from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.publish import Publisher, Writer
from mdh.agents import plans_and_folds
from mdh.cli import app as mdh
from mdh.errors import UsageError
from schemas.block import FinalBlock, starts_of
from schemas.codec import Codec
from schemas.conditions import OUTAGE
from schemas.identity import partition_of
from schemas.quantity import text_of
from schemas.rules import RULES
from schemas.topology import load_topology
from streams.runtime.replay import Pipeline

CASES = sorted((Path(__file__).parent.parent / "bad_input").glob("*.yaml"))
CODEC, TOPOLOGY = Codec(), load_topology(None)
DOORS = ("http", "mdh send")
LIMIT = 1_000_000


@dataclass
class Wire:
    """A writer whose Kafka is the in-memory chain."""

    pipeline: Pipeline
    timeout: float = 5.0

    def write(
        self, topic: str, value: bytes, *, key: bytes = b"", headers: Mapping[str, bytes] | None = None, partition: int | None = None
    ) -> Future[tuple[int, int]]:
        number = partition_of(key.decode(), TOPOLOGY.topics[topic].partitions) if partition is None else partition
        self.pipeline.publish(topic, number, key, value, headers)
        done: Future[tuple[int, int]] = Future()
        done.set_result((number, len(self.pipeline.log(topic, number)) - 1))
        return done


@dataclass
class Chain:
    """The agents, the doors before them, and what time it is."""

    pipeline: Pipeline = field(default_factory=lambda: Pipeline(plans_and_folds(TOPOLOGY)))
    now: int = 0
    masters: int = 0
    sent: int = 0

    def app(self) -> FastAPI:
        """The gateway before the chain."""
        writer = cast(Writer, Wire(self.pipeline))
        publisher = Publisher(writer, "hes.reads", max_payload_bytes=LIMIT, clock=self.clock)
        nothing = cast(Any, None)
        return create_app(Desk(publisher, nothing, nothing, list))

    def clock(self) -> int:
        """Nanoseconds; no two payloads come at the same."""
        self.sent += 1
        return self.now * 10**9 + self.sent

    def tick(self, moment: str) -> None:
        self.now = int(datetime.fromisoformat(moment).timestamp())
        for number in range(TOPOLOGY.topics["hub.ticks"].partitions):
            headers = {"id": f"tick/{self.now}/{number}/{self.masters}".encode()}
            self.pipeline.publish("hub.ticks", number, b"", CODEC.encode("Tick", {"at": self.now}), headers)
        self.pipeline.run()

    def master(self, objects: list[dict[str, Any]]) -> None:
        records, errors = parse_master(b"\n".join(map(orjson.dumps, objects)))
        assert not errors
        self.masters += 1
        if self.masters == 1:
            for number in range(TOPOLOGY.topics["master.data"].partitions):
                headers = {"id": b"present/%d" % number}
                self.pipeline.publish("master.data", number, b"", CODEC.encode("MasterPresent", {"at": 0}), headers)
        for number, record in enumerate(records):
            key, headers = record["device"], {"id": b"master/%d/%d" % (self.masters, number)}
            partition = partition_of(key, TOPOLOGY.topics["master.data"].partitions)
            self.pipeline.publish("master.data", partition, key.encode(), CODEC.encode("MasterChannel", record), headers)
        self.pipeline.run()

    # --- what came of it ------------------------------------------------------------------------------------------------------------

    def records(self, topic: str) -> list[Any]:
        return [record for log in self.pipeline.topics[topic] for record in log]

    def dead(self) -> list[tuple[bytes, str]]:
        """Bytes and reason of each dead letter."""
        name = "__connect.errors.exception.message"
        return [(record.value, record.headers[name].decode()) for record in self.records("hes.reads.dlq")]

    def exceptions(self) -> list[dict[str, Any]]:
        """Open exceptions, as far as a case names them."""
        found: dict[str, dict[str, Any]] = {}
        for record in self.records("vee.exceptions"):
            body = CODEC.decode(record.value)
            if found.get(body["id"], body)["version"] <= body["version"]:
                found[body["id"]] = body
        told = [body for body in found.values() if body["status"] == "open"]
        return [{name: body[name] for name in ("rule", "severity", "channel", "count")} for body in told]

    def finals(self) -> dict[str, str]:
        """Per channel: measured intervals and their sum, or its readings."""
        days: dict[tuple[str, int, int], tuple[int, int, int]] = {}
        readings: dict[tuple[str, int], int] = {}
        for record in self.records("reads.final"):
            block = CODEC.decode(record.value)
            if not isinstance(block, FinalBlock):
                continue
            cells, times = starts_of(block.count), starts_of(block.reads)
            for row in range(len(block)):
                name = f"{block.device[row].as_py()} {block.channel[row].as_py()}"
                own = slice(int(cells[row]), int(cells[row]) + int(block.count[row]))
                good = (block.conditions[own] >= OUTAGE) & (block.methods[own] == 0)
                if block.reads[row]:
                    at = block.times[int(times[row]) : int(times[row]) + int(block.reads[row])]
                    readings |= {(name, int(when)): int(ok) for when, ok in zip(at, good, strict=True)}
                else:
                    key = (name, int(block.seconds[row]), int(block.day[row]))
                    days[key] = max(
                        days.get(key, (0, 0, 0)), (int(block.version[row]), int(good.sum()), sum(block.values[own][good].tolist()))
                    )
        counts: Counter[str] = Counter()
        totals: Counter[str] = Counter()
        for (name, _, _), (_, count, total) in days.items():
            counts[name] += count
            totals[name] += total
        told = {name: f"{count} intervals, {text_of(totals[name])}" for name, count in counts.items() if count}
        for name in {name for (name, _), ok in readings.items() if ok}:
            told[name] = f"{sum(ok for (other, _), ok in readings.items() if other == name)} readings"
        return told


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The app on a port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def bytes_of(sent: dict[str, Any]) -> bytes:
    data = base64.b64decode(sent["base64"]) if "base64" in sent else sent["text"].encode()
    return str(sent.get("head", "")).encode() + data * int(sent.get("times", 1))


def by_http(chain: Chain, sent: list[dict[str, Any]], _: Path) -> list[str]:
    """Answers of POST /v1/reads."""
    with TestClient(chain.app(), raise_server_exceptions=False) as client:
        answers = [client.post("/v1/reads", content=bytes_of(one), params={"source": "hes", "name": one["name"]}) for one in sent]
    return [str(answer.status_code) for answer in answers]


def by_command(chain: Chain, sent: list[dict[str, Any]], folder: Path) -> list[str]:
    """What ``mdh send`` says of each file: taken, or why not."""
    said = []
    with listening(chain.app()) as url:
        for number, one in enumerate(sent):
            file = folder / str(number) / one["name"]
            file.parent.mkdir(parents=True)
            file.write_bytes(bytes_of(one))
            done = CliRunner().invoke(mdh, ["send", str(file), "--source", "hes", "--url", url])
            said.append("202" if done.exit_code == 0 else "refused" if isinstance(done.exception, UsageError) else str(done.exception))
    return said


SEND: Mapping[str, Callable[[Chain, list[dict[str, Any]], Path], list[str]]] = dict(zip(DOORS, (by_http, by_command), strict=True))


def ordered(rows: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    return sorted(sorted(row.items()) for row in rows)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_bad_input(case: Path, door: str, tmp_path: Path) -> None:
    given = yaml.safe_load(case.read_text())
    chain, then = Chain(), given["then"]
    chain.tick(given.get("clock", "2024-06-10T00:00:00Z"))
    chain.master(given["master"]) if "master" in given else None
    answers = SEND[door](chain, given["send"], tmp_path)
    refused = then.get("refused", {}).get(door, {})
    assert answers == [refused.get(number, "202") for number in range(len(given["send"]))]
    chain.pipeline.run()
    chain.tick(datetime.fromtimestamp(chain.now + 60).astimezone().isoformat())
    dead = chain.dead()
    assert len(dead) == len(then.get("dead", []))
    whole = {bytes_of(one) for one in given["send"]}
    for (data, reason), words in zip(dead, then.get("dead", []), strict=True):
        assert words in reason
        assert data in whole  # byte for byte
    assert ordered(chain.exceptions()) == ordered(then.get("exceptions", []))
    assert chain.finals() == then.get("finals", {})
    if "later" in given:
        later = given["later"]
        chain.master(later["master"]) if "master" in later else None
        chain.tick(later.get("clock", "2024-06-10T00:02:00Z"))
        assert ordered(chain.exceptions()) == ordered(later["then"].get("exceptions", []))
        assert chain.finals() == later["then"]["finals"]


def test_every_case_names_documented_rules() -> None:
    found = [yaml.safe_load(case.read_text())["then"] for case in CASES]
    assert {one["rule"] for then in found for one in then.get("exceptions", [])} <= set(RULES)
    assert len(CASES) >= 18
