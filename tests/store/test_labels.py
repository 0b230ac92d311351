"""Which exception a label is about, as the store answers."""

from __future__ import annotations

from datetime import date
from typing import Any

from connectors.clickhouse.store import Store
from connectors.head_end import label_desk
from connectors.head_end.reading import StoreReader


def test_an_anomaly_is_found_by_its_id_and_by_its_local_day(store: Store) -> None:
    days = "('m1', '1', '2026-03-28', '2026-03-27 23:00:00', 1800, 5), ('m1', '1', '2026-03-29', '2026-03-28 23:00:00', 1800, 5)"
    store.command(f"INSERT INTO final_days (device, channel, day, day_start, seconds, version) VALUES {days}")
    found = "('e1', 'anomaly', 'open', 5, 'm1', '1', '2026-03-27 23:00:00', '2026-03-28 23:00:00')"
    store.command(f"INSERT INTO vee_exceptions (id, rule, status, version, device, channel, start, end) VALUES {found}")
    reader, expected = StoreReader(store, 1), [{"exception": "e1", "device": "m1", "channel": "1", "day": 20_540}]

    def by_day(day: date) -> list[dict[str, Any]]:
        return reader.rows(label_desk._DAY, {"device": "m1", "channel": "1", "day": day})

    assert reader.rows(label_desk._ONE, {"exception": "e1"}) == expected
    assert by_day(date(2026, 3, 28)) == expected
    assert by_day(date(2026, 3, 29)) == []
