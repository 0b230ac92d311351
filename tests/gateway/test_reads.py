"""POST /v1/reads: what is acknowledged is in Kafka, unchanged; everything else is refused with a problem document."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.publish import ConflictError, KeyLog, Publisher, UnavailableError, Writer
from connectors.kafka.client import KafkaSettings
from schemas.identity import identity, partition_of
from tests.gateway.conftest import LIMIT, Door, FakeMaster, FakeReader, partitions

CSV = b"device,channel,unit,seconds,start,value\nm1,1,kWh,1800,2026-01-01T00:00:00Z,0.5\n"


def is_problem(response: Any, status: int, kind: str = "") -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["instance"].startswith("/")
    assert body["type"] == (f"urn:meter-data-hub:problem:{kind}" if kind else "about:blank")
    return body


def test_the_bytes_arrive_unchanged_under_the_key_of_their_source(door: Door) -> None:
    data = bytes(range(256)) * 10
    response = door.client.post(
        "/v1/reads", content=data, params={"source": "hes-7", "name": "a b.csv", "format": "csv", "zone": "Europe/Berlin"}
    )
    assert response.status_code == 202
    payload = response.json()["id"]
    assert response.headers["location"] == f"/v1/payloads/{payload}"
    (record,) = door.records()
    assert record.value() == data
    assert record.key() == b"hes-7"
    headers = dict(record.headers())
    assert headers["id"] == headers["ce_id"] == payload.encode()
    assert (headers["source"], headers["name"], headers["format"], headers["zone"]) == (b"hes-7", b"a b.csv", b"csv", b"Europe/Berlin")
    assert int(headers["received_at"]) > 1_700_000_000
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_time"].endswith(b"Z")
    assert record.partition() == partition_of("hes-7", partitions(door.kafka, "hes.reads"))


def test_two_posts_of_the_same_bytes_without_a_key_are_two_payloads(door: Door) -> None:
    ids = {door.client.post("/v1/reads", content=CSV).json()["id"] for _ in range(2)}
    assert len(ids) == 2
    assert len(door.records()) == 2


def test_a_key_used_again_with_the_same_body_has_one_id_and_one_record(door: Door) -> None:
    answers = [door.client.post("/v1/reads", content=CSV, headers={"Idempotency-Key": "k1"}) for _ in range(3)]
    assert [a.status_code for a in answers] == [202] * 3
    assert len({a.json()["id"] for a in answers}) == 1
    assert len(door.records()) == 1


def test_a_key_used_again_with_another_body_is_a_conflict(door: Door) -> None:
    door.client.post("/v1/reads", content=CSV, headers={"Idempotency-Key": "k1"})
    is_problem(door.client.post("/v1/reads", content=CSV + b"x", headers={"Idempotency-Key": "k1"}), 409, "conflict")
    other_source = door.client.post("/v1/reads", content=CSV + b"x", params={"source": "b"}, headers={"Idempotency-Key": "k1"})
    assert other_source.status_code == 202
    assert len(door.records()) == 2


def test_the_same_key_at_the_same_time_from_many_clients_is_one_payload(door: Door) -> None:
    def post(n: int) -> Any:
        return door.client.post("/v1/reads", content=CSV + (b"x" if n % 4 == 3 else b""), headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(32)))
    taken = [a for a in answers if a.status_code == 202]
    assert len({a.json()["id"] for a in taken}) == 1
    assert {a.status_code for a in answers} == {202, 409}
    assert len({record.value() for record in door.records()}) == 1


def test_keys_are_remembered_over_a_restart_and_forgotten_oldest_first(tmp_path: Path) -> None:
    first = KeyLog(tmp_path / "keys.sqlite", keep=5)
    assert first.claim("a", "body") is False
    first.acknowledge("a")
    first.close()
    second = KeyLog(tmp_path / "keys.sqlite", keep=5)
    assert second.claim("a", "body") is True
    with pytest.raises(ConflictError):
        second.claim("a", "other")
    for n in range(20):
        second.claim(f"n{n}", "body")
    assert second.claim("a", "other") is False
    second.close()


def test_keys_that_cannot_be_kept_are_a_reason_to_try_later(tmp_path: Path) -> None:
    log = KeyLog(tmp_path / "keys.sqlite")
    log.close()
    with pytest.raises(UnavailableError, match="keys"):
        log.claim("a", "body")


@pytest.mark.parametrize("declared", [True, False])
def test_too_large_bodies_are_refused_whatever_they_declare(door: Door, declared: bool) -> None:
    content = b"x" * (LIMIT + 1)
    response = door.client.post("/v1/reads", content=content if declared else iter([content[:1000], content[1000:]]))
    body = is_problem(response, 413, "too-large")
    assert body["limit"] == LIMIT
    assert door.client.post("/v1/reads", content=b"x" * LIMIT).status_code == 202


@pytest.mark.parametrize("content", [b"", b" \n\t"])
def test_empty_bodies_are_refused(door: Door, content: bytes) -> None:
    is_problem(door.client.post("/v1/reads", content=content), 422, "not-valid")


@pytest.mark.parametrize(
    "params",
    [{"format": "punch-card"}, {"zone": "Mars/Olympus"}, {"source": " "}, {"source": "a\nb"}, {"source": "x" * 300}, {"name": "a\0b"}],
)
def test_parameters_that_cannot_be_are_refused_before_kafka(door: Door, params: dict[str, str]) -> None:
    is_problem(door.client.post("/v1/reads", content=CSV, params=params), 422, "not-valid")
    assert door.publisher.writer.flush(1) == 0
    assert door.client.post("/v1/reads", content=CSV).status_code == 202
    assert len(door.records()) == 1


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "application/pdf"}, {"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Encoding": "br"}]
)
def test_types_that_are_no_meter_data_are_refused(door: Door, headers: dict[str, str]) -> None:
    is_problem(door.client.post("/v1/reads", content=CSV, headers=headers), 415, "media-type")


def test_without_a_broker_nothing_is_acknowledged(tmp_path: Path) -> None:
    writer = Writer(KafkaSettings(bootstrap="127.0.0.1:1"), max_bytes=LIMIT, timeout=0.5)
    publisher = Publisher(writer, "hes.reads", max_payload_bytes=LIMIT, keys=KeyLog(tmp_path / "keys.sqlite"))
    with TestClient(create_app(Desk(publisher, FakeReader(), FakeMaster(), lambda: []))) as client:
        response = client.post("/v1/reads", content=CSV, headers={"Idempotency-Key": "k"})
        is_problem(response, 503, "kafka-away")
        assert int(response.headers["retry-after"]) > 0
    # the retry must go to Kafka again: the key is known, but not as acknowledged
    assert publisher._keys.claim(identity("key", "http", "k"), identity(CSV, "", "", "")) is False
    writer.close(0)


def test_the_buffer_in_front_of_kafka_is_bounded() -> None:
    writer = Writer(KafkaSettings(bootstrap="127.0.0.1:1"), max_bytes=LIMIT, buffer_bytes=256 * 1024, timeout=2)
    publisher = Publisher(writer, "hes.reads", max_payload_bytes=LIMIT)
    for n in range(2):
        publisher.submit(b"x" * LIMIT, source=f"s{n}")
    with pytest.raises(UnavailableError, match="full"):
        [publisher.submit(b"x" * LIMIT, source=f"s{n}") for n in range(100)]
    writer.close(0)


def test_a_crowd_of_large_bodies_is_told_to_come_back(writer: Writer) -> None:
    publisher = Publisher(writer, "hes.reads", max_payload_bytes=LIMIT)
    desk = Desk(publisher, FakeReader(), FakeMaster(), lambda: [], inflight_bytes=1000)
    with TestClient(create_app(desk)) as client:
        is_problem(client.post("/v1/reads", content=b"x" * 1001), 503, "busy")
        assert client.post("/v1/reads", content=b"x" * 1000).status_code == 202
        assert client.post("/v1/reads", content=b"x" * 1000).status_code == 202
