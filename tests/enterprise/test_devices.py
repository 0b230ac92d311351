"""Connection changes of SAP, carried out by a simulated head end in either form, with answers that come twice or late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connectors.clickhouse import migrate
from connectors.clickhouse.store import open_store
from connectors.enterprise.simulator.devices import Fleet, HttpDoor, Manner, step
from connectors.enterprise.simulator.hub import Hub
from connectors.enterprise.simulator.sap import Sap, install, switch
from schemas.topology import load_topology
from tests.enterprise.world import World, world

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

    sap = Sap(Hub(hub.client, idle=idle, patience=60))
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
