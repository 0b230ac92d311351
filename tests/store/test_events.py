"""What devices told, and the outages that follow from it."""

from __future__ import annotations

from connectors.clickhouse import rows
from connectors.clickhouse.store import Store


def event(number: int, device: str, kind: str, at: int) -> dict[str, object]:
    return {
        "id": f"{number:04}", "device": device, "kind": kind, "code": "", "at": at, "source": "hes", "severity": "", "detail": "",
        "payload": "p",
    }  # fmt: skip


def test_power_failures_and_restorations_are_paired(store: Store) -> None:
    told = [
        event(1, "M1", "outage", 1000), event(2, "M1", "outage", 1300), event(3, "M1", "restore", 1600), event(4, "M1", "restore", 1700),
        event(5, "M1", "cover-removed", 1800), event(6, "M1", "outage", 5000), event(7, "M2", "restore", 900),
        event(8, "M2", "outage", 1000), event(9, "M2", "restore", 1060),
    ]  # fmt: skip
    for part in (told, told[:3]):  # sent again: once
        store.insert_arrow("event_log", rows.from_dicts("event_log", part))
    found = store.query_arrow(
        "SELECT device, toUnixTimestamp(began) AS a, toUnixTimestamp(ended) AS b, seconds FROM outages ORDER BY device, began"
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [("M1", 1000, 1600, 600), ("M1", 5000, None, None), ("M2", 1000, 1060, 60)]
    assert store.query_arrow("SELECT count() AS n FROM device_events").to_pylist() == [{"n": 9}]
