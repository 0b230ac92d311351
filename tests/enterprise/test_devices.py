"""A simulated head end carries out what SAP orders, in the forms of CIM, JSON and Kafka, with answers that come twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from connectors.clickhouse import migrate
from connectors.clickhouse.store import open_store
from connectors.enterprise.simulator.devices import Fleet, HttpDoor, KafkaDoor, Manner, step
from connectors.enterprise.simulator.hub import Hub
from connectors.enterprise.simulator.sap import Sap, install, switch
from connectors.kafka.client import consumer, producer
from connectors.kafka.mock import MockBroker
from connectors.kafka.settings import KafkaSettings
from schemas.codec import Codec
from schemas.topology import load_topology
from tests.enterprise.world import World, world
from tests.patience import PATIENCE, eventually

ROOT = "SmartMeterUtilitiesConnectionStatusChangeRequestERPCreateRequest"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[World]:
    topology = load_topology(None)
    store = open_store(f"chdb://{tmp_path}/store")
    migrate.up(store)
    with world(topology, store, tmp_path) as made:
        made.tick()
        yield made
    store.close()


def test_what_sap_orders_is_carried_out_by_cim_and_by_json(hub: World) -> None:
    forms = {"M1": "cim", "M2": "plain"}
    fleet = Fleet(Manner(delay=(0.1, 0.2), duplicate=1.0))
    doors = [HttpDoor(Hub(hub.client), form, prefix=meter) for meter, form in forms.items()]

    def idle() -> None:
        hub.tick()
        for door in doors:
            step(fleet, door, datetime.now(UTC).timestamp())

    sap = Sap(Hub(hub.client, idle=idle, patience=PATIENCE))
    for meter in forms:
        install(sap, meter)
        for words, category in (("disconnect", "1"), ("reconnect", "2")):
            asked = sap.single(ROOT, switch(f"C{category}-{meter}", meter, category))
            status = sap.confirmed(words, asked)["UtilitiesConnectionStatusChangeRequest"]["DeviceConnectionStatus"][0]
            assert status["UtilitiesConnectionStatusChangeResultCode"] == "1"
            assert fleet.supplied[meter] is (category == "2")
    sap.hub.wait("second answers", lambda: not fleet.busy)
    hub.tick()
    rows = hub.client.get("/v1/device-commands").json()["items"]
    assert [(row["device"], row["action"], row["status"]) for row in rows] == [
        (meter, action, "done") for meter in forms for action in ("disconnect", "connect")
    ]
    assert fleet.counts["done"] == 8


def test_a_head_end_that_speaks_kafka_answers_once_over_restarts() -> None:
    codec, topology = Codec(), load_topology(None)
    with MockBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        made = producer(kafka, linger_ms=0)
        made.produce("device.replies", b"", partition=0)
        for number in range(3):
            command = {"id": f"c{number}", "device": f"d{number}", "action": "disconnect", "issued_at": 1, "expires_at": 4_000_000_000,
                       "by": "prepaid", "reason": "", "reference": ""}  # fmt: skip
            made.produce("device.commands", codec.encode("DeviceCommand", command), key=command["device"].encode(), partition=0)
        assert made.flush(120) == 0
        fleet = Fleet(Manner(delay=(0.0, 0.0), accepts=False))
        for _ in range(2):
            door = KafkaDoor(kafka, topology, codec)
            try:
                eventually(lambda: fleet.counts["done"] >= 3, meanwhile=lambda door=door: step(fleet, door, time.time()), pause=0)
                for _ in range(5):
                    step(fleet, door, time.time())
            finally:
                door.close()
        reader = consumer(kafka, "test")
        reader.assign([TopicPartition("device.replies", number, 0) for number in range(4)])
        found: list[bytes] = []

        def look() -> bool:
            found.extend(one.value() for one in reader.consume(10, 0.5) if one.error() is None and one.value())
            return len(found) >= 3

        eventually(look)
        look()  # what comes once too often would be there by now
        said = [codec.decode(value) for value in found]
        reader.close()
    assert sorted((one["command"], one["device"], one["status"]) for one in said) == [(f"c{n}", f"d{n}", "done") for n in range(3)]
    assert fleet.counts["repeated"] == 0, "what was taken does not come again"
