"""Figures of the store: completeness by source and local day, parts, time from arrival to store."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.clickhouse import rows
from connectors.clickhouse.figures import Figures
from connectors.clickhouse.store import Store
from schemas import metrics
from schemas.conditions import EST_INTERPOLATED, EXT_ESTIMATE, MISSING, NOT_RECEIVED, OUTAGE, REGULAR, REPORTED_MISSING
from tests.store.conftest import emptied, finals

NOW = 1_773_619_200  # 2026-03-16 00:00 UTC: day 20528
TODAY = NOW // 86_400


def value(metric: Any, *labels: str) -> float:
    return float(metric.labels(*labels)._value.get())


def days(source: str, day: int, conditions: list[int], zone: str = "UTC", device: str = "") -> Any:
    row = {"device": device or source, "day": day, "values": [1] * len(conditions), "conditions": conditions, "zone": zone}
    return rows.final_days([finals([row], source=source)])


def test_completeness_counts_what_was_received_of_what_is_due(module_store: Store) -> None:
    store = emptied(module_store)
    half = [REGULAR, REPORTED_MISSING, MISSING, EXT_ESTIMATE, OUTAGE, EST_INTERPOLATED, NOT_RECEIVED]
    store.insert_arrow("final_days", days("src-a", TODAY - 1, half))
    store.insert_arrow("final_days", days("src-a", TODAY - 2, [REGULAR] * 4))
    store.insert_arrow("final_days", days("src-b", TODAY, [REGULAR, NOT_RECEIVED, NOT_RECEIVED]))
    store.insert_arrow("final_days", days("src-old", TODAY - 40, [MISSING]))
    store.insert_arrow("final_days", days("src-idle", TODAY, [NOT_RECEIVED]))
    Figures(store, 4, now=lambda: NOW).look()
    assert value(metrics.COMPLETENESS, "src-a", "yesterday") == 0.5
    assert value(metrics.COMPLETENESS, "src-a", "before") == 1.0
    assert value(metrics.COMPLETENESS, "src-b", "today") == 1.0
    seen = {sample.labels["source"] for family in metrics.COMPLETENESS.collect() for sample in family.samples}
    assert not {"src-old", "src-idle"} & seen


def test_yesterday_is_that_of_the_place(module_store: Store) -> None:
    """At midnight UTC it is already ten in the morning in Brisbane and still the day before in Lima."""
    store = emptied(module_store)
    store.insert_arrow("final_days", days("src-east", TODAY, [REGULAR], "Australia/Brisbane"))
    store.insert_arrow("final_days", days("src-west", TODAY - 1, [REGULAR], "America/Lima"))
    Figures(store, 4, now=lambda: NOW).look()
    assert value(metrics.COMPLETENESS, "src-east", "today") == 1.0
    assert value(metrics.COMPLETENESS, "src-west", "today") == 1.0


def test_only_the_current_version_of_a_day_counts(module_store: Store) -> None:
    store = emptied(module_store)
    for version, condition in ((1, MISSING), (2, REGULAR)):
        row = {"day": TODAY, "values": [1], "conditions": [condition], "zone": "UTC", "version": version}
        store.insert_arrow("final_days", rows.final_days([finals([row], source="src-v")]))
    Figures(store, 4, now=lambda: NOW).look()
    assert value(metrics.COMPLETENESS, "src-v", "today") == 1.0


def test_parts_of_tables_are_told(module_store: Store) -> None:
    store = emptied(module_store)
    for device in "ABC":
        store.insert_arrow("final_days", days("s", TODAY, [REGULAR], device=device))
    Figures(store, 4, now=lambda: NOW).look()
    assert 1 <= value(metrics.STORE_PARTS, "final_days") <= 3


def test_each_settled_tick_is_measured_once_and_the_first_not_at_all(module_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([None, NOW - 1000, NOW - 1000, NOW - 7, NOW - 7])
    monkeypatch.setattr("connectors.clickhouse.figures.settled_tick", lambda store, partitions: next(ticks))
    figures = Figures(emptied(module_store), 4, now=lambda: NOW)

    def measured() -> tuple[float, float]:
        samples = {s.name: s.value for family in metrics.PAYLOAD_SECONDS.collect() for s in family.samples if "bucket" not in s.name}
        return samples["mdh_payload_seconds_count"], samples["mdh_payload_seconds_sum"]

    count, total = measured()
    for _ in range(5):
        figures.look()
    assert measured() == (count + 1, total + 7)
