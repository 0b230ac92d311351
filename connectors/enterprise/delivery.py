"""Messages to CIS that have an address: sent in order, again until they are taken, and only then put behind.

Kafka holds what waits. A message may arrive twice when the hub is killed between sending and noting it: its id is the same then.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.clickhouse.store import StoreError
from connectors.head_end.publish import Writer
from connectors.kafka.client import consumer
from connectors.kafka.settings import KafkaSettings
from connectors.subscribers.journal import DEAD, SENT, Journal
from connectors.subscribers.parcel import Parcel
from schemas import metrics
from schemas.codec import Codec
from schemas.topology.enterprise import EnterpriseSettings, System

MESSAGES: Final = "enterprise.messages"
TRIES: Final = 8  # where the other side answers and refuses; while it is away there is no limit
LONGEST_PAUSE: Final = 60.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in its protocol's words."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = ""  # what takes the place of {service} in the system's URL


Render = Callable[[Mapping[str, Any], System], Letter | None]


class RefusedError(Exception):
    """The other side answered, and did not take it."""


class Delivery:
    """One thread per system with an address, so that one that is away holds up nobody else."""

    def __init__(
        self, kafka: KafkaSettings, group: str, codec: Codec, settings: EnterpriseSettings, renders: Mapping[str, Render], folder: Path,
        writer: Writer,
    ) -> None:  # fmt: skip
        self.kafka, self.group, self.codec, self.settings, self.renders = kafka, group, codec, settings, renders
        self.journal = Journal(writer, codec, "cis")
        netrc = folder / "netrc"
        self.auth = httpx.NetRCAuth(str(netrc)) if netrc.exists() else None

    def loops(self) -> dict[str, Callable[[threading.Event], None]]:
        """A loop for each system that has an address."""
        return {f"cis-{name}": self._loop(name) for name, system in self.settings.systems.items() if system.url}

    def _loop(self, name: str) -> Callable[[threading.Event], None]:
        return lambda stop: self.run(name, stop)

    def run(self, name: str, stop: threading.Event) -> None:
        """Sends what is for one system until ``stop`` is set."""
        system = self.settings.systems[name]
        reading = consumer(self.kafka, f"{self.group}.{name}")
        reading.subscribe([MESSAGES])
        with httpx.Client(timeout=30, auth=self.auth, trust_env=False) as client:
            try:
                while not stop.is_set():
                    message = reading.poll(0.5)
                    if message is None:
                        continue
                    error = message.error()
                    if error is not None:
                        if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                            log.warning("messages cannot be read", system=name, error=error.str())
                        continue
                    try:
                        body = self.codec.decode(message.value() or b"")
                    except ValueError as reason:
                        log.warning("a record among the messages is none", system=name, reason=str(reason))
                        continue
                    if body["system"] == name and not self._sent(client, body, system, stop):
                        reading.seek(TopicPartition(message.topic() or "", message.partition() or 0, message.offset() or 0))
                        continue
                    _commit(reading, message)
            finally:
                reading.close()

    def again(self, message: Mapping[str, Any]) -> None:
        """Sends one message once more, now; bodies of items are read. Raises RefusedError, httpx.HTTPError."""
        system = self.settings.systems[message["system"]]
        letter = self.renders[message["protocol"]](message, system)
        if letter is None:
            raise RefusedError("its protocol has no message for it")
        with httpx.Client(timeout=30, auth=self.auth, trust_env=False) as client:
            self._post(client, _address(system, letter), letter)
        self._note(message, letter, SENT, 1)

    def _note(self, message: Mapping[str, Any], letter: Letter, status: str, attempt: int, reason: str = "") -> None:
        """Tells what became of a message, in the view ``deliveries``."""
        told = Parcel(
            message["id"], f"cis-{message['system']}", message["kind"], MESSAGES, message.get("partition", 0), message.get("offset", 0),
            message.get("offset", 0), message["reference"], [],
        )  # fmt: skip
        about: dict[str, Any] = {"size": len(letter.body), "reason": reason, "count": len(message["items"])}
        self.journal.note(told, status, attempt=attempt, since=message["at"], **about)

    def _sent(self, client: httpx.Client, message: Mapping[str, Any], system: System, stop: threading.Event) -> bool:
        items = [{**item, "body": orjson.loads(item["body"] or b"null")} for item in message["items"]]
        letter: Letter | None = None
        while True:
            try:
                letter = self.renders[message["protocol"]]({**message, "items": items}, system)
                break
            except StoreError as error:
                log.warning("a message waits for the store", system=message["system"], id=message["id"], reason=str(error)[:300])
                if stop.wait(2):
                    return False
        if letter is None:
            return True  # nothing the protocol has a message for
        tries, pause, attempt = 0, 0.5, 0
        while not stop.is_set():
            begun, attempt = time.perf_counter(), attempt + 1
            try:
                self._post(client, _address(system, letter), letter)
            except RefusedError as error:
                tries += 1
                if tries >= TRIES:
                    log.error("a message was refused and is left out", system=message["system"], id=message["id"],
                              kind=message["kind"], reason=str(error)[:500])  # fmt: skip
                    metrics.CIS_MESSAGES.labels(message["system"], "refused").inc()
                    self._note(message, letter, DEAD, attempt, str(error))
                    return True
                log.warning("a message was refused", system=message["system"], id=message["id"], reason=str(error)[:300])
            except httpx.HTTPError as error:
                metrics.CIS_MESSAGES.labels(message["system"], "away").inc()
                log.warning("a CIS is away", system=message["system"], reason=str(error)[:300])
            else:
                metrics.CIS_MESSAGES.labels(message["system"], "sent").inc()
                self._note(message, letter, SENT, attempt)
                log.info("message sent", system=message["system"], id=message["id"], kind=message["kind"], items=len(items),
                         seconds=round(time.perf_counter() - begun, 3))  # fmt: skip
                return True
            stop.wait(pause * (0.5 + random.random()))
            pause = min(pause * 2, LONGEST_PAUSE)
        return False

    def _post(self, client: httpx.Client, url: str, letter: Letter) -> None:
        answer = client.post(url, content=letter.body, headers=dict(letter.headers))
        if answer.status_code >= 500 and b"Fault" not in answer.content[:2000]:
            raise httpx.HTTPError(f"{answer.status_code} from {url}")
        if answer.status_code >= 300:
            raise RefusedError(f"{answer.status_code}: {answer.text[:400]}")


def _address(system: System, letter: Letter) -> str:
    return system.url.replace("{service}", letter.path)


def _commit(reading: Consumer, message: Any) -> None:
    try:
        reading.commit(message=message, asynchronous=True)
    except KafkaException as error:
        log.info("positions were not committed", reason=str(error))
