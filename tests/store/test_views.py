"""What agents send, as the public views show it: exact values, corrections, days of all lengths, a year of data."""

from __future__ import annotations

import threading
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.clickhouse import rows
from connectors.clickhouse.store import Store
from schemas.conditions import EST_INTERPOLATED, INVALID, MISSING, OUTAGE, REGULAR, REPORTED_MISSING
from schemas.rules import METHOD
from streams.calendar import day_of, length_of, start_of
from tests.patience import PATIENCE
from tests.store.conftest import days, emptied, finals


@pytest.fixture
def store(module_store: Store) -> Store:
    return emptied(module_store)


def ask(store: Store, sql: str, **params: Any) -> list[dict[str, Any]]:
    return store.query_rows(sql, params)


def load(store: Store, *blocks: Any) -> None:
    for table, data in (("final_days", rows.final_days(blocks)), ("register_reads", rows.register_reads(blocks))):
        if data is not None:
            store.insert_arrow(table, data)


def test_an_interval_row(store: Store) -> None:
    load(
        store,
        finals(
            [
                {
                    "device": "M7",
                    "values": [1_500_000, 0, 2, 4_000_000],
                    "conditions": [REGULAR, MISSING, EST_INTERPOLATED, 0],
                    "methods": [0, 0, METHOD["interval-interpolation"], 0],
                    "version": 9,
                    "state": 2,
                    "zone": "Europe/Paris",
                    "day": 19_800,
                    "start": 19_800 * 86_400 - 3600,
                }
            ],
            payload="p1",
            source="hes-a",
        ),
    )
    found = ask(store, "SELECT * FROM intervals ORDER BY start")
    assert [row["start"] for row in found] == [datetime(2024, 3, 17, h, m, tzinfo=UTC) for h, m in ((23, 0), (23, 30))] + [
        datetime(2024, 3, 18, 0, 0, tzinfo=UTC)
    ]  # the fourth is not due: nobody sees it
    assert [row["value"] for row in found] == [Decimal("1.5"), None, Decimal("0.000002")]
    assert [row["condition"] for row in found] == [REGULAR, MISSING, EST_INTERPOLATED]
    assert [row["condition_name"] for row in found] == ["regular", "missing", "system-estimate-good"]
    assert [row["method"] for row in found] == ["", "", "interval-interpolation"]
    shared = {k: found[0][k] for k in found[0] if k not in ("start", "value", "condition", "condition_name", "method")}
    assert shared == {
        "device": "M7", "channel": "A+", "unit": "kWh", "seconds": 1800, "version": 9, "day": date(2024, 3, 18),
        "direction": "delivered", "state": "exception", "service_point": "SP1", "account": "ACC1", "zone": "Europe/Paris",
        "source": "hes-a", "payload": "p1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "shown"),
    [(INVALID, True), (MISSING, False), (REPORTED_MISSING, False), (199_900, False), (OUTAGE, True), (REGULAR, True)],
)
def test_only_missing_values_are_null(store: Store, condition: int, shown: bool) -> None:
    load(
        store,
        finals(
            [
                {"values": [5], "conditions": [condition]},
                {"device": "R", "seconds": 0, "values": [5], "times": [60], "conditions": [condition]},
            ]
        ),
    )
    value = Decimal("0.000005") if shown else None
    assert ask(store, "SELECT value FROM intervals") == [{"value": value}]
    assert ask(store, "SELECT reading FROM registers") == [{"reading": value}]


def test_register_reads(store: Store) -> None:
    load(
        store,
        finals(
            [
                {"values": [1]},
                {"device": "R1", "seconds": 0, "values": [99_999_000_000, 3_000_000], "times": [1_700_000_000, 1_700_003_600],
                 "conditions": [REGULAR, EST_INTERPOLATED], "methods": [0, METHOD["scalar-estimation"]], "dials": 5,
                 "multiplier": 40_000_000, "received": [99_999_000_000, 1], "received_conditions": [REGULAR, INVALID], "version": 3},
                {"device": "R2", "seconds": 0, "values": [7], "times": [1_700_000_000]},
            ]
        ),
    )  # fmt: skip
    found = ask(store, "SELECT device, at, reading, condition, version, method, dials, multiplier FROM registers ORDER BY device, at")
    assert found == [
        {"device": "R1", "at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "reading": Decimal(99_999), "condition": REGULAR,
         "version": 3, "method": "", "dials": 5, "multiplier": Decimal(40)},
        {"device": "R1", "at": datetime(2023, 11, 14, 23, 13, 20, tzinfo=UTC), "reading": Decimal(3), "condition": EST_INTERPOLATED,
         "version": 3, "method": "scalar-estimation", "dials": 5, "multiplier": Decimal(40)},
        {"device": "R2", "at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "reading": Decimal("0.000007"), "condition": REGULAR,
         "version": 1, "method": "", "dials": 0, "multiplier": Decimal(1)},
    ]  # fmt: skip
    kept = ask(store, "SELECT device, received, received_condition FROM register_reads ORDER BY device, at")
    assert [(k["received"], k["received_condition"]) for k in kept] == [(99_999_000_000, REGULAR), (1, INVALID), (0, 0)]
    assert ask(store, "SELECT count() AS n FROM intervals") == [{"n": 1}]


def test_the_highest_version_counts_in_whatever_order_it_comes(store: Store) -> None:
    blocks = [finals([{"values": [version * 1000] * 48, "version": version}]) for version in (1, 2, 3)]
    for order in ((2, 0, 1), (0, 1, 2), (1, 2, 0), (0,)):
        load(store, *(blocks[i] for i in order))
        for i in order:
            load(store, blocks[i])
    assert ask(store, "SELECT sum(value) AS total, count() AS n, max(version) AS v FROM intervals") == [
        {"total": Decimal("0.144"), "n": 48, "v": 3}
    ]
    store.command("OPTIMIZE TABLE final_days FINAL")
    assert ask(store, "SELECT sum(value) AS total FROM intervals") == [{"total": Decimal("0.144")}]
    assert ask(store, "SELECT count() AS n FROM final_days") == [{"n": 1}]


@pytest.mark.parametrize(
    ("zone", "day", "slots"),
    [
        ("Europe/Berlin", date(2024, 3, 31), 92),
        ("Europe/Berlin", date(2024, 10, 27), 100),
        ("Australia/Lord_Howe", date(2024, 4, 7), 98),
        ("Asia/Kathmandu", date(2024, 4, 7), 96),
    ],
)
def test_days_of_all_lengths(store: Store, zone: str, day: date, slots: int) -> None:
    number = (day - date(1970, 1, 1)).days
    length = int(length_of(zone, number))
    assert length // 900 == slots
    block = finals([{"zone": zone, "day": number, "start": int(start_of(zone, number)), "seconds": 900, "values": list(range(slots))}])
    load(store, block)
    found = ask(store, "SELECT toUnixTimestamp(start) AS at, value FROM intervals ORDER BY at")
    at = np.array([row["at"] for row in found])
    assert len(found) == len(set(at)) == slots
    assert (np.diff(at) == 900).all()
    assert (day_of(zone, at) == number).all()
    assert sum(row["value"] for row in found) * 1_000_000 == sum(range(slots))


def test_readings_of_a_device_far_away_in_time(store: Store) -> None:
    # Twenty years in one block: more months than an insert may touch by default
    load(store, finals([{"day": 12_500 + 30 * month, "values": [1000]} for month in range(240)]))
    assert ask(store, "SELECT count() AS n, uniq(toYYYYMM(start)) AS months FROM intervals")[0]["n"] == 240


exact = st.integers(-(2**63) + 1, 2**63 - 1)
row_strategy = st.lists(
    st.tuples(st.one_of(exact, st.integers(-(10**6), 10**6).map(lambda n: n * 1000)), st.integers(1, 7999).map(lambda n: n * 100)),
    min_size=0,
    max_size=6,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(row_strategy, min_size=1, max_size=6))
def test_any_int64_comes_back(store: Store, table: list[list[tuple[int, int]]]) -> None:
    store.command("TRUNCATE TABLE final_days")
    load(
        store,
        finals([{"device": f"M{i}", "values": [v for v, _ in row], "conditions": [c for _, c in row]} for i, row in enumerate(table)]),
    )
    found = store.query_arrow("SELECT device, arrayMap(v -> v * step, values) AS v, conditions AS c FROM final_days FINAL").to_pylist()
    assert {row["device"]: list(zip(row["v"], row["c"], strict=True)) for row in found} == {
        f"M{i}": row for i, row in enumerate(table) if row
    }
    if all(abs(v) < 10**18 for row in table for v, _ in row):
        shown = {
            (r["device"], r["at"]): r["value"] for r in ask(store, "SELECT device, toUnixTimestamp(start) AS at, value FROM intervals")
        }
        for i, row in enumerate(table):
            for slot, (v, c) in enumerate(row):
                expected = None if 100_000 <= c < 200_000 else Decimal(v).scaleb(-6)
                assert shown[f"M{i}", 19_800 * 86_400 + slot * 1800] == expected


def test_whole_watt_hours_take_a_thousandth(store: Store) -> None:
    data = rows.final_days([finals([{"values": [1000, 2000]}, {"values": [1000, 1]}, {"values": [0, 0]}])])
    assert data is not None
    assert data["step"].to_pylist() == [1000, 1, 1000]
    assert data["values"].to_pylist() == [[1, 2], [1000, 1], [0, 0]]


def test_a_year_is_answered_while_more_is_loaded(store: Store) -> None:
    channels, slots = 30, 48
    rng = np.random.default_rng(5)
    values = rng.integers(0, 900, channels * slots) * 1000

    def block(day: int, version: int) -> Any:
        held = [
            {"device": f"M{i:03}", "day": day, "version": version, "values": values[i * slots : (i + 1) * slots].tolist()}
            for i in range(channels)
        ]
        return finals(held)

    template = rows.final_days([block(19_723, 1)])
    assert template is not None
    for month in range(12):
        parts = []
        for day in range(19_723 + month * 30, 19_723 + (month * 30 + 30 if month < 11 else 366)):
            part = template.set_column(template.column_names.index("day"), "day", pa.array([day] * channels, pa.date32()))
            starts = pa.array([day * 86_400] * channels, pa.uint32())
            parts.append(part.set_column(template.column_names.index("day_start"), "day_start", starts))
        store.insert_arrow("final_days", pa.concat_tables(parts))
    total = Decimal(int(values.sum())).scaleb(-6)
    stop, failures, rounds = threading.Event(), list[str](), [0]

    def watch() -> None:
        while not stop.is_set():
            found = ask(store, "SELECT sum(value) AS total, count() AS n FROM intervals WHERE start < '2025-01-01'")[0]
            if found != {"total": total * 366, "n": 366 * channels * slots}:
                failures.append(str(found))
            rounds[0] += 1

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.monotonic()
    while (version := 2) and (rounds[0] < 5 and time.monotonic() - started < PATIENCE):
        load(store, block(19_723 + rounds[0], version), block(20_100, 1))  # the same year again as corrections, and what follows it
    stop.set()
    thread.join()
    assert not failures
    assert rounds[0] >= 5
    january = ask(store, "SELECT sum(value) AS total FROM intervals WHERE day BETWEEN '2024-01-01' AND '2024-01-31'")
    assert january == [{"total": total * 31}]


def exception(**changes: Any) -> dict[str, Any]:
    return {
        "id": "e1", "rule": "interval-spike", "severity": "issue", "status": "open", "version": 1, "device": "M1", "channel": "A+",
        "service_point": "SP1", "payload": "p", "start": datetime(2024, 3, 18, tzinfo=UTC), "end": datetime(2024, 3, 19, tzinfo=UTC),
        "count": 2, "detail": "Two intervals are too high.", **changes,
    }  # fmt: skip


def put(store: Store, table: str, *records: dict[str, Any], times: tuple[str, ...] = ()) -> None:
    data = rows.from_dicts(table, [rows.with_seconds(record, *times) for record in records])
    assert data is not None
    store.insert_arrow(table, data)


def test_exceptions_show_how_they_ended(store: Store) -> None:
    times = ("start", "end")
    put(store, "vee_exceptions", exception(), exception(id="e2", rule="negative-consumption"), times=times)
    put(store, "vee_exceptions", exception(version=2, status="superseded", start=datetime(2024, 3, 18, 5, tzinfo=UTC)), times=times)
    put(store, "vee_exceptions", exception(), times=times)  # an old one again
    found = ask(store, "SELECT rule, severity, device, channel, start, end, status, detail, version FROM exceptions ORDER BY id")
    assert [(row["rule"], row["status"], row["version"]) for row in found] == [
        ("interval-spike", "superseded", 2),
        ("negative-consumption", "open", 1),
    ]
    assert found[0]["start"] == datetime(2024, 3, 18, 5, tzinfo=UTC)


def test_an_exception_in_the_year_9999_is_kept(store: Store) -> None:
    put(
        store,
        "vee_exceptions",
        exception(start=datetime(9999, 12, 31, tzinfo=UTC), end=datetime(1900, 1, 1, tzinfo=UTC)),
        times=("start", "end"),
    )
    found = ask(store, "SELECT start, end FROM exceptions")
    assert found == [{"start": datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC), "end": datetime(1970, 1, 1, tzinfo=UTC)}]


def audit(**changes: Any) -> dict[str, Any]:
    return {
        "id": "a1", "at": datetime(2024, 3, 20, tzinfo=UTC), "actor": "clerk", "action": "accept", "command": "c1", "subject": "M1",
        "device": "M1", "channel": "A+", "start": datetime(2024, 3, 17, tzinfo=UTC), "end": datetime(2024, 3, 18, tzinfo=UTC),
        "reason": "seen", "outcome": "applied", "detail": "1 day accepted", "before": "{}",
        "after": "{}", "bulk": "", "approved_by": "", "principal": "", "address": "", "agent": "", "writer": "", "sequence": 0,
        "previous": "", "hash": "", **changes,
    }  # fmt: skip


def test_the_audit_keeps_every_act_once(store: Store) -> None:
    times = ("at", "start", "end")
    put(store, "audit_events", audit(), audit(id="a2", outcome="refused", detail="version conflict"), times=times)
    put(store, "audit_events", audit(), times=times)
    found = ask(store, "SELECT id, actor, action, outcome, start FROM audit ORDER BY id")
    assert [(row["id"], row["outcome"]) for row in found] == [("a1", "applied"), ("a2", "refused")]
    assert found[0]["start"] == datetime(2024, 3, 17, tzinfo=UTC)


def bill(**changes: Any) -> dict[str, Any]:
    return {
        "id": "b1", "account": "ACC1", "service_point": "SP1", "device": "M1", "channel": "A+", "period": "billing",
        "period_start": datetime(2024, 3, 1, tzinfo=UTC), "period_end": datetime(2024, 4, 1, tzinfo=UTC), "kind": "interval-consumption",
        "tou": "", "unit": "kWh", "quantity": Decimal("310.5"), "condition": REGULAR, "slots": 1488, "actual": 1488, "estimated": 0,
        "status": "released", "version": 1, "replaces": "", "reason": "first", "name": "", "usage": "", "moment": None,
        "correction": "", **changes,
    }  # fmt: skip


def test_determinants_show_the_last_version_and_the_table_keeps_all(store: Store) -> None:
    times = ("period_start", "period_end")
    first = bill()
    second = bill(id="b2", version=2, quantity=Decimal("311.25"), replaces="b1", reason="late or corrected reads")
    peak = bill(id="t1", kind="tou-interval-consumption", tou="peak", quantity=Decimal("100"))
    put(store, "bill_determinants", first, second, peak, times=times)
    put(store, "bill_determinants", first, times=times)
    found = ask(store, "SELECT * FROM determinants ORDER BY kind")
    assert [(row["kind"], row["tou"], row["quantity"], row["version"], row["id"], row["replaces"]) for row in found] == [
        ("interval-consumption", "", Decimal("311.25"), 2, "b2", "b1"),
        ("tou-interval-consumption", "peak", Decimal(100), 1, "t1", ""),
    ]
    assert found[0]["period_start"] == datetime(2024, 3, 1, tzinfo=UTC)
    assert found[0]["period_end"] == datetime(2024, 4, 1, tzinfo=UTC)
    assert ask(store, "SELECT count() AS n FROM bill_determinants FINAL") == [{"n": 3}]


def test_daily_determinants_are_kinds_of_their_own(store: Store) -> None:
    names, other = ["", "day", "night"], ["", "night", "day"]
    data = rows.determinant_days(
        [
            days(
                [
                    {"tou": [0, 1, 2], "quantities": [3_000_000, 1_000_000, 2_000_000]},
                    {"day": 19_801, "tou": [0], "quantities": [5_000_000]},
                    {"channel": "Z", "seconds": 0, "tou": [0], "quantities": [9_000_000]},
                ],
                names,
            ),
            days([{"day": 19_802, "tou": [0, 1, 2], "quantities": [15, 7, 8], "state": 2}], other, payload="q"),
        ]
    )
    assert data is not None
    store.insert_arrow("determinant_days", data)
    put(store, "bill_determinants", bill(), times=("period_start", "period_end"))
    found = ask(store, "SELECT kind, tou, sum(quantity) AS total, count() AS n FROM determinants GROUP BY kind, tou ORDER BY kind, tou")
    assert found == [
        {"kind": "interval-consumption", "tou": "", "total": Decimal("310.5"), "n": 1},
        {"kind": "interval-consumption-daily", "tou": "", "total": Decimal("8.000015"), "n": 3},
        {"kind": "scalar-consumption-daily", "tou": "", "total": Decimal(9), "n": 1},
        {"kind": "tou-interval-consumption-daily", "tou": "day", "total": Decimal("1.000008"), "n": 2},
        {"kind": "tou-interval-consumption-daily", "tou": "night", "total": Decimal("2.000007"), "n": 2},
    ]
    march = ask(
        store, "SELECT sum(quantity) AS total FROM determinants WHERE kind = 'interval-consumption' AND period_start >= '2024-03-01'"
    )
    assert march == [{"total": Decimal("310.5")}]
    held = ask(store, "SELECT DISTINCT status FROM determinants WHERE period_start = '2024-03-20'")
    assert held == [{"status": "held"}]


def test_usage_shows_what_was_said_last_and_its_quantities_stay_apart(store: Store) -> None:
    times = ("period_start", "period_end")
    start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    quantity = {"name": "md", "quantity": Decimal("1.5"), "moment": end, "previous": None}
    body = {
        "id": "t1", "usage": "u", "account": "a", "group": "g", "period_start": start, "period_end": end, "trigger": "cycle",
        "status": "waiting", "version": 0, "corrects": "", "correction": "", "reason": "", "bill": "", "requests": ["r"],
        "quantities": [quantity],
    }  # fmt: skip
    sent = {**body, "id": "t2", "status": "sent", "version": 1}
    put(store, "usage_transactions", rows.usage_transaction(sent, 20), rows.usage_transaction(body, 10))
    [found] = ask(store, "SELECT * FROM usage")
    assert (found["status"], found["version"], found["id"], found["requests"]) == ("sent", 1, "t2", '["r"]')
    assert '"quantity": "1.5", "moment": "2026-04-01T00:00:00Z", "previous": null' in found["quantities"]
    put(store, "bill_determinants", bill(name="md", usage="u", moment=20), bill(id="b9", name="md60", usage="u"), times=times)
    assert [row["name"] for row in ask(store, "SELECT name FROM determinants ORDER BY name")] == ["md", "md60"]
