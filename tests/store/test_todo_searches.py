"""Searches of the store: what they find becomes To-Dos, what is gone ends them, master data route them."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from connectors.clickhouse import rows
from connectors.clickhouse.sink import TODO_TIMES
from connectors.clickhouse.store import Store
from connectors.head_end.reading import StoreReader
from connectors.todo.part import TodoDesk, tidy
from schemas.topology import load_topology
from tests.todo.driver import CODEC, MONDAY, Driver

DAY = 86_400


class Loop:
    """Commands go straight into a fold, what it says straight into the store."""

    def __init__(self, store: Store, driver: Driver) -> None:
        self.store, self.driver, self.timeout = store, driver, 5.0

    def write(self, topic: str, value: bytes | None, **_: Any) -> Future[tuple[int, int]]:
        assert topic == "todo.commands"
        self.driver.give("TodoCommand", CODEC.decode(value or b""))
        self.keep()
        done: Future[tuple[int, int]] = Future()
        done.set_result((0, 0))
        return done

    def keep(self) -> None:
        """Stores what the fold said."""
        said = self.driver.said.pop("Todo", [])
        if said:
            told = [{**body, **{name: rows.second(body[name]) for name in TODO_TIMES if body[name] is not None}} for body in said]
            self.store.insert_arrow("todo_items", rows.from_dicts("todo_items", told))
            live = [{**body, "done": int(body["state"] == "completed")} for body in told]
            self.store.insert_arrow("todo_open", rows.from_dicts("todo_open", live))


@pytest.fixture
def desk(store: Store) -> TodoDesk:
    driver = Driver()
    loop: Any = Loop(store, driver)
    made = TodoDesk(load_topology(None), StoreReader(store, 1), loop, CODEC, patience=0, store=store)
    made.scanner.settings = made.scanner.todos.settings = driver.settings
    return made


def driver_of(desk: TodoDesk) -> Driver:
    loop: Any = desk.todos.writer
    return loop.driver  # type: ignore[no-any-return]


def live(store: Store) -> dict[str, dict[str, Any]]:
    return {row["subject"]: row for row in store.query_rows("SELECT * FROM todo_queue")}


def day(store: Store, device: str, at: int, condition: int = 500_000, state: int = 1, version: int = 1) -> None:
    """A stored day of one value."""
    store.command(
        "INSERT INTO final_days (device, channel, unit, service_point, account, zone, day, day_start, seconds, step, version, state, "
        "multiplier, values, conditions, methods) SELECT {device:String}, 'E1', 'kWh', 'sp1', 'a1', 'UTC', "
        "toDate32(toDateTime({at:Int64}, 'UTC')), "
        "toDateTime({at:Int64}, 'UTC'), 86400, 1, {version:Int64}, {state:UInt8}, 1000000, [1], [{condition:Int32}], [0]",
        {"device": device, "at": at, "condition": condition, "state": state, "version": version},
    )


def test_silent_channels_are_found_and_end_when_they_are_heard(store: Store, desk: TodoDesk) -> None:
    now = MONDAY - MONDAY % DAY + 10 * DAY
    day(store, "M1", now - 6 * DAY)
    day(store, "M1", now - 2 * DAY, condition=370_000)  # estimated: not heard
    day(store, "M2", now - 2 * DAY)
    assert desk.scanner.search(now)["silent-meter"] == 1
    (todo,) = live(store).values()
    assert (todo["subject"], todo["role"], todo["detail"]) == ("M1/E1", "operations", "no reads for 5 days")
    desk.scanner.search(now)
    assert live(store)["M1/E1"]["version"] == todo["version"], "found again it is the same"
    day(store, "M1", now - DAY)
    desk.scanner.search(now)
    assert live(store) == {}
    assert store.query_rows("SELECT outcome FROM todos")[0]["outcome"] == "auto"
    tidy(store)
    assert store.query_rows("SELECT count() AS n FROM todo_open")[0]["n"] == 0, "the table of live ones holds live ones only"


def test_days_that_stay_open_are_found(store: Store, desk: TodoDesk) -> None:
    now = MONDAY - MONDAY % DAY + 10 * DAY
    for back in (5, 6):
        day(store, "M1", now - back * DAY, state=0)
    day(store, "M1", now - 2 * DAY, state=0)  # not yet for three days
    desk.scanner.search(now)
    assert live(store)["M1/E1"]["detail"].startswith("2 days are open, the first 2026-03-")
    day(store, "M1", now - 5 * DAY, version=2)
    day(store, "M1", now - 6 * DAY, version=2)
    desk.scanner.search(now)
    assert live(store) == {}


def test_a_grouped_todo_ends_with_the_last_of_its_exceptions(store: Store, desk: TodoDesk) -> None:
    driver, now = driver_of(desk), MONDAY + 2 * DAY

    def stored(number: int, status: str, version: int) -> dict[str, Any]:
        return {
            "id": f"e{number}", "rule": "interval-spike", "severity": "issue", "status": status, "version": version, "device": f"m{number}",
            "channel": "1.8.0", "service_point": "", "payload": "p1", "start": MONDAY, "end": MONDAY + 1, "count": 1, "detail": "",
        }  # fmt: skip

    for number in range(300):
        driver.exception(f"e{number}", device=f"m{number}")
    driver.tick(MONDAY + 1)
    desk.todos.writer.keep()  # type: ignore[attr-defined]
    store.insert_arrow("vee_exceptions", rows.from_dicts("vee_exceptions", [stored(n, "open", 1) for n in range(300)]))
    desk.scanner.search(now)
    assert live(store)["interval-spike: payload p1"]["count"] == 100
    store.insert_arrow("vee_exceptions", rows.from_dicts("vee_exceptions", [stored(n, "resolved", 2) for n in range(200, 300)]))
    desk.scanner.search(now)
    assert "interval-spike: payload p1" not in live(store)
    assert len(live(store)) == 200


def test_master_data_and_bills_are_told_once(store: Store, desk: TodoDesk) -> None:
    driver = driver_of(desk)
    driver.exception("e1", device="M1")
    desk.todos.writer.keep()  # type: ignore[attr-defined]
    day(store, "M1", MONDAY - MONDAY % DAY)
    for kind, id_, body in (
        ("service_point", "sp1", {"region": "north", "commodity": "gas"}), ("subscription", "a1", {"customer_class": "large"}),
    ):  # fmt: skip
        store.command(
            "INSERT INTO master_objects (kind, object, version, sequence, at, span_from, span_to, span_body) SELECT {kind:String}, "
            "{id:String}, 1, 1, now(), [-1], [-1], [{body:String}]",
            {"kind": kind, "id": id_, "body": orjson.dumps(body).decode()},
        )
    assert desk.scanner.facts(MONDAY) == 1
    (todo,) = live(store).values()
    assert [todo[name] for name in ("service_point", "account", "region", "commodity", "customer_class")] == [
        "sp1",
        "a1",
        "north",
        "gas",
        "large",
    ]
    assert todo["bill_at"] == datetime(2026, 4, 1, tzinfo=UTC)
    assert desk.scanner.facts(MONDAY) == 0


@pytest.mark.parametrize("scan", ["waiting-determinants", "unanswered-commands", "failed-deliveries", "prepaid-trouble"])
def test_the_other_searches_find_what_they_are_for(store: Store, desk: TodoDesk, scan: str) -> None:
    now = MONDAY
    rows_of = {
        "waiting-determinants": (
            "INSERT INTO usage_transactions (id, usage, account, group, period_start, period_end, trigger, status, version, reason, at) "
            "SELECT 'u1', 'u', 'a1', 'g', toDateTime({now:Int64} - 3000000, 'UTC'), toDateTime({now:Int64} - 200000, 'UTC'), 'cycle', "
            "{state:String}, {version:Int64}, 'a gap', toDateTime({now:Int64} + {version:Int64}, 'UTC')", "exception", "sent"),
        "unanswered-commands": (
            "INSERT INTO device_command_log (id, device, action, issued_at, expires_at) SELECT 'c1', 'M1', 'connect', toDateTime( "
            "{now:Int64} - if({state:String} = '', 7200, 60) , 'UTC'), toDateTime({now:Int64}, 'UTC')", "", None),
        "failed-deliveries": (
            "INSERT INTO delivery_log (id, subscriber, object, status, at, reason) SELECT {state:String}, 's1', 'usage', {state:String}, "
            "toDateTime({now:Int64} - 20000 + {version:Int64}, 'UTC'), 'refused'", "failed", "sent"),
        "prepaid-trouble": (
            "INSERT INTO prepaid_account_states (account, version, as_of, trouble, device) SELECT 'a1', {version:Int64}, toDateTime("
            "{now:Int64} - 3600, 'UTC'), {state:String}, 'M1'", "disconnect failed", ""),
    }  # fmt: skip
    insert, bad, good = rows_of[scan]
    store.command(insert, {"now": now, "state": bad, "version": 1})
    kind = next(kind for kind in desk.scanner.settings.types if kind.scan == scan)
    assert desk.scanner.search(now)[kind.id] == 1
    (todo,) = live(store).values()
    assert (todo["type"], todo["state"]) == (kind.id, "open")
    if good is not None:
        store.command(insert, {"now": now, "state": good, "version": 2})
        desk.scanner.search(now)
        assert live(store) == {}
