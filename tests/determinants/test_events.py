"""Usage events: each day of an account told once per change, as a whole."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas.block import EXCEPTION, OPEN
from schemas.conditions import EST_LIKE_DAY, MISSING, REGULAR, SUSPECT
from schemas.identity import partition_of
from schemas.topology.usage import EventSettings, UsageSettings
from streams import calendar
from streams.determinants.events import MOST
from streams.determinants.fold import DeterminantsFold
from streams.runtime.fold import Message
from tests.determinants.kit import CODEC, Hub, Row, day_number, finals

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


def test_the_days_highest_interval_is_told_as_power() -> None:
    hub = Hub()
    values = [250_000] * 96
    values[30], values[60], values[70] = 900_000, 5_000_000, 900_000
    codes = [REGULAR] * 96
    codes[60] = SUSPECT  # a lump makes no maximum
    start = int(calendar.start_of("Europe/Berlin", MONDAY))
    hub.give(
        Row(MONDAY, values, codes),
        Row(MONDAY, [value * 1000 for value in values], codes, device="wh", unit="Wh"),
        Row(MONDAY, values, codes, device="gas", unit="m3"),
        Row(MONDAY, values, [MISSING] * 96, device="dead"),
        Row(MONDAY, [5, 7], seconds=0, times=[1_772_409_600, 1_772_450_000], device="scalar"),
    )
    said = {body["device"]: (body["demand"], body["demand_seconds"], body["demand_end"]) for body in hub.events}
    told = (Decimal("3.6"), 900, datetime.fromtimestamp(start + 31 * 900, UTC))
    assert said == {"m1": told, "wh": told, **dict.fromkeys(("gas", "dead", "scalar"), (None, 0, None))}
    hub.give(Row(MONDAY, values, version=2, replaces=1))
    assert hub.events[-1]["demand"] == 20


def test_an_interval_told_alone_has_its_own_power() -> None:
    hub = Hub(usage=UsageSettings(events=EventSettings(intervals=("a*",))))
    hub.give(Row(MONDAY, [250_000] * 96, [MISSING] + [REGULAR] * 95))
    assert [body["demand"] for body in hub.events] == [None] + [Decimal(1)] * 95


def test_topics_that_take_batches_get_the_same_events_by_partition() -> None:
    hub = Hub(usage=UsageSettings(events=EventSettings(intervals=("i*",))))
    hub.fold = DeterminantsFold(hub.settings, 0, 1, hub.hot_days, hub.usage, gathered={"inbox": 4})
    rows = [Row(MONDAY, [1_000_000] * 96, account=f"{'i' if n % 9 == 0 else 'a'}{n}", device=f"m{n}") for n in range(60)]
    outputs = hub.fold.apply(Message("FinalBlock", finals(rows), "m1", "p")).outputs
    alone = [output.body for output in outputs if output.type == "UsageEvent"]
    batches = [output for output in outputs if output.type == "UsageBatch"]
    assert {output.topic for output in batches} == {"inbox"}
    assert len(alone) == 53 + 7 * 96
    for number in range(4):
        own = [output.body["events"] for output in batches if output.partition == number]
        assert [event for events in own for event in events] == [e for e in alone if partition_of(e["account"], 4) == number]
        assert all(len(events) == MOST for events in own[:-1])
        assert 0 < len(own[-1]) <= MOST
    assert all(CODEC.decode(CODEC.encode("UsageBatch", output.body))["events"] for output in batches)
    assert not hub.fold.apply(Message("Tick", {"at": 0, "close": False}, "m2")).outputs
