"""Usage events: each day of an account told once per change, as a whole."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from schemas.block import EXCEPTION, OPEN
from schemas.conditions import EST_LIKE_DAY, MISSING, REGULAR
from schemas.topology.usage import EventSettings, UsageSettings
from tests.determinants.kit import Hub, Row, day_number

MONDAY = day_number("2026-03-02")


def test_a_day_is_told_by_time_of_use_and_replaced_as_a_whole() -> None:
    hub = Hub()
    hub.give(Row(MONDAY, [1_000_000] * 96, [REGULAR] * 90 + [EST_LIKE_DAY] * 4 + [MISSING] * 2, state=OPEN, version=3))
    hub.give(Row(MONDAY, [2_000_000] * 96, state=EXCEPTION, version=7, replaces=3))
    first, second = hub.events
    assert {line["tou"]: line["quantity"] for line in first["lines"]} == {"peak": 24, "shoulder": 36, "offpeak": 34}
    assert first["quantity"] == Decimal(94)
    assert (first["slots"], first["actual"], first["estimated"], first["missing"]) == (96, 90, 4, 2)
    assert (first["provisional"], first["status"], first["replaces"]) == (True, "open", "")
    assert (second["quantity"], second["status"], second["provisional"], second["missing"]) == (192, "held", False, 0)
    assert second["replaces"] == first["id"]
    assert (first["day"], first["zone"], first["direction"], first["key"]) == ("2026-03-02", "Europe/Berlin", "delivered", b"a1")


def test_a_day_that_leaves_its_account_goes_to_zero() -> None:
    hub = Hub()
    hub.give(Row(MONDAY, [1_000_000] * 96, version=1))
    hub.give(Row(MONDAY, [0] * 96, [0] * 96, version=2, replaces=1))
    assert (hub.events[-1]["quantity"], hub.events[-1]["slots"]) == (0, 0)
    hub.close()
    assert {body["quantity"] for body in hub.latest().values()} == {Decimal(0)}


def test_whom_is_told_what() -> None:
    settings = UsageSettings(events=EventSettings(accounts=("p-*",), measures=("interval",)))
    hub = Hub(usage=settings)
    hub.give(
        Row(MONDAY, [1] * 96, account="p-1"),
        Row(MONDAY, [1] * 96, account="x-1", device="m2"),
        Row(MONDAY, [1] * 96, account="", device="m3"),
        Row(MONDAY, [5, 7], seconds=0, times=[1_772_409_600, 1_772_450_000], account="p-1", device="m4"),
    )
    assert [(body["account"], body["device"]) for body in hub.events] == [("p-1", "m1")]


def test_a_register_that_checks_intervals_is_not_told_beside_them() -> None:
    hub = Hub()
    reads: dict[str, Any] = {"seconds": 0, "times": [1_772_409_600, 1_772_450_000]}
    hub.give(Row(MONDAY, [5, 7], channel="1.8.0", **reads))
    assert [body["measure"] for body in hub.events] == ["scalar"]
    hub.send("MasterChannel", {"device": "m1", "channel": "E1", "check_channel": "1.8.0"})
    hub.restart()
    hub.give(Row(MONDAY, [5, 9], channel="1.8.0", version=2, replaces=1, **reads))
    assert len(hub.events) == 1
