"""Critical-peak events in determinants of single channels, by day and by period: early, late, changed, withdrawn, corrected."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.conditions import REGULAR
from schemas.topology.tou import DeterminantsSettings
from tests.determinants.kit import Hub, Row, day_number, slots
from tests.determinants.test_after_vee import START, Chain, reads

FIRST = day_number("2026-03-01")


def settings(events: tuple[str, ...] = ("critical",)) -> DeterminantsSettings:
    data = DeterminantsSettings.default().model_dump(by_alias=True)
    data["maps"] = [{**data["maps"][0], "events": events}, {"id": "flat", "versions": [{"default": "critical"}]}]
    data["corrections"] = {"versions": [{"thresholds": [{}]}]}
    return DeterminantsSettings.model_validate(data)


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def event(sequence: int, day: str, first: int, last: int, *, tou: str = "critical", **more: Any) -> dict[str, Any]:
    """An event from and to an hour, UTC."""
    about = {"id": "cpp", "use": "", "maps": ["three-part"], "accounts": [], "cancelled": False, "user": "", "sequence": sequence}
    return {**about, "start": instant(f"{day}T{first:02d}:00"), "end": instant(f"{day}T{last:02d}:00"), "tou": tou, **more}


def month(days: int = 31, **more: Any) -> list[Row]:
    return [Row(day, [1_000_000] * slots("Europe/Berlin", day, 3600), seconds=3600, **more) for day in range(FIRST, FIRST + days)]


def again(row: Row, values: list[int] | None = None, *, carried: bool = True) -> Row:
    """The next version of a day: other values, or the same ones told again."""
    before = {"before": row.values, "before_conditions": row.conditions} if carried else {}
    about = {"seconds": 3600, "account": row.account, "device": row.device, "version": row.version + 1, "replaces": row.version}
    return Row(row.day, values or row.values, **about, **before)


def amounts(hub: Hub) -> dict[str, int]:
    return {body["tou"]: int(body["quantity"]) for body in hub.latest().values() if body["account"] == "a1"}


USUAL = {"": 743, "peak": 22 * 6, "shoulder": 22 * 9, "offpeak": 743 - 22 * 15, "critical": 0}
SWAPPED = {**USUAL, "peak": USUAL["peak"] - 3, "critical": 3}


def test_an_event_that_is_known_before_its_day() -> None:
    hub = Hub(settings())
    hub.send("TouEvent", event(1, "2026-03-10", 16, 19))
    hub.give(*month())
    hub.close()
    assert amounts(hub) == SWAPPED
    day = next(day for day in hub.days if day["day"] == day_number("2026-03-10"))
    assert day["lines"] == {"": 24_000_000, "peak": 3_000_000, "shoulder": 9_000_000, "offpeak": 9_000_000, "critical": 3_000_000}


@pytest.mark.parametrize("carried", [True, False])
def test_a_late_event_and_its_withdrawal_are_corrections(carried: bool) -> None:
    """VEE tells the day again behind the event: from the ring without, from the store with what it replaces."""
    days = month(31 if carried else 10)
    hub = Hub(settings())
    hub.give(*days)
    hub.close()
    before = amounts(hub)
    told = again(days[9], carried=carried)
    hub.send("TouEvent", event(1, "2026-03-10", 16, 19))
    hub.give(told)
    hub.restart()
    hub.close()
    assert amounts(hub) == {**before, "peak": before["peak"] - 3, "critical": 3}
    assert {body["reason"] for body in hub.sent if body["version"] == 2} == {"late or corrected reads"}
    hub.send("TouEvent", event(2, "2026-03-10", 16, 19, cancelled=True))
    hub.restart()
    hub.give(again(told, carried=carried))
    hub.close()
    assert amounts(hub) == before
    assert max(body["version"] for body in hub.sent) == 3


def test_an_event_that_moves_and_a_correction_of_its_day() -> None:
    days = month()
    hub = Hub(settings())
    hub.send("TouEvent", event(1, "2026-03-10", 16, 19))
    hub.give(*days)
    hub.close()
    corrected = again(days[9], [2_000_000] * 24)
    hub.give(corrected)
    hub.close()
    twice = {"": 767, "peak": USUAL["peak"] + 6 - 6, "shoulder": USUAL["shoulder"] + 9, "offpeak": USUAL["offpeak"] + 9, "critical": 6}
    assert amounts(hub) == twice
    hub.send("TouEvent", event(2, "2026-03-12", 10, 12))
    hub.give(again(corrected), again(days[11]))
    hub.close()
    assert amounts(hub) == {**twice, "peak": USUAL["peak"] + 6, "shoulder": twice["shoulder"] - 2, "critical": 2}


def test_what_comes_again_or_out_of_order_from_another_partition_is_nothing() -> None:
    hub = Hub(settings())
    hub.send("TouEvent", event(1, "2026-03-10", 16, 19))
    hub.send("TouEvent", event(2, "2026-03-10", 16, 19, cancelled=True))
    hub.send("TouEvent", event(1, "2026-03-10", 16, 19))
    hub.give(*month())
    hub.close()
    assert amounts(hub) == USUAL


def test_another_map_holds_and_only_for_some_accounts() -> None:
    hub = Hub(settings())
    hub.send("TouEvent", event(1, "2026-03-10", 16, 19, tou="", use="flat", accounts=["a*"]))
    hub.give(*month(), *month(account="b1", device="m2"))
    hub.close()
    assert amounts(hub) == SWAPPED
    other = {body["tou"]: int(body["quantity"]) for body in hub.latest().values() if body["account"] == "b1"}
    assert other == USUAL


def test_a_period_the_map_does_not_name_changes_nothing() -> None:
    hub = Hub(settings(()))
    hub.send("TouEvent", event(1, "2026-03-10", 16, 19))
    hub.give(*month())
    hub.close()
    assert amounts(hub) == {name: amount for name, amount in USUAL.items() if name != "critical"}


@pytest.mark.parametrize("seed", range(12))
def test_any_history_of_events_and_corrections_equals_a_rebuild(seed: int) -> None:
    rng = random.Random(seed)
    hub, newest, events, sequence = Hub(settings()), {}, {}, 0
    for row in month():
        newest[row.day] = row
    hub.give(*newest.values())
    for _ in range(25):
        kind = rng.choice(["event", "event", "cancel", "correct", "restart", "close"])
        if kind in ("event", "cancel"):
            sequence += 1
            first = rng.randrange(0, 22)
            name, number = f"cpp{rng.randrange(3)}", rng.randrange(1, 30)
            told = event(sequence, f"2026-03-{number:02d}", first, rng.randrange(first + 1, 24), id=name, cancelled=kind == "cancel")
            touched = [one for one in (events.get(name), told) if one is not None]
            events[name] = told
            hub.send("TouEvent", told)
            days = {day for one in touched for day in newest if one["start"] < (day + 1) * 86_400 and (day - 1) * 86_400 < one["end"]}
            for day in sorted(days):  # as VEE does: behind the event, each day once more
                newest[day] = again(newest[day])
                hub.give(newest[day])
        elif kind == "correct":
            day = rng.choice(sorted(newest))
            newest[day] = again(newest[day], [rng.randrange(3_000_000) for _ in newest[day].values])
            hub.give(newest[day])
        elif kind == "restart":
            hub.restart()
        else:
            hub.close()
    hub.close()
    rebuilt = Hub(settings())
    for told in events.values():
        rebuilt.send("TouEvent", told)
    rebuilt.give(*(Row(row.day, row.values, seconds=3600) for row in newest.values()))
    rebuilt.close()
    assert {k: b["quantity"] for k, b in hub.latest().items()} == {k: b["quantity"] for k, b in rebuilt.latest().items()}


def test_vee_tells_days_again_that_were_told_before_the_event() -> None:
    """Days in VEE's state and days that only the store has, behind the event; withdrawn, they are told once more."""
    chain = Chain(hot_days=2, determinants=settings())
    for day in range(10):
        start = START + day * 86_400 - (3600 if day > 4 else 0)  # clocks go forward on the fifth day
        count = 46 if day == 4 else 48
        chain.send("ReadBlock", reads("d1", start, [1_000_000] * count, [REGULAR] * count, f"r{day}"))
        chain.send("Tick", {"at": start + 3 * 86_400, "close": False})
    chain.send("Tick", {"at": 0, "close": True})
    before = lines(chain)
    versions = {place: int(block.version[0]) for place, block in chain.stored.items()}
    about = {"id": "e", "tou": "critical", "use": "", "maps": [], "accounts": [], "user": ""}
    old, new = ({**about, "id": f"e{day}", "start": START + day * 86_400 + 36_000, "end": START + day * 86_400 + 43_200} for day in (1, 8))
    for sequence, one in enumerate((old, new), 1):
        chain.send("TouEvent", {**one, "cancelled": False, "sequence": sequence})
    chain.send("Tick", {"at": 0, "close": True})
    assert chain.recalls > 0
    after = lines(chain)
    assert sum(amount for (_, tou), amount in after.items() if tou == "critical") == 8
    assert all(after[key] == amount for key, amount in before.items() if key[1] == "")
    touched = {place for place, block in chain.stored.items() if int(block.version[0]) > versions[place]}
    assert len(touched) == 2
    for sequence, one in enumerate((old, new), 3):
        chain.send("TouEvent", {**one, "cancelled": True, "sequence": sequence})
    chain.send("Tick", {"at": 0, "close": True})
    assert lines(chain) == before


def lines(chain: Chain) -> dict[tuple[int, str], int]:
    return {(body["period_start"].month, body["tou"]): int(body["quantity"]) for body in chain.hub.latest().values()}


# --- maps that change inside a billing period -----------------------------------------------------------------------------------


def reassigned(*, planned: bool = True) -> DeterminantsSettings:
    """Map a with one period, from 15 March on map b with two of which one has the same name."""
    maps = [
        {"id": "a", "versions": [{"default": "day"}]},
        {"id": "b", "versions": [{"default": "night", "schedule": [{"period": "day", "from": "06:00", "to": "18:00"}]}]},
    ]
    assign = [{"map": "b", "from": "2026-03-15"}, {"map": "a"}] if planned else [{"map": "a"}]
    corrections = {"versions": [{"thresholds": [{}]}]}
    return DeterminantsSettings.model_validate({"maps": maps, "assign": assign, "corrections": corrections})


def split(hub: Hub) -> dict[tuple[str, int, int], int]:
    return {
        (body["tou"], body["period_start"].day, body["period_end"].day): int(body["quantity"]) for body in hub.latest().values()
    }  # fmt: skip


SPLIT = {("", 28, 31): 743, ("day", 28, 14): 14 * 24, ("day", 14, 31): 17 * 12, ("night", 14, 31): 17 * 12 - 1}


def test_determinants_split_where_the_map_changes() -> None:
    hub = Hub(reassigned())
    hub.give(*month())
    hub.close()
    assert split(hub) == SPLIT
    assert len({body["id"] for body in hub.sent}) == len(hub.sent)
    assert {day["map"] for day in hub.days} == {"a", "b"}
    assert [day["lines"] for day in hub.days][-1] == {"": 24_000_000, "day": 12_000_000, "night": 12_000_000}


def test_a_change_planned_in_the_middle_of_a_period_keeps_what_was_summed() -> None:
    days = month()
    hub = Hub(reassigned(planned=False))
    hub.give(*days[:10])
    hub.settings = reassigned()
    hub.restart()
    hub.give(*days[10:20])
    hub.restart(widened=True)
    hub.give(again(days[9], [2_000_000] * 24), *days[20:])
    hub.close()
    assert split(hub) == {**SPLIT, ("", 28, 31): 767, ("day", 28, 14): 15 * 24}


def test_a_change_that_is_given_up_again() -> None:
    days = month()
    hub = Hub(reassigned())
    hub.give(*days[:10])
    hub.settings = reassigned(planned=False)
    hub.restart()
    hub.give(*days[10:])
    hub.close()
    assert split(hub) == {("", 28, 31): 743, ("day", 28, 31): 743}


def test_corrections_on_both_sides_of_the_change_go_where_they_belong() -> None:
    days = month()
    hub = Hub(reassigned())
    hub.give(*days)
    hub.close()
    hub.give(again(days[4], [2_000_000] * 24))
    hub.give(again(days[20], [2_000_000] * 24))
    hub.close()
    assert split(hub) == {
        ("", 28, 31): 791, ("day", 28, 14): 15 * 24, ("day", 14, 31): 18 * 12, ("night", 14, 31): 18 * 12 - 1
    }  # fmt: skip


def test_a_change_to_no_map_at_all() -> None:
    data = reassigned().model_dump(by_alias=True)
    data["assign"][0]["map"] = None
    hub = Hub(DeterminantsSettings.model_validate(data))
    hub.give(*month())
    hub.close()
    assert split(hub) == {("", 28, 31): 743, ("day", 28, 14): 14 * 24}
