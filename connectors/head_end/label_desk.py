"""What clerks found out about anomalies, on its way to the models: one Label record each, keyed by device."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

from connectors.head_end.desk import Reader
from connectors.head_end.documents import CommandRequest, LabelRequest
from connectors.head_end.publish import RefusedError, Writer, check_label
from schemas.codec import Codec
from schemas.identity import identity

CONFIRMS: Final = {"accept": False, "force": False, "discard": True, "edit": True, "estimate": True}
"""Whether a command says that the exception it names was a fault: values taken as they are were right, those removed or replaced wrong."""

_BY_DAY: Final = """
SELECT DISTINCT e.id AS exception, e.device AS device, e.channel AS channel, toInt32(d.day) AS day
FROM (SELECT id, device, channel, start FROM exceptions WHERE rule = 'anomaly' AND {about}) AS e
INNER JOIN (SELECT device, channel, day, day_start FROM final_days) AS d
ON e.device = d.device AND e.channel = d.channel AND e.start = d.day_start
"""
_ONE: Final = _BY_DAY.replace("{about}", "id = {exception:String}")
_DAY: Final = _BY_DAY.replace("{about}", "device = {device:String} AND channel = {channel:String}") + "WHERE d.day = {day:Date32}"


class LabelDesk:
    """Publishes labels. The store knows which exception is meant and of which day it is."""

    def __init__(self, writer: Writer, codec: Codec, topic: str, reader: Reader) -> None:
        self.writer, self.codec, self.topic, self.reader = writer, codec, topic, reader

    def submit(self, asked: LabelRequest) -> tuple[str, Future[tuple[int, int]]]:
        """The id of the exception and the future of Kafka's acknowledgement. Raises RefusedError or UnavailableError."""
        check_label("user", asked.user, required=True)
        check_label("reason", asked.reason)
        if asked.exception is None and (asked.device is None or asked.channel is None or asked.day is None):
            raise RefusedError("name the exception, or device, channel and day")
        about = {"exception": asked.exception, "device": asked.device, "channel": asked.channel, "day": asked.day}
        given = {name: value for name, value in about.items() if value is not None}
        found = self.reader.rows(_ONE if asked.exception is not None else _DAY, given)
        if not found:
            raise RefusedError("there is no anomaly exception such as this; one just raised is in the store within seconds")
        return self._write(found[0], asked.verdict == "confirmed", asked.reason, asked.user)

    def of_command(self, asked: CommandRequest) -> Future[tuple[int, int]] | None:
        """The label that a command implies by the exception it names; None where it says nothing about one."""
        if asked.exception is None or asked.action not in CONFIRMS or asked.dry_run:
            return None
        found = self.reader.rows(_ONE, {"exception": asked.exception})
        return self._write(found[0], CONFIRMS[asked.action], asked.reason, asked.user)[1] if found else None

    def _write(self, row: dict[str, Any], confirmed: bool, reason: str, user: str) -> tuple[str, Future[tuple[int, int]]]:
        record = {
            "exception": row["exception"], "device": row["device"], "channel": row["channel"], "day": int(row["day"]),
            "confirmed": confirmed, "reason": reason, "user": user,
        }  # fmt: skip
        id_ = identity("label", row["exception"], confirmed, user, reason)
        headers = {"id": id_.encode()}
        return row["exception"], self.writer.write(
            self.topic, self.codec.encode("Label", record), key=row["device"].encode(), headers=headers
        )
