"""What conversations ask of the store, and the thread that answers them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException

from connectors.clickhouse.store import StoreError
from connectors.head_end.publish import PublishError, Writer
from connectors.kafka.client import consumer
from connectors.kafka.settings import KafkaSettings
from schemas import quantity
from schemas.codec import Codec
from schemas.identity import identity
from streams.enterprise.choosing import Read, Wanted, choose, estimate

QUESTIONS: Final = "enterprise.questions"
ANSWERS: Final = "enterprise.answers"
PARTITION: Final = 0
AROUND: Final = 70 * 86_400  # how far reads are looked for to estimate between
SERIES_ROWS: Final = 2_000  # intervals of one answer about a series, about
log = structlog.get_logger(__name__)

_READS: Final = """
SELECT toUnixTimestamp(at) AS second, reading, condition, unit, dials FROM registers
WHERE device = {device:String} AND channel = {channel:String} AND reading IS NOT NULL
AND at BETWEEN fromUnixTimestamp({low:Int64}) AND fromUnixTimestamp({high:Int64})
ORDER BY at"""
_SUM: Final = """
SELECT any(unit) AS unit, sum(value) AS quantity, count() AS slots, countIf(value IS NULL) AS missing,
countIf(condition < 450000 AND value IS NOT NULL) AS estimated, sum(seconds) AS covered FROM intervals
WHERE device = {device:String} AND channel = {channel:String}
AND start >= fromUnixTimestamp({start:Int64}) AND start < fromUnixTimestamp({end:Int64})"""
_TOU: Final = """
SELECT tou, sum(d.quantity) AS quantity, sum(d.estimated) AS estimated FROM determinants AS d
WHERE device = {device:String} AND channel = {channel:String} AND period = 'day' AND kind = 'tou-interval-consumption-daily'
AND period_start >= fromUnixTimestamp({start:Int64}) AND period_end <= fromUnixTimestamp({end:Int64})
GROUP BY tou ORDER BY tou"""
_NEWER: Final = """
SELECT toUnixTimestamp(start) AS begin, seconds, value, condition, unit, version FROM intervals
WHERE device = {device:String} AND channel = {channel:String} AND value IS NOT NULL AND version IN (
  SELECT DISTINCT version FROM intervals WHERE device = {device:String} AND channel = {channel:String} AND version > {since:Int64}
  ORDER BY version LIMIT 20)
ORDER BY start"""
_BILLING: Final = """
SELECT device, channel, kind, name, tou, unit, quantity, condition, slots, actual, estimated, usage, version,
period_start = fromUnixTimestamp({start:Int64}) AND period_end = fromUnixTimestamp({end:Int64}) AS whole FROM determinants
WHERE account = {account:String} AND period = 'billing' AND status = 'released'
AND period_start >= fromUnixTimestamp({start:Int64}) AND period_end <= fromUnixTimestamp({end:Int64})
AND (whole OR kind = 'tou-interval-consumption')
ORDER BY device, channel, kind, period_start, tou, unit"""
_DAILY: Final = """
SELECT device, channel, replaceOne(d.kind, '-daily', '') AS kind, '' AS name, tou, unit, sum(d.quantity) AS quantity,
min(d.condition) AS condition, sum(d.slots) AS slots,
sum(d.actual) AS actual, sum(d.estimated) AS estimated, '' AS usage, 0 AS version,
sum(toUnixTimestamp(period_end) - toUnixTimestamp(period_start)) AS covered FROM determinants AS d
WHERE account = {account:String} AND period = 'day'
AND d.kind IN ('interval-consumption-daily', 'tou-interval-consumption-daily', 'scalar-consumption-daily')
AND period_start >= fromUnixTimestamp({start:Int64}) AND period_end <= fromUnixTimestamp({end:Int64})
GROUP BY device, channel, kind, tou, unit ORDER BY device, channel, kind, tou, unit"""


class Rows(Protocol):
    """Questions to the store."""

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]: ...


class Finder:
    """Answers single questions. All of them block."""

    def __init__(self, reader: Rows) -> None:
        self.reader = reader
        self._by_kind: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
            "reading": self.reading, "sum": self.sum, "series": self.series, "determinants": self.determinants,
        }  # fmt: skip

    def find(self, kind: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What there is; None: nothing yet."""
        return self._by_kind[kind](asked)

    def reading(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The read that answers an order: ``which`` of the day within the tolerance, else (where allowed) an estimate."""
        around = AROUND if asked["estimate"] else asked["tolerance"]
        where = {"device": asked["device"], "channel": asked["channel"]}
        rows = self.reader.rows(_READS, {**where, "low": max(asked["low"] - around, 0), "high": asked["high"] + around})
        reads = [Read(int(row["second"]), _micros(row["reading"]), int(row["condition"])) for row in rows]
        wanted = Wanted(asked["which"], asked["low"], asked["high"], asked["target"], asked["tolerance"])
        found = choose(reads, wanted, estimates=asked["estimate"])
        if found is None and asked["estimate"]:
            target = {"earliest": asked["low"], "latest": asked["high"]}.get(asked["which"], asked["target"])
            found = estimate(reads, target, int(rows[0]["dials"]) if rows else 0)
        if found is None:
            return None
        return {"at": found.at, "value": found.value, "condition": found.condition, "estimated": found.estimated, "unit": rows[0]["unit"]}

    def sum(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The sums of final intervals of a period; complete where every second of it is covered by a value."""
        total = self.reader.rows(_SUM, asked)[0]
        if not total["slots"]:
            return None
        complete = not total["missing"] and int(total["covered"]) == asked["end"] - asked["start"]
        short = int(total["missing"]) + max(0, asked["end"] - asked["start"] - int(total["covered"])) * int(total["slots"]) // max(
            int(total["covered"]), 1
        )
        if asked["rule"] == "tou":
            sums = [
                {"tou": row["tou"], "quantity": _micros(row["quantity"]), "estimated": int(row["estimated"])}
                for row in self.reader.rows(_TOU, asked)
            ]
            complete = complete and bool(sums)
        else:
            sums = [{"tou": "", "quantity": _micros(total["quantity"] or 0), "estimated": int(total["estimated"])}]
        return {"unit": total["unit"], "sums": sums, "complete": complete, "missing": short}

    def series(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Intervals of versions later than ``since``, some versions at a time."""
        rows = self.reader.rows(_NEWER, asked)
        if not rows:
            return None
        items = [[int(row["begin"]), int(row["begin"]) + int(row["seconds"]), _micros(row["value"]), int(row["condition"])] for row in rows]
        since = max(int(row["version"]) for row in rows)
        return {"unit": rows[0]["unit"], "items": items, "since": since, "more": len({row["version"] for row in rows}) == 20}

    def determinants(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Bill determinants of a usage subscription: those of exactly this billing period, else the sum of its days once all are there."""
        rows = self.reader.rows(_BILLING, asked)
        if not any(row["whole"] for row in rows):  # parts of it are those of a map that changed inside
            rows = self.reader.rows(_DAILY, asked)
            length = asked["end"] - asked["start"]
            whole = [row for row in rows if int(row["covered"]) == length or row["kind"] == "tou-interval-consumption"]
            spans = {(row["device"], row["channel"]) for row in whole if row["kind"] != "tou-interval-consumption"}
            if not spans or {(row["device"], row["channel"]) for row in rows} != spans:
                return None
        texts = ("device", "channel", "kind", "name", "tou", "unit", "usage")
        numbers = ("condition", "slots", "actual", "estimated", "version")
        found = [
            {**{name: row[name] for name in texts}, **{name: int(row[name]) for name in numbers}, "quantity": _text(row["quantity"])}
            for row in rows
        ]
        return {"determinants": found}


def _micros(value: Any) -> int:
    return quantity.parse(format(value, "f") if isinstance(value, Decimal) else str(value))


def _text(value: Any) -> str:
    return quantity.text_of(_micros(value))


class Answerer:
    """Reads questions and writes answers, then commits: a question that was cut off is asked of the store once more."""

    def __init__(self, kafka: KafkaSettings, group: str, codec: Codec, writer: Writer, finder: Finder) -> None:
        self.kafka, self.group, self.codec, self.writer, self.finder = kafka, group, codec, writer, finder

    def run(self, stop: threading.Event) -> None:
        """Answers until ``stop`` is set."""
        reading = consumer(self.kafka, self.group)
        reading.subscribe([QUESTIONS])
        try:
            while not stop.is_set():
                for message in reading.consume(20, 0.5):
                    error = message.error()
                    if error is not None:
                        if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                            log.warning("questions cannot be read", error=error.str())
                        continue
                    if not self._answered(message.value() or b"", stop):
                        break
                    _commit(reading, message)
        finally:
            reading.close()

    def _answered(self, value: bytes, stop: threading.Event) -> bool:
        """Answers one record; tries again while store or Kafka is away. False where it was told to stop before."""
        try:
            question = self.codec.decode(value)
        except ValueError as error:  # no question of ours: nobody waits for its answer
            log.warning("a record among the questions is none", reason=str(error))
            return True
        while not stop.is_set():
            try:
                items = [self._line(question["kind"], orjson.loads(line)) for line in question["items"]]
                body = {"question": question["id"], "kind": question["kind"], "items": items}
                headers = {"id": identity("answer", question["id"]).encode()}
                self.writer.write(
                    ANSWERS, self.codec.encode("EnterpriseAnswer", body), key=b"", headers=headers, partition=PARTITION
                ).result(self.writer.timeout + 5)
            except (StoreError, PublishError, TimeoutError) as error:
                log.warning("a question waits", kind=question["kind"], reason=str(error)[:300])
                stop.wait(2)
            else:
                return True
        return False

    def _line(self, kind: str, asked: dict[str, Any]) -> str:
        return orjson.dumps([asked, self.finder.find(kind, asked)], option=orjson.OPT_SORT_KEYS).decode()


def _commit(reading: Consumer, message: Any) -> None:
    try:
        reading.commit(message=message, asynchronous=True)
    except KafkaException as error:  # a rebalance: whoever has the partition now asks the store again, answers have ids
        log.info("positions were not committed", reason=str(error))
