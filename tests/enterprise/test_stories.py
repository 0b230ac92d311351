"""Whole conversations with SAP: real XML through the real doors, over a broker and a store, with agents between."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.clickhouse import migrate
from connectors.clickhouse.store import open_store
from connectors.enterprise.simulator.ccb import Ccb, sync_to_bill
from connectors.enterprise.simulator.hub import Hub
from connectors.enterprise.simulator.sap import Sap, meter_to_cash
from schemas.topology import load_topology
from tests.enterprise.world import World, world


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[World]:
    topology = load_topology(None)
    enterprise = topology.enterprise.model_copy(update={"ask": 1})
    store = open_store(f"chdb://{tmp_path}/store")
    migrate.up(store)
    with world(topology.model_copy(update={"enterprise": enterprise, "partitions": topology.partitions}), store, tmp_path) as made:
        made.tick()
        yield made
    store.close()


def test_from_sync_to_what_stands_on_the_bill(hub: World) -> None:
    heard: list[str] = []
    story = sync_to_bill(Ccb(Hub(hub.client, idle=hub.tick, patience=60, say=heard.append)), "E2000001")
    total = [one for one in story["usage"] if one["sqi"] == "interval-consumption"]
    assert [Decimal(one["quantity"]) for one in total] == [Decimal(story["intervals"]) / 4]
    assert total[0]["uom"] == "kWh"
    assert any("used on bill" in line for line in heard)


def test_from_a_new_meter_to_the_bill(hub: World) -> None:
    heard: list[str] = []
    sap = Sap(Hub(hub.client, idle=hub.tick, patience=60, say=heard.append))
    story = meter_to_cash(sap, "M1000001")
    assert story["switched"] == {"disconnect": "1", "reconnect": "1"}
    assert story["reading"]["MeterReadingTime"] == "23:59:59"
    assert story["reading"]["MeterReadingTypeCode"] == "01"
    slots = len(story["profile"])
    assert slots in (92, 96, 100)
    assert Decimal(story["sum"]) == Decimal(slots) / 10
    assert Decimal(story["reading"]["MeterReadingResultValue"]) == Decimal("1234.567") + Decimal(slots) / 10, "cut to three decimals"
