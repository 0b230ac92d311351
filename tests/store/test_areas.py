"""Rights in an area over the real store: lists and single things show what lies there, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from connectors.clickhouse import migrate, rows
from connectors.clickhouse.store import open_store
from connectors.enterprise.devices import ORDERS
from connectors.enterprise.routes import OBJECTS
from connectors.head_end.listing import DETERMINANTS, EXCEPTIONS, Listing, page_query
from connectors.head_end.problems import ProblemError
from connectors.head_end.reading import StoreReader
from connectors.prepaid.questions import ACCOUNTS
from connectors.rights.principal import Principal, as_principal
from connectors.rights.roles import Roles
from connectors.rights.scope import all_within, require_within
from schemas.topology.rights import Grant, RightsSettings

ROLES = Roles(RightsSettings().all_roles)


def one(kind: str, id: str, **body: Any) -> dict[str, Any]:
    return {
        "item": id, "message": "m", "source": "test", "user": "", "at": 5, "sequence": 1, "action": "put", "kind": kind, "object": id,
        "outcome": "applied", "reason": "", "version": 1, "span_from": [-1], "span_to": [-1], "span_body": [orjson.dumps(body).decode()],
    }  # fmt: skip


def place(side: str, region: str) -> list[dict[str, Any]]:
    """A service point with its device, account, payer and person, all named after a side."""
    return [
        one("service_point", f"sp-{side}", region=region, commodity="gas"),
        one("device", f"d-{side}", serial="1"),
        one("component", f"c-{side}", device=f"d-{side}", channel="1"),
        one("install", f"i-{side}", device=f"d-{side}", service_point=f"sp-{side}"),
        one("subscription", f"a-{side}", account=f"p-{side}", service_points=[f"sp-{side}"]),
        one("contract", f"k-{side}", subscription=f"a-{side}", account=f"p-{side}"),
        one("account", f"p-{side}", person=f"n-{side}"),
        one("person", f"n-{side}", name="sealed"),
    ]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreReader]:
    store = open_store(f"chdb://{tmp_path_factory.mktemp('areas')}/store")
    migrate.up(store)
    sides = {"n": "north-1", "s": "south"}
    names = rows.from_dicts("master_objects", [line for side, region in sides.items() for line in place(side, region)])
    store.insert_arrow("master_objects", names)
    for side in sides:
        command = {"id": f"x-{side}", "device": f"d-{side}", "action": "connect", "issued_at": 5, "expires_at": 9, "by": "", "reason": "",
                   "reference": "", "text": "", "limit": None}  # fmt: skip
        exception = {"id": f"e-{side}", "rule": "high-low", "severity": "issue", "status": "open", "version": 1, "device": f"d-{side}",
                     "channel": "1", "service_point": f"sp-{side}", "payload": "", "start": 5, "end": 9, "count": 1,
                     "detail": ""}  # fmt: skip
        store.insert_arrow("device_command_log", rows.from_dicts("device_command_log", [command]))
        store.insert_arrow("vee_exceptions", rows.from_dicts("vee_exceptions", [exception]))
        account: dict[str, Any] = dict.fromkeys(("zone", "currency", "state", "level", "hold", "trouble", "hash", "tariff"), "")
        account |= dict.fromkeys(("balance", "provisional", "debt", "emergency", "daily", "postings"), 0)
        account |= {"account": f"a-{side}", "version": 1, "as_of": 5, "service_point": f"sp-{side}", "device": f"d-{side}",
                    "days_left": None, "cut_from": None, "measured_until": None}  # fmt: skip
        store.insert_arrow("prepaid_account_states", rows.from_dicts("prepaid_account_states", [account]))
    yield StoreReader(store, 1)
    store.close()


def nora() -> Principal:
    """May see and do most things, in the north and of gas."""
    grants = tuple(Grant(role=role, region="north*", commodity="gas") for role in ("supervisor", "operator", "customer-service"))
    return Principal("nora", "session", grants, None, ROLES)


def listed(reader: StoreReader, listing: Listing, permission: str, **filters: str) -> list[dict[str, Any]]:
    with as_principal(nora(), permission):
        sql, parameters = page_query(listing, filters, None, None, None, 100)
        return reader.rows(sql, parameters)


@pytest.mark.parametrize("kind", ["service_point", "device", "component", "install", "subscription", "contract", "account", "person"])
def test_master_data_of_the_area_are_listed_and_found_one_by_one(reader: StoreReader, kind: str) -> None:
    found = listed(reader, OBJECTS, "master.read", kind=kind)
    assert [row["id"][-1] for row in found] == ["n"]
    bounds = nora().bounds("master.read") or []
    assert bounds
    north, south = found[0]["id"], f"{found[0]['id'][:-1]}s"
    assert all_within(reader, [(f"master/{kind}", north)], bounds)
    assert not all_within(reader, [(f"master/{kind}", south)], bounds)
    assert not all_within(reader, [(f"master/{kind}", north), (f"master/{kind}", south)], bounds)


def test_other_lists_show_the_area(reader: StoreReader) -> None:
    assert [row["id"] for row in listed(reader, EXCEPTIONS, "results.read")] == ["e-n"]
    assert [row["id"] for row in listed(reader, ORDERS, "devices.read")] == ["x-n"]
    assert [row["account"] for row in listed(reader, ACCOUNTS, "prepaid.read")] == ["a-n"]
    assert listed(reader, DETERMINANTS, "results.read") == []


def test_what_a_handler_finds_is_held_against_the_area(reader: StoreReader) -> None:
    with as_principal(nora(), "prepaid.read"):
        require_within(reader, ("account", "a-n"), ("device", "d-n"))
        for things in ([("account", "a-s")], [("account", "a-n"), ("device", "d-s")], [("account", "")], [("payload", "x")]):
            with pytest.raises(ProblemError) as refused:
                require_within(reader, *things)
            assert refused.value.status == 403
    require_within(reader, ("account", "a-s"))  # nobody's request: services among themselves
