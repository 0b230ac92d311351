"""Profiles to SAP: final intervals of each measurement task as they come, corrections as changes of what was sent."""

from __future__ import annotations

from typing import Any

from streams.enterprise.desk import Desk


class SeriesOut:
    """One record per time series: up to which version and which time its items were sent."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def due(self, key: str, record: dict[str, Any]) -> None:
        """Asks what is newer than what was sent."""
        if not self.desk.settings.systems[record["system"]].series:
            return
        asked = {name: record[name] for name in ("device", "channel", "since")}
        self.desk.ask("series", {**asked, "key": key})
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.ask})

    def answered(self, asked: dict[str, Any], found: dict[str, Any] | None) -> None:
        """Sends new items as created, items of a time that was sent before as changed."""
        record = self.desk.records.get(asked["key"])
        if record is None or not found or found["since"] <= record["since"]:
            return
        fresh = [item for item in found["items"] if item[0] >= record["upto"]]
        changed = [item for item in found["items"] if item[0] < record["upto"]]
        for kind, items in (("series", fresh), ("series-change", changed)):
            if items:
                body = {"series": record["id"], "unit": found["unit"], "items": items}
                id_ = self.desk.turn.message.derive(kind, asked["key"])
                self.desk.tell(record["system"], "sap", kind, id_, body)
        upto = max([record["upto"], *(item[1] for item in fresh)])
        again = self.desk.now if found["more"] else record["due"]
        self.desk.records.put(asked["key"], {**record, "since": found["since"], "upto": upto, "due": again})
