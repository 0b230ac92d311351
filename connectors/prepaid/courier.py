"""Brings notices to customers: what is due and not yet delivered, through every way that reaches them, each with its delivery state.

The store says what is due and what became of it, so a restart neither forgets nor repeats: before a message goes out its delivery is
noted as under way, behind it as sent. A crash in between sends it again, under the same id.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from datetime import UTC
from typing import Any, Final

import structlog

from connectors.clickhouse.store import StoreError
from connectors.enterprise.persons import VaultError
from connectors.head_end.desk import Reader
from connectors.prepaid.contacts import Contact, Contacts
from connectors.prepaid.messages import Letter, Way
from connectors.prepaid.texts import Texts
from connectors.subscribers import journal as told
from connectors.subscribers.circuit import Circuit, pause
from connectors.subscribers.journal import Journal
from connectors.subscribers.objects import Unit, iso
from connectors.subscribers.parcel import AwayError, DeliveryError, Parcel, RefusedError, parcel_of
from schemas import metrics
from schemas.topology.portal import Messages
from schemas.topology.prepaid import PrepaidSettings

PREFIX: Final = "prepaid-"  # of the subscriber's name in deliveries
PAUSE: Final = 2.0  # seconds between looks for what is due
AT_ONCE: Final = 200
OVER: Final = frozenset({told.SENT, told.DEAD, told.SKIPPED, told.OVERTAKEN})
WORSE: Final = ("balance.low", "balance.zero", "disconnect.warning", "disconnected")  # each overtakes a notice that its balance is low
REMEMBERED: Final = 20_000
_FIELDS: Final = ("id", "account", "at", "not_before", "kind", "level", "balance", "currency", "days_left", "amount", "cut_from", "detail")
_COLUMNS: Final = ", ".join(f"notices.{name} AS {name}" for name in _FIELDS)
log = structlog.get_logger(__name__)
MakeJournal = Callable[[str], Journal]


class Courier:
    """Delivers notices through the ways that are set up. ``run`` blocks."""

    def __init__(
        self, settings: PrepaidSettings, reader: Reader, contacts: Contacts, ways: Sequence[Way], make_journal: MakeJournal,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.settings, self.reader, self.contacts, self.ways, self._clock = settings, reader, contacts, ways, clock
        self.journals = {way.kind: make_journal(way.kind) for way in ways}
        self.circuits = {way.kind: Circuit(self.messages.retry) for way in ways}
        # What was done lately, until the store knows it too: (way, notice) → when to look again; 0: never
        self._lately: dict[tuple[str, str], float] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        # Way → account → its message that has to be tried again: those behind it wait, so that they come in their order
        self._held: dict[str, dict[str, str]] = {}

    @property
    def messages(self) -> Messages:
        """The settings of messages."""
        return self.settings.messages

    def run(self, stop: threading.Event) -> None:
        """Delivers what is due until ``stop`` is set."""
        while not stop.wait(PAUSE):
            if not self.ways:
                continue
            try:
                self.round(stop)
            except (StoreError, VaultError) as error:
                log.warning("notices wait for the store", reason=str(error)[:200])

    def round(self, stop: threading.Event | None = None) -> int:
        """One look for what is due; how many messages were handed over. Raises StoreError."""
        sent = 0
        for way in self.ways:
            kinds = self.messages.sms_kinds if way.kind == "sms" else self.messages.kinds
            if way.kind not in self._held:
                self._held[way.kind] = self._tried(way.kind)
            held = self._held[way.kind]
            for notice in self._due(way.kind, kinds):
                if held.get(notice["account"], notice["id"]) != notice["id"]:
                    continue
                if stop is not None and stop.is_set():
                    return sent
                if why := self._overtaken(notice):
                    self._held[way.kind].pop(notice["account"], None)
                    since = notice["not_before"].replace(tzinfo=UTC).timestamp()
                    attempt = int(notice["attempt"] or 0) + 1
                    self._note(way, self._parcel(way.kind, notice), told.OVERTAKEN, 0, attempt=attempt, since=since, reason=why)
                    continue
                if self.circuits[way.kind].admit():
                    break  # it does not answer now: what is due stays due
                sent += self._deliver(way, notice)
        if len(self._lately) > REMEMBERED:
            for key in list(self._lately)[: REMEMBERED // 2]:
                self._lately.pop(key)
                self._attempts.pop(key, None)
        return sent

    @staticmethod
    def _overtaken(notice: Mapping[str, Any]) -> str:
        """Why a notice that waited, for quiet hours or a way that did not answer, is no longer true; empty: it is."""
        if notice["kind"] == "balance.low" and notice["worse"]:
            return f"overtaken by {notice['worse']}"
        if notice["kind"] == "disconnect.warning" and notice["worse"] == "disconnected":
            return "overtaken by disconnected"
        held = notice["kind"] == "balance.low" and notice["not_before"] > notice["at"]
        return "the balance is above the threshold again" if held and notice["recovered"] else ""

    def _tried(self, way: str) -> dict[str, str]:
        """Account → its oldest message that was tried and is not over, as the store knows it: what a restart goes on with."""
        rows = self.reader.rows(
            "SELECT notices.account AS account, argMin(notices.id, (notices.not_before, notices.at, notices.sequence)) AS id"
            " FROM (SELECT key, status FROM deliveries WHERE subscriber = {subscriber:String}) AS seen"
            " INNER JOIN prepaid_notices AS notices ON notices.id = seen.key"
            " WHERE NOT has({over:Array(String)}, seen.status) AND notices.not_before > toDateTime({oldest:Int64}, 'UTC')"
            " GROUP BY notices.account",
            {"subscriber": PREFIX + way, "over": sorted(OVER), "oldest": int(self._clock()) - 2 * self.messages.given_up_after},
        )
        return {row["account"]: row["id"] for row in rows}

    def _due(self, way: str, kinds: Sequence[str]) -> list[dict[str, Any]]:
        """Notices that may be told now and are not delivered, given up or waiting for another try."""
        now, held = int(self._clock()), self._held[way]
        lately = [notice for (kind, notice), at in self._lately.items() if kind == way and (at == 0 or at > now)]
        return self.reader.rows(
            f"SELECT {_COLUMNS}, seen.attempt AS attempt, accounts.zone AS zone,"
            " if(later.last > notices.sequence, later.worst, '') AS worse,"
            " (accounts.stands = '' AND accounts.as_of > notices.at) AS recovered FROM prepaid_notices AS notices"
            " LEFT JOIN (SELECT key, status, attempt, next_at FROM deliveries WHERE subscriber = {subscriber:String}) AS seen"
            " ON seen.key = notices.id LEFT JOIN (SELECT account, zone, level AS stands, as_of FROM prepaid_accounts) AS accounts"
            " ON accounts.account = notices.account LEFT JOIN (SELECT account, argMax(kind, sequence) AS worst,"
            " max(sequence) AS last FROM prepaid_notices WHERE has({worse:Array(String)}, kind) AND has({kinds:Array(String)}, kind)"
            " AND at > toDateTime({oldest:Int64} - 172800, 'UTC') GROUP BY account) AS later"
            " ON later.account = notices.account WHERE notices.not_before <= toDateTime({now:Int64}, 'UTC')"
            " AND notices.not_before > toDateTime({oldest:Int64}, 'UTC') AND notices.at > toDateTime({oldest:Int64} - 172800, 'UTC')"
            " AND has({kinds:Array(String)}, notices.kind) AND NOT has({over:Array(String)}, seen.status)"
            " AND (isNull(seen.next_at) OR seen.next_at <= toDateTime({now:Int64}, 'UTC')) AND NOT has({lately:Array(String)}, notices.id)"
            " AND (NOT has({held:Array(String)}, notices.account) OR has({first:Array(String)}, notices.id))"
            f" ORDER BY notices.not_before, notices.at, notices.sequence, notices.id LIMIT {AT_ONCE}",
            {
                "subscriber": PREFIX + way, "now": now, "oldest": now - 2 * self.messages.given_up_after, "kinds": list(kinds),
                "over": sorted(OVER), "lately": lately, "worse": list(WORSE),
                "held": list(held), "first": list(held.values()),
            },
        )  # fmt: skip

    def _deliver(self, way: Way, notice: Mapping[str, Any]) -> int:
        key = (way.kind, notice["id"])
        attempt = max(int(notice["attempt"] or 0), self._attempts.get(key, 0)) + 1
        since = notice["not_before"].replace(tzinfo=UTC).timestamp()
        contact = self.contacts.of(notice["account"])
        parcel = self._parcel(way.kind, notice)
        if not way.reaches(contact):
            self.circuits[way.kind].succeeded()
            self._held[way.kind].pop(notice["account"], None)
            self._note(way, parcel, told.SKIPPED, 0, attempt=attempt, since=since, reason="no address is known")
            return 0
        letter = self.letter(notice, contact)
        # Under way before it goes: who looks later sees that it may have been sent
        self._note(way, parcel, told.PENDING, 0, attempt=attempt, since=since)
        self._attempts[key] = attempt
        try:
            taken = way.send(letter, contact)
        except DeliveryError as error:
            self._failed(way, notice["account"], parcel, error, attempt, since)
            return 0
        self._held[way.kind].pop(notice["account"], None)
        self.circuits[way.kind].succeeded()
        self._note(way, parcel, told.SENT, 0, attempt=attempt, since=since, place=taken.place, size=taken.bytes, code=taken.code)
        return 1

    def _failed(self, way: Way, account: str, parcel: Parcel, error: DeliveryError, attempt: int, since: float) -> None:
        retry, circuit = self.messages.retry, self.circuits[way.kind]
        if isinstance(error, AwayError):
            delay = max(circuit.failed(error.reason), error.wait)
            last = self._clock() - since > self.messages.given_up_after
        else:
            circuit.succeeded()
            delay = pause(retry, attempt, random.random)
            last = attempt >= (retry.refusals if isinstance(error, RefusedError) else retry.attempts)
        about: dict[str, Any] = {"attempt": attempt, "since": since, "code": error.code, "reason": error.reason}
        if last:
            log.error("a notice is given up", way=way.kind, notice=parcel.key, reason=error.reason)
            self._note(way, parcel, told.DEAD, 0, **about)
            self._held[way.kind].pop(account, None)
        else:
            self._note(way, parcel, told.RETRYING, self._clock() + delay, wait=delay, **about)
            self._held[way.kind][account] = parcel.key

    def _note(self, way: Way, parcel: Parcel, status: str, again: float, **about: Any) -> None:
        """Tells what became of it and waits for Kafka: what comes next may rest on it."""
        self._lately[way.kind, parcel.key] = again
        note = self.journals[way.kind].note(parcel, status, **about)
        if note is not None:
            wait([note], 20)

    @staticmethod
    def _parcel(way: str, notice: Mapping[str, Any]) -> Parcel:
        item = {"id": notice["id"], "account": notice["account"], "kind": notice["kind"], "at": iso(notice["at"].timestamp())}
        at = int(notice["at"].timestamp() * 1000)
        unit = Unit("prepaid-notices", "prepaid.notices", 0, 0, at, notice["id"], "PrepaidNotice.v1", [item])
        return parcel_of(PREFIX + way, [unit], 0)

    def letter(self, notice: Mapping[str, Any], contact: Contact) -> Letter:
        """A notice in the customer's language."""
        texts = Texts(contact.language or self.settings.portal.language)
        text = texts.notice(notice, self.settings.currency, notice["zone"])
        return self._letter(notice["id"], notice["account"], texts, text)

    def _letter(self, id: str, account: str, texts: Texts, text: str) -> Letter:
        portal = self.settings.portal
        below = "\n\n".join(part for part in (text, portal.origin and f"{portal.origin}/portal", portal.help) if part)
        return Letter(id, account, texts("message.subject", account=account), below, int(self._clock()))

    def send_code(self, account: str, code: str, id: str) -> bool:
        """Sends a sign-in code at once, by the first way that takes it. The code is in the message only, nowhere else."""
        contact = self.contacts.of(account)
        texts = Texts(contact.language or self.settings.portal.language)
        text = texts("message.code", code=code, minutes=self.settings.portal.code_life // 60)
        letter = Letter(id, account, texts("message.subject", account=account), text, int(self._clock()))
        for way in sorted(self.ways, key=lambda way: way.kind != "sms"):
            if not way.reaches(contact):
                continue
            try:
                way.send(letter, contact)
            except DeliveryError as error:
                log.warning("a sign-in code was not taken", way=way.kind, reason=error.reason)
                continue
            metrics.DELIVERIES.labels(PREFIX + way.kind, told.SENT).inc()
            return True
        return False
