"""The real hub process over the mock broker and the engine in process; the test plays the workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.kafka.client import KafkaSettings, producer
from connectors.kafka.mock import MockBroker
from schemas.codec import Codec
from schemas.topology import load_topology
from tests.brokers import read_all
from tests.patience import eventually

CODEC = Codec()
CSV = b"device,channel,unit,seconds,start,value\nm1,1,kWh,1800,2026-01-01T00:00:00Z,0.5\n"


@dataclass
class Running:
    """A hub process, its address and its broker."""

    process: subprocess.Popen[bytes]
    url: str
    kafka: KafkaSettings
    data: Path
    log: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=120)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", trust_env=False, timeout=120, **options)


def start(kafka: KafkaSettings, data: Path) -> Running:
    data.mkdir(exist_ok=True)
    log = data / f"hub-{time.time_ns()}.log"
    command = [sys.executable, "-m", "mdh", "hub", "--broker", kafka.bootstrap, "--data-dir", str(data), "--port", "0"]
    process = subprocess.Popen(command, stderr=log.open("wb"))

    def address() -> str:
        assert process.poll() is None, log.read_text()
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
        return next((f"http://127.0.0.1:{line['address'][1]}" for line in lines if line["event"] == "hub runs"), "")

    url = eventually(address)
    return Running(process, url, kafka, data, log)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with MockBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        writing = producer(kafka)
        for name in load_topology().topics:  # the mock makes a topic when it is first written
            writing.produce(name, b"", partition=0)
        assert writing.flush(120) == 0
        running = start(kafka, tmp_path_factory.mktemp("hub"))
        yield running
        running.process.kill()
        running.process.wait()


def ticks(hub: Running) -> list[dict[str, Any]]:
    written = [message for message in read_all(hub.kafka, "hub.ticks") if message.value()]
    return [{"id": dict(message.headers())["id"].decode(), **CODEC.decode(message.value())} for message in written]


def confirm(hub: Running, payload: str, agent: str = "ingest", **figures: Any) -> None:
    """Writes the receipt an agent would write."""
    writing = producer(hub.kafka, linger_ms=0)
    receipt = {"payload": payload, "id": f"{agent}/0/1", "agent": agent, "children": 0, "status": "decoded", **figures}
    writing.produce("hub.receipts", CODEC.encode("Receipt", receipt), key=payload.encode())
    assert writing.flush(120) == 0


def test_it_is_ready_when_ticks_have_come_through_and_says_why_not_before(hub: Running) -> None:
    assert hub.get("/health/live").status_code == 200
    response = hub.get("/health/ready")
    assert response.status_code == 503
    assert any("tick" in reason or "sink" in reason for reason in response.json()["reasons"])
    written = eventually(lambda: ticks(hub))
    newest = max(tick["at"] for tick in written)
    assert newest % 2 == 0
    assert {tick["id"] for tick in written if tick["at"] == newest} == {f"tick/{newest}/{n}" for n in range(4)}
    for n in range(3):
        confirm(hub, f"tick/{newest}/{n}")
    stored = b"SELECT count() AS n FROM tick_receipts"
    eventually(lambda: hub.post("/v1/sql", content=stored).text == '{"n":3}\n')
    assert hub.post("/v1/settle", json={"ids": []}).json()["settled_tick"] is None, "one partition has not settled a tick yet"
    assert hub.get("/health/ready").status_code == 503
    confirm(hub, f"tick/{newest}/3")
    eventually(lambda: hub.post("/v1/settle", json={"ids": []}).json()["settled_tick"] == newest)

    def ready() -> bool:
        """Ready, once a tick that is recent enough has come through."""
        latest = max(tick["at"] for tick in ticks(hub))
        for n in range(4):
            confirm(hub, f"tick/{latest}/{n}")
        return hub.get("/health/ready").status_code == 200

    eventually(ready)


def test_a_payload_is_followed_from_kafka_to_its_receipts(hub: Running) -> None:
    payload = hub.post("/v1/reads", content=CSV, params={"source": "hes", "name": "a.csv"}).json()["id"]
    received = eventually(lambda: (answer := hub.get(f"/v1/payloads/{payload}")).status_code == 200 and answer.json())
    assert (received["status"], received["complete"], received["source"]) == ("received", False, "hes")
    confirm(hub, payload, reads=7, format="csv", source="hes")
    question = {"ids": [payload], "wait": 20}
    settled = eventually(lambda: (answer := hub.post("/v1/settle", json=question).json())["complete"] == 1 and answer)
    assert settled["counts"]["reads"] == 7


def test_sql_and_views_answer(hub: Running) -> None:
    assert hub.post("/v1/sql", content=b"SELECT 1 AS one").text == '{"one":1}\n'
    refused = hub.post("/v1/sql", content=b"DROP TABLE final_days")
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    broken = hub.post("/v1/sql", content=b"SELECT nonsense FROM intervals")
    assert broken.status_code == 422
    assert "nonsense" in broken.json()["detail"]
    for path in ("/v1/exceptions", "/v1/determinants", "/v1/intervals?device=m1"):
        assert hub.get(path).json() == {"items": [], "next": None}


def test_pages_of_exceptions_follow_each_other_without_loss(hub: Running) -> None:
    writing = producer(hub.kafka, linger_ms=0)
    for n in range(25):
        record = {
            "id": f"e{n:02}", "rule": "interval-spike", "severity": "issue", "status": "open", "version": 1, "device": f"d{n % 3}",
            "channel": "1", "service_point": "", "payload": "", "start": 1_767_225_600_000 + n // 5 * 1000,
            "end": 1_767_312_000_000, "count": 1, "detail": "d",
        }  # fmt: skip
        writing.produce("vee.exceptions", CODEC.encode("VeeException", record))
    assert writing.flush(120) == 0
    eventually(lambda: len(hub.get("/v1/exceptions?limit=100").json()["items"]) == 25)
    pages, cursor = [], ""
    while cursor is not None:
        page = hub.get(f"/v1/exceptions?limit=4{f'&cursor={cursor}' if cursor else ''}").json()
        pages.append([item["id"] for item in page["items"]])
        cursor = page["next"]
    assert [len(page) for page in pages] == [4] * 6 + [1]
    assert sorted(id for page in pages for id in page) == [f"e{n:02}" for n in range(25)]
    one = hub.get("/v1/exceptions?device=d1&to=2026-01-01T00:00:01Z").json()["items"]
    assert {item["start"] for item in one} == {"2026-01-01T00:00:00Z"}
    assert {item["device"] for item in one} == {"d1"}


def test_master_data_comes_after_the_word_that_there_is_some(hub: Running) -> None:
    lines = b'{"device":"m1","channel":"1","account":"A1"}\n{"device":"m2"}\n{"device":"m3","channel":"1"}\n'
    answer = hub.post("/v1/master", content=lines)
    assert answer.status_code == 207
    assert answer.json()["accepted"] == 2
    assert [error["line"] for error in answer.json()["errors"]] == [2]
    records: dict[int, list[str]] = {n: [] for n in range(4)}
    for message in read_all(hub.kafka, "master.data"):
        if message.value():
            records[message.partition()].append(CODEC.name_of(message.value()))
    assert all(kinds[0] == "MasterPresent" for kinds in records.values())
    assert sum(kinds.count("MasterChannel") for kinds in records.values()) == 2


def test_dropped_files_are_taken(hub: Running) -> None:
    part = hub.data / "drop" / "x.csv.part"
    part.write_bytes(CSV)
    part.rename(hub.data / "drop" / "x.csv")
    eventually((hub.data / "drop" / "done" / "x.csv").exists)


def test_it_stops_cleanly_and_goes_on_where_it_was(hub: Running) -> None:
    key = {"Idempotency-Key": "over-a-restart"}
    first = hub.post("/v1/reads", content=CSV, headers=key).json()["id"]
    eventually(lambda: hub.get(f"/v1/payloads/{first}").status_code == 200)
    hub.process.send_signal(signal.SIGTERM)
    assert hub.process.wait(120) == 0
    again = start(hub.kafka, hub.data)
    hub.process, hub.url = again.process, again.url
    assert hub.post("/v1/reads", content=CSV, headers=key).json()["id"] == first
    assert hub.post("/v1/reads", content=CSV + b"x", headers=key).status_code == 409
    assert hub.get(f"/v1/payloads/{first}").json()["status"] == "received"


def test_a_taken_port_is_one_line(hub: Running) -> None:
    port = hub.url.rpartition(":")[2]
    command = [sys.executable, "-m", "mdh", "hub", "--broker", hub.kafka.bootstrap, "--data-dir", str(hub.data / "other"), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{port}" in done.stderr
    assert "--port" in done.stderr
