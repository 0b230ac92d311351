"""Usage in the determinants agent: keeps what groups ask for, opens a transaction per billing period, tells it when it is due.

Sent usage never changes. Whatever changes in a period makes it due again; the new result is compared with what was *sent*, and told
as a new version where the difference matters. Differences that do not are remembered by not being sent: they add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas import conditions as c
from schemas.arrow import numbers
from schemas.block import FinalBlock
from schemas.identity import identity
from schemas.topology.tou import DeterminantsSettings
from schemas.topology.usage import Cycle, UsageGroup, UsageSettings, any_match
from streams import calendar
from streams.determinants.anonymous import is_anonymous
from streams.determinants.corrections import Judge
from streams.determinants.maps import Maps
from streams.determinants.periods import months_behind
from streams.determinants.records import CUT_OFF, EXCEPTIONS, TOPIC
from streams.determinants.usage.book import Book, Changed
from streams.determinants.usage.curve import Curve
from streams.determinants.usage.cycles import Dated, dated, period_at, usual
from streams.determinants.usage.engine import Finding, Outcome, Past, Period, Sources, calculate, swapped_lines
from streams.determinants.usage.transactions import Sent, Transaction, Transactions, changes, named, quantity_of, row_of
from streams.runtime.fold import Output, Result
from streams.runtime.state import State

Array = npt.NDArray[Any]
PER_TICK: Final = 500
LONGEST: Final = 400 * 86_400
BEHIND: Final = 40  # months that data of an account are kept behind its newest
_SETTINGS: Final = "usage-settings"


class Usage:
    """Usage of the accounts of one partition."""

    def __init__(self, settings: UsageSettings, determinants: DeterminantsSettings, state: State, judge: Judge) -> None:
        self._settings, self._determinants, self._state, self._judge = settings, determinants, state, judge
        self.book, self.transactions = Book(state), Transactions(state)
        self._maps = Maps(determinants)
        self._kept: dict[str, bool] = {}
        self._now = 0

    # --- taking in -----------------------------------------------------------------------------------------------------------

    def block(self, block: FinalBlock, now: int) -> list[Changed]:
        """Takes final measurements in; what changed in accounts that are kept. ``now`` is the time of the newest tick."""
        if not (self._settings.groups or self._settings.events.intervals) or is_anonymous(block.account):
            return []
        self._now = now
        self.book.prepare()
        names = block.account.dictionary_encode()
        keeps = np.array([self._keeps(account) for account in names.dictionary.to_pylist()], bool)
        rows = np.flatnonzero(keeps[numbers(names.indices)])
        found = list(self.book.take(block, rows)) if rows.size else []
        for change in found:
            self._touch(change.account, change.start, change.end)
        return found

    def _keeps(self, account: str) -> bool:
        known = self._kept.get(account)
        if known is None:
            named = {period["usage_group"] for period in self.book.subscriptions.get(account, [])} - {None}
            groups = any(self._settings.group_of(account, name, None) for name in named or {None})
            events = self._settings.events.grain_of(account) == "interval"
            known = self._kept[account] = bool(account) and (groups or events)
        return known

    def _touch(self, account: str, begin: int, end: int) -> None:
        """Makes the periods of a span due again, and opens those that are not there."""
        for one in self.transactions.of(account):
            if one.overlaps(begin, end) and not (one.dirty and one.touched == self._now):
                one.dirty, one.touched = True, self._now
                self.transactions.keep(one)
        self._open(account, begin, end)

    def _open(self, account: str, begin: int, end: int) -> None:
        at = begin
        while at < end:
            regular = self._regular(account, at)
            for first, last in self._spans(account, regular):
                if self.transactions.get(account, first, last) is None and first < end and begin < last:
                    self.transactions.keep(Transaction(account, first, last, "cycle", touched=self._now))
                    self.book.forget(account, self.book.newest(account) - BEHIND * 31 * 86_400)
            at = regular.end

    def _spans(self, account: str, regular: Period) -> list[tuple[int, int]]:
        """What of a regular period is billed by cycle: where the subscription exists, behind off-cycle and final usage."""
        found = []
        for active in self.book.active(account):
            begin, end = max(regular.begin, active[0]), min(regular.end, active[1])
            for one in self.transactions.of(account):
                if one.trigger == "off-cycle" and one.overlaps(regular.begin, regular.end):
                    begin = max(begin, one.end)
                elif one.trigger == "final" and active[0] < one.end:  # who moved out is billed no more
                    end = min(end, one.begin)
            if begin < end:
                found.append((begin, end))
        return found

    def _zone(self, account: str, at: int) -> str:
        about = self.book.subscription(account, at)
        channels = self.book.channels(account)
        return (about or {}).get("zone") or (channels[0].zone if channels else "UTC")

    def _regular(self, account: str, at: int) -> Period:
        return period_at(self._cycles(account), self._zone(account, at), at)

    def _cycles(self, account: str) -> Dated:
        """The billing cycles of an account by date: those that master data name while they name them, else of the settings."""
        found: list[tuple[int | None, Cycle]] = []
        for about in self.book.subscriptions.get(account, []) or [{}]:
            named = self._settings.cycles.get(about.get("billing_cycle") or "")
            cycles = dated(named) if named else usual(self._determinants.billing, account)
            zone = about.get("zone") or "UTC"
            since, until = (None if at is None else int(calendar.day_of(zone, at)) for at in (about.get("from"), about.get("to")))
            behind = [k for k, (day, _) in enumerate(cycles) if day is not None and since is not None and day <= since]
            for day, cycle in cycles[behind[-1] if behind else 0 :]:
                begin = since if day is None or (since is not None and day <= since) else day
                if until is None or begin is None or begin < until:
                    found.append((begin, cycle))
        return found

    # --- master data, requests, acknowledgements, events ------------------------------------------------------------------------

    def master(self, body: dict[str, Any]) -> None:
        """Takes over when a channel's device is installed."""
        if self._settings.groups:
            self.book.install(body)

    def subscription(self, body: dict[str, Any], now: int) -> None:
        """Takes a subscription over; periods it changed are due again."""
        if not self._settings.groups:
            return
        self._now, account = now, body["subscription"]
        before = self.book.subscribe(body)
        self._kept.pop(account, None)
        if before == body["periods"]:
            return
        spans = [(p["from"] or 0, 2**40 if p["to"] is None else p["to"]) for p in body["changed"]] or [(0, 2**40)]
        for one in self.transactions.of(account):
            if one.trigger == "cycle" and not one.version:
                self.transactions.drop(one)
            elif any(one.overlaps(*span) for span in spans):
                one.dirty, one.touched = True, now
                self.transactions.keep(one)
        held = [self.book.first(channel) for channel in self.book.channels(account)]
        if self._keeps(account) and held:
            self._open(account, min(held), max(self.book.newest(account), min(held) + 1))
        if self._keeps(account) and now and any(a <= now < b for a, b in self.book.active(account)):
            self._open(account, now, now + 1)

    def request(self, body: dict[str, Any], now: int, result: Result) -> None:
        """Usage on request, final or off-cycle; the same period has the same usage."""
        self.book.prepare()
        self._now, account, begin = now, body["account"], body["start"]
        end = body["end"] if body["end"] is not None else self._common(account)
        one = self.transactions.get(account, begin, end) or Transaction(account, begin, end, body["trigger"])
        wrong = "no data of this subscription are kept: no usage group is meant for it" if not self._keeps(account) else ""
        if not wrong and not begin < end <= begin + LONGEST:
            wrong = f"a period ends behind its begin, at most {LONGEST // 86_400} days later, and its channels must have data for it"
        if wrong:
            result.outputs.append(self._told(one, "refused", [], wrong, requests=[body["id"]]))
            return
        one.requests = [*one.requests, body["id"]][-20:] if body["id"] not in one.requests else one.requests
        one.again = one.again or (body["again"] and one.version > 0)
        one.forced, one.dirty, one.touched = one.forced or body["force"], True, now
        if body["trigger"] in ("off-cycle", "final"):
            one.trigger = body["trigger"]
            for other in self.transactions.of(account):
                if other.trigger == "cycle" and not other.version and other.overlaps(begin, end):
                    self.transactions.drop(other)
        self.transactions.keep(one)
        if body["trigger"] == "off-cycle" and self.book.newest(account) > end:
            self._open(account, end, self.book.newest(account))

    def _common(self, account: str) -> int:
        """The newest local midnight up to which all interval channels have data."""
        newest = [int(calendar.start_of(ch.zone, max(ch.days) + 1)) for ch in self.book.channels(account) if ch.seconds and ch.days]
        return min(newest, default=0)

    def billed(self, body: dict[str, Any], now: int) -> None:
        """Notes that usage stands on a bill: what changes now, or has changed since that version, is a subsequent correction."""
        for one in self.transactions.of(body["account"]):
            if one.usage == body["usage"] and 0 < body["version"] <= one.version:
                one.bill, one.billed = body["bill"], body["version"]
                if one.billed < one.version:
                    one.dirty, one.touched = True, now
                self.transactions.keep(one)

    def event(self, body: dict[str, Any], now: int) -> None:
        """Takes a critical-peak event in; periods it touches are due again."""
        changed = self.book.event(body)
        self.transactions.prepare()
        self._now = now
        for account in sorted(self.transactions.accounts) if changed else ():
            touching = [event for event in changed if not event.accounts or any_match(event.accounts, account)]
            if touching:
                for one in self.transactions.of(account):
                    if any(one.overlaps(event.start, event.end) for event in touching):
                        one.dirty, one.touched = True, now
                        self.transactions.keep(one)

    def lines_of(self, change: Changed, curve: Curve) -> tuple[Array, list[str]]:
        """The time-of-use period of each interval of a channel's curve."""
        channel = change.channel
        number = self._maps.assign(channel.unit, channel.direction, channel.channel, channel.account)
        names: list[str] = []
        return swapped_lines(self._maps, number, channel.zone, curve, names, self.book.events, channel.account), names

    # --- time ------------------------------------------------------------------------------------------------------------------

    def tick(self, at: int, close: bool, result: Result) -> None:
        """Tells usage that is due; on ``close`` all there is."""
        if not self._settings.groups:
            return
        self._now = max(self._now, at)
        self.book.prepare()
        self._settle_settings()
        left = PER_TICK
        for one in self.transactions.open():
            if left and (close or self._due(one) <= at):
                left -= not close
                self._process(one, at, close, result)

    def _settle_settings(self) -> None:
        """Other settings than before: everything is calculated anew and compared."""
        mark = identity(self._settings.model_dump_json(), self._determinants.model_dump_json()).encode()
        held = self._state.entries.get(_SETTINGS)
        if held == mark:
            return
        self._state.put(_SETTINGS, mark)
        self.transactions.prepare()
        for account in sorted(self.transactions.accounts) if held else []:
            for one in self.transactions.of(account):
                one.dirty = True
                self.transactions.keep(one)

    def _due(self, one: Transaction) -> int:
        billing = self._determinants.billing
        now = one.again or one.trigger != "cycle"
        due = one.touched if now else max(one.end + billing.delay, one.touched + billing.quiet)
        return max(due, one.until) if one.status == "waiting" and not one.dirty else due

    def _process(self, one: Transaction, at: int, close: bool, result: Result) -> None:
        """Calculates a transaction and tells what is new."""
        group, outcome = self._calculated(one)
        again, one.again, one.dirty = one.again, False, False
        if group is None and not one.version:
            if one.trigger != "cycle":
                result.outputs.append(self._told(one, "refused", [], "no usage group is meant for this subscription"))
            self.transactions.drop(one)
            return
        one.group = group.id if group else one.group
        now: Sent = [row_of(quantity) for quantity in outcome.quantities]
        one.until = max(one.end + self._determinants.billing.delay, one.until) if not outcome.waits else self._until(one, outcome)
        if outcome.waits and not one.version and not close and not one.forced and at < one.until:
            if one.status != "waiting" or one.reason != outcome.waits:
                one.status, one.reason = "waiting", outcome.waits
                result.outputs.append(self._told(one, "waiting", [], outcome.waits))
            self.transactions.keep(one)
            return
        issues = [finding for finding in outcome.findings if finding.severity == "issue"]
        self._findings(one, outcome.findings, result)
        if issues and not one.forced:
            if one.status != "exception" or one.reason != issues[0].detail or not one.version:
                one.status, one.reason = "exception", issues[0].detail
                result.outputs.append(self._told(one, "exception", now, issues[0].detail))
            self.transactions.keep(one)
            return
        self._compare(one, now, outcome, at, again, result)
        self.transactions.keep(one)
        if one.trigger == "cycle" and one.account in self.book.subscriptions and not close:
            self._open(one.account, one.end, min(max(self._now, one.end + 1), one.end + LONGEST))

    def _until(self, one: Transaction, outcome: Outcome) -> int:
        asked = one.end + self._determinants.billing.delay if one.trigger == "cycle" else max(one.end, one.touched)
        return asked + outcome.window

    def _compare(self, one: Transaction, now: Sent, outcome: Outcome, at: int, again: bool, result: Result) -> None:
        """Sends a first version or a correction; tells the last one again where that was asked for."""
        held = self.book.in_exception(one.account, one.begin, one.end)
        if not one.version:
            note = f"released after the retry window: {outcome.waits}" if outcome.waits else ""
            self._send(one, now, held, "", note, result)
            return
        zone = self._zone(one.account, one.begin)
        terms = self._judge.terms(zone, one.begin)
        thresholds = {unit: (terms.of(unit).absolute, terms.of(unit).percent) for unit in {row[3] for row in [*one.sent, *now]}}
        differing = changes(one.sent, now, thresholds)
        said = f"late or corrected data: {_listed(differing)}"
        if one.bill and one.billed < one.version:
            said = f"version {one.version} was sent before it was known that version {one.billed} is on bill {one.bill}"
        elif differing and at > months_behind(zone, max(one.end, one.opened), terms.cut_off_months):
            said = f"not corrected, the settlement cut-off has passed: {_listed(differing)}"
            self._findings(one, [Finding(CUT_OFF, "issue", said)], result)
            result.outputs.append(self._told(one, "refused", now, said))
            return
        elif not differing and bool(held) != one.held and not one.bill:
            said = f"{held} channel-days are in exception" if held else "released: nothing is in exception any more"
        elif not differing:
            if again:
                result.outputs.extend(self._records(one, one.sent, one.sent, held, "", one.reason))
            return
        self._send(one, now, held, "subsequent-correction" if one.bill else "replacement", said, result)
        for later in self.transactions.of(one.account):
            if later.begin >= one.end and later.version:  # ratchets, carries and comparisons lean on earlier periods
                later.dirty = True
                self.transactions.keep(later)

    def _calculated(self, one: Transaction) -> tuple[UsageGroup | None, Outcome]:
        account = one.account
        about = self.book.subscription(account, one.begin)
        known = account in self.book.subscriptions
        regular = self._regular(account, one.begin)
        gone = (known and about is None) or (one.trigger == "cycle" and (one.begin, one.end) not in self._spans(account, regular))
        if gone:
            return None, Outcome()
        period = Period(one.begin, one.end, regular.zone, regular.cycle_days)
        group = self._settings.group_of(account, (about or {}).get("usage_group"), period.first)
        version = group.version_of(period.first) if group else None
        if group is None or version is None:
            return None, Outcome()
        channels = self.book.channels(account)
        points = (about or {}).get("service_points") or []
        if points:
            channels = [channel for channel in channels if channel.service_point in points]
        percent = self._determinants.rollover_on(period.first)
        sources = Sources(self.book, self._settings, self._maps, percent, account, period, self._past(one), channels, about or {})
        return group, calculate(version, sources)

    def _past(self, one: Transaction) -> list[Past]:
        found = []
        for other in self.transactions.of(one.account):
            if other.version and other.end <= one.begin and other.trigger != "request":
                amounts: dict[str, int] = {}
                for row in other.sent:
                    amounts[row[0]] = amounts.get(row[0], 0) + row[6]
                found.append(
                    Past(other.begin, other.end, Period(other.begin, other.end, self._zone(one.account, other.begin), 0).days, amounts)
                )
        return found

    # --- telling ---------------------------------------------------------------------------------------------------------------

    def _send(self, one: Transaction, now: Sent, held: int, correction: str, reason: str, result: Result) -> None:
        """A new version; what it corrects is the version on the bill, else the one before."""
        corrected = one.billed if one.bill else one.version
        before = one.older.get(str(corrected), one.sent) if corrected < one.version else one.sent
        gone = [[*row[:6], 0, c.INVALID, 0, 0, 0, 0] for row in one.sent if tuple(row[:6]) not in named(now) and row[7] != c.INVALID]
        one.succeed([*now, *gone], bool(held), self._now)
        one.reason = reason
        result.outputs.extend(self._records(one, one.sent, before, held, correction, reason, corrected))
        one.bill, one.billed = "", 0

    def _records(
        self, one: Transaction, rows: Sent, before: Sent, held: int, correction: str, reason: str, corrected: int | None = None
    ) -> Iterable[Output]:
        """A determinant for each quantity, then the transaction. ``held``: channel-days in exception."""
        known, last = named(before), named(one.older.get(str(one.version - 1), []))
        channels = self.book.channels(one.account)
        point = channels[0].service_point if channels else ""
        for row in rows:
            quantity = quantity_of(row)
            q, key = quantity.quality, tuple(row[:6])
            body = {
                "id": identity(one.usage, *key, one.version), "account": one.account, "service_point": point, "device": quantity.device,
                "channel": quantity.channel, "period_start": one.begin * 1000, "period_end": one.end * 1000,
                "period": "billing" if one.trigger == "cycle" else one.trigger, "kind": quantity.kind, "tou": quantity.tou,
                "unit": quantity.unit, "quantity": _decimal(quantity.amount), "condition": q.condition, "slots": q.slots,
                "actual": q.actual, "estimated": q.estimated, "status": "held" if held or q.condition < c.MISSING else "released",
                "version": one.version, "replaces": identity(one.usage, *key, one.version - 1) if key in last else "",
                "reason": reason or ("first" if one.version == 1 else "late or corrected data"), "name": quantity.name,
                "usage": one.usage, "moment": quantity.at * 1000 if quantity.at else None, "correction": correction,
            }  # fmt: skip
            yield Output(TOPIC, "Determinant", body, one.account.encode())
        note = f"{held} channel-days are in exception" if held else reason
        yield self._told(one, "sent", rows, note, correction=correction, before=known, corrected=corrected)

    def _told(
        self, one: Transaction, status: str, rows: Sent, reason: str, *, correction: str = "",
        before: dict[tuple[str, ...], int] | None = None, requests: list[str] | None = None, corrected: int | None = None,
    ) -> Output:  # fmt: skip
        """The record of a transaction."""
        sent = status == "sent"
        corrects = one.version - 1 if corrected is None else corrected
        mark = one.id(one.version) if sent else identity(one.usage, one.version, status, reason, self._now)
        body = {
            "id": mark, "usage": one.usage, "account": one.account, "group": one.group, "period_start": one.begin * 1000,
            "period_end": one.end * 1000, "trigger": one.trigger, "status": status, "version": one.version,
            "corrects": one.id(corrects) if sent else "", "correction": correction, "reason": reason,
            "bill": one.bill if correction else "", "requests": one.requests if requests is None else requests,
            "quantities": [_quantity(row, (before or {}).get(tuple(row[:6]))) for row in rows],
        }  # fmt: skip
        return Output(TOPIC, "UsageTransaction", body, one.account.encode())

    def _findings(self, one: Transaction, findings: list[Finding], result: Result) -> None:
        """Findings as exceptions, for people to look at; those that are no more are taken back."""
        channels = self.book.channels(one.account)
        device, point = (channels[0].device, channels[0].service_point) if channels else ("", "")
        names = list(dict.fromkeys(finding.rule for finding in findings))
        for rule in [*names, *(rule for rule in one.found if rule not in names)]:
            said = [finding for finding in findings if finding.rule == rule]
            if not said and rule == CUT_OFF:
                continue
            result.count("exceptions")
            body = {
                "id": identity(rule, one.usage), "rule": rule, "severity": "issue" if any(f.severity == "issue" for f in said) else "info",
                "status": "open" if said else "superseded", "version": max(self._now, 1), "device": device, "channel": "",
                "service_point": point, "payload": "", "start": _moment(one.begin), "end": _moment(one.end), "count": len(said),
                "detail": f"usage of {one.account}: {'; '.join(f.detail for f in said)}" if said else "no longer found",
            }  # fmt: skip
            result.outputs.append(Output(EXCEPTIONS, "VeeException", body, device.encode()))
        one.found = names


def _listed(differing: list[str]) -> str:
    return f"{'; '.join(differing[:5])}{f'; and {len(differing) - 5} more' if len(differing) > 5 else ''}"


def _decimal(micros: int) -> Decimal:
    return Decimal(micros).scaleb(-6)


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _quantity(row: list[Any], before: int | None) -> dict[str, Any]:
    one = quantity_of(row)
    q = one.quality
    return {
        "name": one.name, "kind": one.kind, "tou": one.tou, "unit": one.unit, "quantity": _decimal(one.amount),
        "previous": None if before is None else _decimal(before), "condition": q.condition, "slots": q.slots, "actual": q.actual,
        "estimated": q.estimated, "moment": one.at * 1000 if one.at else None, "device": one.device, "channel": one.channel,
    }  # fmt: skip
