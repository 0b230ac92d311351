# ruff: noqa: E501 - rows are read across
"""A small fleet as rows of the store: five weeks of four meters, with the faults that people work on. Nothing in it depends on chance."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import orjson

from connectors.clickhouse.store import Store

ZONE: Final = ZoneInfo("Europe/Madrid")
SLOTS: Final = 96
REGULAR, ESTIMATE, SUSPECT, MISSING, OUTAGE, EDITED = 500_000, 370_000, 450_000, 100_000, 200_100, 600_000
Row = dict[str, Any]


def home(slot: int, day: int, meter: int) -> int:
    """A load in Wh per quarter hour: low at night, peaks in the morning and evening, higher at weekends."""
    hour = slot / 4
    shape = 60 + 180 * np.exp(-((hour - 8) ** 2) / 4) + 320 * np.exp(-((hour - 20) ** 2) / 6)
    mood = ((meter * 7919 + day * 104_729 + slot * 1299) % 61) - 30
    return int(shape * (1.25 if (day + 3) % 7 >= 5 else 1.0) * (1 + meter * 0.15) + mood)


def days(until: datetime, count: int = 36, meters: int = 4) -> list[Row]:
    """Rows of final_days up to the local day before ``until``."""
    rows = []
    last = until.astimezone(ZONE).date() - timedelta(days=1)
    for meter in range(meters):
        for back in range(count):
            day = last - timedelta(days=back)
            values = [home(slot, day.toordinal(), meter) for slot in range(SLOTS)]
            conditions, methods, received, codes = [REGULAR] * SLOTS, [0] * SLOTS, list[int](), list[int]()
            if meter == 0 and back == 1:  # a spike, kept and suspect; an estimated gap; an outage
                values[50], conditions[50] = 9_800, SUSPECT
                received, codes = [v * 1000 for v in values], list(conditions)
                for slot in range(60, 72):
                    conditions[slot], methods[slot], codes[slot], received[slot] = ESTIMATE, 4, MISSING, 0
                for slot in range(80, 84):
                    values[slot], conditions[slot], codes[slot], received[slot] = 0, OUTAGE, MISSING, 0
            if meter == 1 and back == 0:
                for slot in range(30, 40):
                    values[slot], conditions[slot] = 0, MISSING
            start = datetime(day.year, day.month, day.day, tzinfo=ZONE)
            rows.append(
                {
                    "device": f"M100{meter}", "channel": "A+", "unit": "kWh", "service_point": f"SP-{meter}", "account": f"ACC-{meter}",
                    "zone": "Europe/Madrid", "direction": 1, "day": day, "day_start": start, "seconds": 900, "step": 1000, "version": 10 + back,
                    "replaces": 0, "state": 1, "dials": 0, "multiplier": 1_000_000, "values": values, "conditions": conditions,
                    "methods": methods, "received": received, "received_conditions": codes, "payload": "p1", "source": "hes-north",
                }
            )  # fmt: skip
    return rows


def weather(until: datetime, count: int = 10) -> list[Row]:
    """Days of a weather station: a value each hour, in tenths of a degree."""
    rows = []
    last = until.astimezone(ZONE).date() - timedelta(days=1)
    for back in range(count):
        day = last - timedelta(days=back)
        values = [int(1000 * (11 - 6 * np.cos((hour - 3) / 24 * 2 * np.pi) + back % 3)) for hour in range(24)]
        rows.append(
            {
                "device": "W1", "channel": "T", "unit": "C", "zone": "Europe/Madrid", "day": day, "seconds": 3600, "step": 1000, "version": 1,
                "day_start": datetime(day.year, day.month, day.day, tzinfo=ZONE), "replaces": 0, "state": 1, "multiplier": 1_000_000,
                "values": values, "conditions": [REGULAR] * 24, "methods": [0] * 24, "service_point": "SP-W", "source": "weather",
            }
        )  # fmt: skip
    return rows


def put(store: Store, table: str, rows: list[Row]) -> None:
    """Stores rows; columns that a row does not name get the default of the table."""
    lines = b"\n".join(orjson.dumps({name: _plain(value) for name, value in row.items()}) for row in rows)
    store.command(f"INSERT INTO {table} FORMAT JSONEachRow {lines.decode()}")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp())
    return str(value) if isinstance(value, (date, Decimal)) else value


def seed(store: Store, now: datetime) -> None:
    """The whole fleet, as of ``now``."""
    put(store, "final_days", days(now))
    put(store, "final_days", weather(now))
    day = (now.astimezone(ZONE) - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)

    def ago(hours: float) -> datetime:
        return now - timedelta(hours=hours)

    spike = {"device": "M1000", "channel": "A+", "service_point": "SP-0", "payload": "p1", "status": "open", "version": 1}
    put(store, "vee_exceptions", [
        {**spike, "id": "x1", "rule": "interval-spike", "severity": "issue", "start": day + timedelta(minutes=750),
         "end": day + timedelta(minutes=765), "count": 1, "detail": "9.8 kWh against a third highest of 0.44 kWh"},
        {**spike, "id": "x2", "rule": "interval-interpolation", "severity": "info", "start": day + timedelta(hours=15),
         "end": day + timedelta(hours=18), "count": 12, "detail": "12 intervals were filled from like days"},
        {**spike, "id": "x3", "device": "M1001", "service_point": "SP-1", "rule": "missing-quantity", "severity": "issue",
         "start": day + timedelta(hours=31.5), "end": day + timedelta(hours=34), "count": 10, "detail": "10 intervals have no value"},
    ])  # fmt: skip
    put(store, "register_reads", [
        {"device": "M1000", "channel": "A+R", "unit": "kWh", "zone": "Europe/Madrid", "at": day + timedelta(days=n), "account": "ACC-0",
         "service_point": "SP-0", "reading": (48_211_400 + 21_300 * n) * 1000, "condition": REGULAR, "version": 1, "multiplier": 1_000_000}
        for n in range(-5, 2)
    ])  # fmt: skip
    put(store, "event_log", [
        {"id": f"e{n}", "device": "M1000", "kind": kind, "at": day + timedelta(hours=20, minutes=60 * n), "source": "hes-north",
         "severity": "warning", "detail": detail, "code": "3.26.38.47", "payload": "p2"}
        for n, (kind, detail) in enumerate((("outage", "power failure"), ("restore", "power is back")))
    ])  # fmt: skip
    _todos(store, now, day)
    _money(store, now, day)
    put(store, "audit_events", [
        {"id": f"a{n}", "at": ago(30 * n + 2), "actor": who, "action": action, "subject": "M1000/A+", "device": "M1000", "channel": "A+",
         "start": day, "end": day + timedelta(hours=1), "reason": "field visit", "outcome": "applied", "detail": f"{4 - n} intervals changed"}
        for n, (who, action) in enumerate((("maria", "estimate"), ("jon", "accept"), ("maria", "edit")))
    ])  # fmt: skip
    put(store, "delivery_log", [
        {"id": f"d{n}", "subscriber": name, "object": "determinants", "status": status, "version": 1, "at": ago(n + 1), "since": ago(n + 1),
         "attempt": 1, "records": 40, "bytes": 18_000, "code": code, "channel": "webhook"}
        for n, (name, status, code) in enumerate((("billing", "delivered", 200), ("billing", "delivered", 200), ("portal", "retrying", 503)))
    ])  # fmt: skip
    _master(store, ago(900), ago(24 * 400))


def _master(store: Store, at: datetime, since: datetime) -> None:
    """Four meters on one transformer, behind two concentrators; a fifth that was never heard of; a weather station in their region."""
    objects: list[tuple[str, str, dict[str, Any]]] = []
    for n in range(4):
        objects += [
            ("device", f"M100{n}", {"head_end": "hes-north", "dcu": f"DCU-{n % 2}"}),
            ("service_point", f"SP-{n}", {"zone": "Europe/Madrid", "region": "north", "grid_area": "G-7", "commodity": "electricity"}),
            ("install", f"M100{n}/SP-{n}", {"device": f"M100{n}", "service_point": f"SP-{n}", "event": "install", "multiplier": "1"}),
        ]
    objects += [("device", "M1004", {"head_end": "hes-south", "dcu": "DCU-9"}), ("service_point", "SP-W", {"region": "north"})]
    put(store, "master_objects", [
        {"kind": kind, "object": id, "version": 1, "sequence": n, "at": at, "source": "sap", "action": "put",
         "span_from": [int(since.timestamp())], "span_to": [-1], "span_body": [orjson.dumps(body).decode()]}
        for n, (kind, id, body) in enumerate(objects)
    ])  # fmt: skip


def _todos(store: Store, now: datetime, day: datetime) -> None:
    rules: tuple[tuple[Any, ...], ...] = (
        ("M1000", "interval-spike", "issue", "validation", 8, "clerk", "9.8 kWh against a third highest of 0.44 kWh", ["x1"]),
        ("M1001", "missing-quantity", "issue", "validation", 6, "clerk", "10 intervals have no value", ["x3"]),
        ("M1002", "high-low", "issue", "validation", 5, "clerk", "a day of 41 kWh, usually 14 kWh", []),
        ("M1003", "sum-check", "issue", "validation", 5, "clerk", "intervals 14.2 kWh, register 15.9 kWh", []),
        (
            "M2077",
            "unknown-device",
            "terminate",
            "unusable-reads",
            7,
            "operations",
            "no master data name this device; 4 deliveries wait",
            [],
        ),
    )
    for n, (device, rule, severity, kind, priority, role, detail, ids) in enumerate(rules):
        seen = now - timedelta(hours=5 + 40 * n)
        row = {
            "id": f"t{n}", "version": 1 + (n == 2), "type": kind, "state": "working" if n == 2 else "open", "priority": priority, "role": role,
            "user": "maria" if n == 2 else "", "subject": f"{device}/A+", "device": device, "channel": "A+", "service_point": f"SP-{n}",
            "account": f"ACC-{n}", "payload": "p1", "rule": rule, "severity": severity, "count": 1 + 3 * (n == 3), "open": 1, "grouped": False,
            "first_seen": seen, "last_seen": seen, "start": day + timedelta(minutes=750), "end": day + timedelta(minutes=765),
            "assign_by": seen + timedelta(hours=4), "resolve_by": seen + timedelta(hours=48), "level": 0, "detail": detail, "exceptions": ids,
        }  # fmt: skip
        put(store, "todo_items", [row])
        put(store, "todo_open", [row])
        put(store, "todo_event_log", [{"id": f"h{n}", "todo": f"t{n}", "version": 1, "at": seen, "action": "created", "user": "system"}])


def _money(store: Store, now: datetime, day: datetime) -> None:
    month = day.replace(day=1)
    put(store, "bill_determinants", [
        {"id": f"b{n}{tou}", "account": f"ACC-{n}", "service_point": f"SP-{n}", "device": f"M100{n}", "channel": "A+", "period": "month",
         "period_start": month, "period_end": now, "kind": "tou-interval-consumption", "tou": tou, "unit": "kWh", "quantity": f"{40 * (n + 2)}.125",
         "condition": REGULAR, "slots": 900, "actual": 890, "estimated": 10, "status": "held" if n == 0 else "released", "version": 1,
         "reason": "first"}
        for n in range(4) for tou in ("peak", "offpeak", "shoulder")
    ])  # fmt: skip
    put(store, "prepaid_account_states", [
        {"account": f"ACC-{n}", "version": 3, "as_of": now, "service_point": f"SP-{n}", "device": f"M100{n}", "zone": "Europe/Madrid",
         "tariff": "home", "currency": "EUR", "balance": balance, "state": state, "level": level, "days_left": left, "postings": 1}
        for n, balance, state, level, left in ((0, 1840, "on", "normal", 9), (1, 210, "on", "low", 1), (2, -320, "off", "empty", 0))
    ])  # fmt: skip
    put(store, "prepaid_postings", [
        {"id": "l1", "account": "ACC-0", "sequence": 1, "at": now - timedelta(days=2), "kind": "payment", "amount": 2000, "currency": "EUR",
         "change": 2000, "balance": 2000, "reason": "card"},
    ])  # fmt: skip
