"""From a balance to supply: states, notices, and the commands that cut and restore.

Everything that is not certain keeps supply on: no cut on old or estimated reads, in protected times, on hold, or while the grace lasts;
a cut that crosses a top-up is undone; a reconnection is tried until it is confirmed.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.identity import identity
from schemas.topology.prepaid import PrepaidSettings
from streams import calendar
from streams.prepaid.accounts import (
    ACTIVE,
    BACK_PENDING,
    BACK_SENT,
    CLOSED,
    CUT,
    CUT_PENDING,
    CUT_SENT,
    EMERGENCY,
    GRACE,
    HOLD,
    LOW,
    NEVER,
    SILENT,
    ZERO,
    Accounts,
)
from streams.prepaid.billing import Billing
from streams.prepaid.ledger import time_of
from streams.prepaid.windows import Windows

REMEMBERED: Final = 8  # commands of an account whose late answers are still understood
_READS: Final = "reads:"  # how a trouble begins that ends with fresh reads
RECHECK: Final = 3600  # how often what keeps a cut waiting is looked at again where no moment is known
_ON: Final = frozenset((ACTIVE, LOW, ZERO, EMERGENCY, GRACE, CUT_PENDING, HOLD, SILENT))
_LOUD: Final = frozenset(("balance.zero", "topup.posted", "topup.reversed", "disconnected", "reconnected"))  # told at any hour
Outputs = list[tuple[str, dict[str, Any]]]  # record type and body


class Supply:
    """Decides for the accounts of one partition, and says what to send."""

    def __init__(self, settings: PrepaidSettings, accounts: Accounts, billing: Billing, partition: int) -> None:
        self.settings, self.accounts, self.billing, self.partition = settings, accounts, billing, partition
        self.rules = settings.disconnection
        self.windows = Windows(self.rules, settings.quiet)
        whole = settings.currency.whole
        self.below, self.back = whole(self.rules.below), whole(self.rules.reconnect_above)
        self.fee, self.hysteresis = whole(self.rules.fee), whole(settings.hysteresis)
        self.limits = [(t.id, None if t.amount is None else whole(t.amount), t.days) for t in settings.thresholds]

    # --- state ------------------------------------------------------------------------------------------------------------------------

    def evaluate(self, row: int, at: int, cause: str) -> Outputs:
        """Brings the state of an account up to its balance; sets when to look again."""
        table = self.accounts.table
        out: Outputs = []
        state = int(table["state"][row])
        if state == CLOSED:
            table["next"][row] = NEVER
            return out
        self._thresholds(row, at, cause, out)
        if state == CUT_SENT:
            self._cut_under_way(row, at, cause, out)
        elif state == CUT:
            if not self._by_request(row) and self._may_return(row):
                self._send(row, "connect", at, cause, out)
        elif state in (BACK_SENT, BACK_PENDING):
            self._return_under_way(row, at, cause, out)
        else:
            self._with_supply(row, at, cause, out)
        table["next"][row] = self._next(row, at)
        self.accounts.touch(row)
        return out

    def _with_supply(self, row: int, at: int, cause: str, out: Outputs) -> None:
        table = self.accounts.table
        if table.text["trouble"][row].startswith(_READS) and not self._stale(row, at):
            table.text["trouble"][row] = ""
        if not self._used_up(row):
            if table["grace_until"][row] or table["told_zero"][row] or table["warned"][row]:
                if int(table["balance"][row]) > self.below + self.hysteresis:
                    self.calm(row)
                table["grace_until"][row] = table["warned"][row] = 0  # the grace begins anew even where the notice does not
            low = table.text["level"][row]
            table["state"][row] = EMERGENCY if table["owed"][row] > 0 else LOW if low else ACTIVE
            return
        if not table["grace_until"][row]:
            table["grace_until"][row] = at + self.rules.grace
        if not table["told_zero"][row]:
            table["told_zero"][row] = at
            cut = self.cut_from(row, at)
            out.append(self.notice(row, "balance.zero", at, cause, cut_from=None if cut is None else time_of(cut)))
        if not self.rules.enabled:
            table["state"][row] = ZERO
        elif table.text["hold"][row] or table.text["trouble"][row]:
            table["state"][row] = HOLD if table.text["hold"][row] else SILENT
        elif at < table["grace_until"][row]:
            table["state"][row] = GRACE
        else:
            table["state"][row] = CUT_PENDING
            self._cut_due(row, at, cause, out)

    def _cut_due(self, row: int, at: int, cause: str, out: Outputs) -> None:
        """The grace is over: a warning once, and the cut as soon as nothing speaks against it."""
        table = self.accounts.table
        cut = self.cut_from(row, at)
        if not table["warned"][row]:
            table["warned"][row] = 1
            if cut is not None and cut > at:
                out.append(self.notice(row, "disconnect.warning", at, cause, cut_from=time_of(cut)))
        if cut != at or int(table["balance"][row]) >= self.below:
            return
        if self.certain(row, at):
            self._send(row, "disconnect", at, cause, out)
        elif self._stale(row, at) and at - self._begun(row) > self.rules.max_read_age:
            self._silent(row, at, cause, out)

    def _silent(self, row: int, at: int, cause: str, out: Outputs) -> None:
        """Nothing fresh is known of the consumption: nobody is cut; the device is asked for a read, and people are told."""
        table = self.accounts.table
        measured = int(table["measured"][row])
        since = f"none measured since {time_of(measured):%Y-%m-%d %H:%M} UTC" if measured else "none measured yet"
        table["state"][row], table.text["trouble"][row] = SILENT, f"{_READS} {since}"
        out.append(self.notice(row, "command.failed", at, cause, detail=table.text["trouble"][row]))
        if table.text["device"][row]:
            out.append(self.command(row, self.command_id(row, "read", cause, at), "read", at, table.keys[row]))

    def calm(self, row: int) -> None:
        """Forgets that the balance was used up: the next time begins with its notice and its grace."""
        table = self.accounts.table
        for name in ("told_zero", "grace_until", "warned"):
            table[name][row] = 0

    def _used_up(self, row: int) -> bool:
        table = self.accounts.table
        return int(table["balance"][row]) <= self.below and not self._fresh(row)

    def _fresh(self, row: int) -> bool:
        """Whether nothing has been charged yet: then nothing is used up, and no threshold was crossed."""
        table = self.accounts.table
        return bool(table["debited"][row] <= table["begun"][row])

    def _stale(self, row: int, at: int) -> bool:
        return at - int(self.accounts.table["measured"][row]) > self.rules.max_read_age

    def _begun(self, row: int) -> int:
        """When the first day that is charged began."""
        table = self.accounts.table
        return int(calendar.start_of(table.text["zone"][row], int(table["first"][row])))

    def certain(self, row: int, at: int) -> bool:
        """Whether the balance may be acted on: reads are fresh, and it is below the limit even without what may still change."""
        table = self.accounts.table
        if self._stale(row, at):
            return False
        return not self.rules.only_on_measured or int(table["balance"][row]) + max(int(table["unsure"][row]), 0) < self.below

    def cut_from(self, row: int, at: int) -> int | None:
        """The earliest moment supply may be cut, as far as grace and protected times tell."""
        table = self.accounts.table
        if not self.rules.enabled or table.text["hold"][row]:
            return None
        return self.windows.cut_allowed_from(table.text["zone"][row], max(at, int(table["grace_until"][row])))

    def _may_return(self, row: int) -> bool:
        balance = int(self.accounts.table["balance"][row])
        return balance >= self.back and balance > self.below

    def _by_request(self, row: int) -> bool:
        return bool((self.accounts.get("c", self.accounts.table.keys[row]) or {}).get("manual"))

    def _thresholds(self, row: int, at: int, cause: str, out: Outputs) -> None:
        """One notice for the lowest threshold crossed; those above it have been told with it."""
        table = self.accounts.table
        balance, daily = int(table["balance"][row]), self.billing.daily(row)
        armed, level, crossed = int(table["armed"][row]), "", None
        fresh = self._fresh(row)  # who begins below a threshold is told with the first consumption
        for bit, (name, amount, days) in enumerate(self.limits):
            limit = amount if amount is not None else (days or 0) * daily if daily > 0 else None
            if limit is None:
                continue
            if balance <= limit:
                level = name
                if armed >> bit & 1 and not fresh:
                    crossed, armed = name, armed & ~(1 << bit)
            elif balance > limit + self.hysteresis:
                armed |= 1 << bit
        table["armed"][row] = armed
        table.text["level"][row] = level
        if crossed is not None and balance > self.below:
            out.append(self.notice(row, "balance.low", at, cause, level=crossed))

    # --- commands -----------------------------------------------------------------------------------------------------------------------

    def _send(self, row: int, action: str, at: int, cause: str, out: Outputs, **about: Any) -> str:
        """A command for the account's device; the state says that it is under way. Returns its id."""
        table = self.accounts.table
        account = table.keys[row]
        entry = self.accounts.get("c", account) or {"past": [], "tries": 0}
        current = entry.get("now")
        if current is not None:
            entry["past"] = [*entry["past"], [current["id"], current["action"]]][-REMEMBERED:]
        again = current is not None and current["action"] == action
        tries = current["tries"] + 1 if again and current is not None else 0
        since = current["since"] if again and current is not None else at
        id = self.command_id(row, action, cause, at, tries)
        life = self.rules.command_life
        entry["now"] = {"id": id, "action": action, "issued": at, "expires": at + life, "tries": tries, "since": since, "told": False} | (
            {"told": current["told"]} if again and current is not None else {}
        )
        entry |= about
        self.accounts.put(entry, "c", account)
        table["state"][row] = CUT_SENT if action == "disconnect" else BACK_SENT
        out.append(self.command(row, id, action, at, account))
        return id

    def command_id(self, row: int, *parts: str | int) -> str:
        """An id that leads the answer back: partition and row of the account, and a hash over what caused it."""
        return f"pp/{self.partition}/{row}/{identity('command', self.accounts.table.keys[row], *parts)[:16]}"

    def row_of(self, command: str) -> int | None:
        """The row of the account a command of ours was for; None: it is none of ours."""
        parts = command.split("/")
        if len(parts) != 4 or parts[:2] != ["pp", str(self.partition)] or not (parts[2].isascii() and parts[2].isdigit()):
            return None
        row = int(parts[2])
        return row if row < len(self.accounts.table) else None

    def command(self, row: int, id: str, action: str, at: int, reference: str, limit: int | None = None) -> tuple[str, dict[str, Any]]:
        """The record of a device command."""
        body = {
            "id": id, "device": self.accounts.table.text["device"][row], "action": action, "issued_at": at,
            "expires_at": at + self.rules.command_life, "by": "prepaid", "reason": "balance", "reference": reference,
        }  # fmt: skip
        return "DeviceCommand", body if limit is None else body | {"limit": limit}

    def _cut_under_way(self, row: int, at: int, cause: str, out: Outputs) -> None:
        now, manual = self.accounts.get("c", self.accounts.table.keys[row])["now"], self._by_request(row)
        if not manual and (self._may_return(row) or self.accounts.table.text["hold"][row]):
            self._send(row, "connect", at, cause, out)  # the top-up came while the cut was under way: whatever it did is undone
        elif at >= now["expires"]:
            self._cut_failed(row, at, cause, out, "no answer in time")

    def _cut_failed(self, row: int, at: int, cause: str, out: Outputs, why: str) -> None:
        """Tries again while rules still allow it, then leaves supply on and tells people; what somebody ordered is tried once."""
        table = self.accounts.table
        account = table.keys[row]
        entry = self.accounts.get("c", account)
        manual = bool(entry.pop("manual", False))
        if not manual and entry["now"]["tries"] < self.rules.retries:
            allowed = self.windows.cut_allowed_from(table.text["zone"][row], at) == at
            if allowed and self.certain(row, at) and int(table["balance"][row]) < self.below and not table.text["hold"][row]:
                self._send(row, "disconnect", at, cause, out)
                return
        else:
            table.text["trouble"][row] = f"disconnect: {why}"
            out.append(self.notice(row, "command.failed", at, cause, detail=table.text["trouble"][row]))
        entry["past"] = [*entry["past"], [entry["now"]["id"], "disconnect"]][-REMEMBERED:]
        entry["now"] = None
        self.accounts.put(entry, "c", account)
        table["state"][row] = SILENT if table.text["trouble"][row] else CUT_PENDING
        if manual:
            self._with_supply(row, at, cause, out)

    def _return_under_way(self, row: int, at: int, cause: str, out: Outputs) -> None:
        table = self.accounts.table
        account = table.keys[row]
        entry = self.accounts.get("c", account)
        now = entry["now"]
        if not now["told"] and at - now["since"] >= self.rules.alarm_after:
            now["told"] = True
            self.accounts.put(entry, "c", account)
            table.text["trouble"][row] = "reconnect: not confirmed in time"
            out.append(self.notice(row, "command.failed", at, cause, detail=table.text["trouble"][row]))
        if at >= self._again(now):
            self._send(row, "connect", at, cause, out)
        elif at >= now["expires"]:
            table["state"][row] = BACK_PENDING

    def _again(self, now: dict[str, Any]) -> int:
        waits = self.rules.reconnect_waits
        return int(now["issued"]) + int(waits[min(now["tries"], len(waits) - 1)])

    def reply(self, row: int, reply: dict[str, Any], at: int) -> Outputs:
        """What the device says became of a command; late and repeated answers are understood."""
        table = self.accounts.table
        account, out = table.keys[row], list[tuple[str, dict[str, Any]]]()
        entry = self.accounts.get("c", account) or {"past": []}
        now, cause = entry.get("now"), f"reply/{reply['command']}/{reply['status']}"
        if now is not None and now["id"] == reply["command"]:
            if reply["status"] == "done":
                entry["past"] = [*entry["past"], [now["id"], f"{now['action']} done"]][-REMEMBERED:]
                entry["now"] = None
                self.accounts.put(entry, "c", account)
                out += self._done(row, now["action"], at, cause)
            elif reply["status"] == "failed" and now["action"] == "disconnect":
                self._cut_failed(row, at, cause, out, reply["detail"] or reply["code"] or "refused by the device")
            elif reply["status"] == "failed":
                table["state"][row] = BACK_PENDING  # until the next try
        elif reply["status"] == "done":
            late = next((i for i, (id, _) in enumerate(entry["past"]) if id == reply["command"]), None)
            if late is not None and not entry["past"][late][1].endswith(" done"):
                action = entry["past"][late][1]
                entry["past"][late][1] = f"{action} done"
                self.accounts.put(entry, "c", account)
                self._late(row, action, at, cause, out)
        return out + self.evaluate(row, at, cause)

    def _late(self, row: int, action: str, at: int, cause: str, out: Outputs) -> None:
        """An answer to a command that was given up: what it did is taken as done if it left supply off, and undone where that is wrong."""
        table = self.accounts.table
        state = int(table["state"][row])
        if action == "disconnect" and state in _ON:
            out += self._done(row, "disconnect", at, cause)
        elif action == "disconnect" and state in (BACK_SENT, BACK_PENDING):
            self._send(row, "connect", at, cause, out)  # it may have come after the device had reconnected
        elif action == "connect" and state == CUT:
            table["state"][row] = CUT_PENDING

    def _done(self, row: int, action: str, at: int, cause: str) -> Outputs:
        table = self.accounts.table
        account, out = table.keys[row], list[tuple[str, dict[str, Any]]]()
        table.text["trouble"][row] = ""
        if action == "disconnect":
            table["state"][row] = CUT
            out.append(self.notice(row, "disconnected", at, cause))
            if self.fee and not self._by_request(row):
                out.append(("Posting", self.billing.ledger.post(account, "FEE", "customer", "revenue:fee", self.fee, cause=cause, at=at)))
        else:
            table["state"][row] = ACTIVE
            self.calm(row)
            out.append(self.notice(row, "reconnected", at, cause))
        return out

    def by_request(self, row: int, action: str, at: int, cause: str) -> tuple[str, Outputs]:
        """A connection or disconnection somebody ordered: an ordered cut lasts until the next order, whatever the balance."""
        out: Outputs = []
        id = self._send(row, action, at, cause, out, manual=action == "disconnect")
        self.accounts.table["next"][row] = self._next(row, at)
        return id, out

    def ends(self, row: int) -> None:
        """The account is closed: commands under way are nobody's any more; whether supply is off stays known."""
        account, off = self.accounts.table.keys[row], int(self.accounts.table["state"][row]) in (CUT_SENT, CUT, BACK_PENDING, BACK_SENT)
        self.accounts.put({"past": [], "tries": 0, "off": True} if off else None, "c", account)

    def was_off(self, row: int) -> bool:
        """Whether supply was off, or may have been, when the account was closed; forgets it: from now on the state says so."""
        account = self.accounts.table.keys[row]
        off = bool((self.accounts.get("c", account) or {}).get("off"))
        self.accounts.put(None, "c", account)
        return off

    # --- when to look again, and what to say ----------------------------------------------------------------------------------------------

    def _next(self, row: int, at: int) -> int:
        """The next second at which time alone may change something for the account."""
        table = self.accounts.table
        times, state = [self.billing.due(row)], int(table["state"][row])
        if state == GRACE:
            times.append(int(table["grace_until"][row]))
        elif state == CUT_PENDING:
            cut = self.cut_from(row, at)
            times.append(cut if cut is not None and cut > at else at + RECHECK)
        elif state in (CUT_SENT, BACK_SENT, BACK_PENDING):
            now = self.accounts.get("c", table.keys[row])["now"]
            if state != BACK_PENDING:
                times.append(now["expires"])
            if state != CUT_SENT:
                times.append(self._again(now))
            if state != CUT_SENT and not now["told"]:
                times.append(now["since"] + self.rules.alarm_after)
        return min(times)

    def days_left(self, row: int) -> int | None:
        """Whole days the balance lasts at the usual pace; None where no pace is known."""
        daily = self.billing.daily(row)
        return max(0, int(self.accounts.table["balance"][row]) // daily) if daily > 0 else None

    def notice(self, row: int, kind: str, at: int, cause: str, **about: Any) -> tuple[str, dict[str, Any]]:
        """A notice, to be told at once or when quiet hours are over. The same cause tells the same thing once."""
        table = self.accounts.table
        account = table.keys[row]
        zone = table.text["zone"][row]
        sequence = int(table["notices"][row]) + 1
        table["notices"][row] = sequence
        body = {
            "id": identity("notice", account, kind, about.get("level", ""), cause), "account": account, "at": time_of(at),
            "not_before": time_of(at if kind in _LOUD else self.windows.tell_from(zone, at)), "kind": kind, "level": "",
            "balance": int(table["balance"][row]), "currency": self.settings.currency.code, "days_left": self.days_left(row),
            "amount": None, "cut_from": None, "detail": "", "sequence": sequence, **about,
        }  # fmt: skip
        return "PrepaidNotice", body
