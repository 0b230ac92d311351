"""Bill determinants as records, one dict each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from schemas.identity import identity
from streams.determinants.keys import parts_of
from streams.runtime.fold import Output

TOPIC: Final = "billing.determinants"
EXCEPTIONS: Final = "vee.exceptions"
CUT_OFF: Final = "settlement-cut-off"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose determinant: one channel of one account in one billing period."""

    account: str
    device: str
    channel: str
    unit: str
    service_point: str
    begin: int  # UTC seconds
    end: int

    @classmethod
    def of(cls, key: str, service_point: str, begin: int, end: int) -> Subject:
        """The subject behind a state key."""
        account, device, channel, unit = parts_of(key)[:4]
        return cls(account, device, channel, unit, service_point, begin, end)

    @property
    def key(self) -> bytes:
        """The key of its records: the account, else the service point, else the device."""
        return (self.account or self.service_point or self.device).encode()

    def part(self, figure: Figure) -> Subject:
        """The subject of a figure, which may be about a part of the period."""
        return replace(self, begin=figure.begin or self.begin, end=figure.end or self.end) if figure.begin or figure.end else self

    def subject(self, kind: str, tou: str) -> str:
        """What is the same in all versions of a determinant."""
        return identity(self.account, self.device, self.channel, self.unit, self.begin, kind, tou)

    def identity(self, kind: str, tou: str, version: int) -> str:
        """The id of one version of a determinant; empty for version 0, which never was."""
        return identity(self.account, self.device, self.channel, self.unit, self.begin, kind, tou, version) if version else ""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a determinant says: millionths and the quality of what they were made of."""

    kind: str
    tou: str
    quantity: int
    condition: int
    slots: int
    actual: int
    estimated: int
    held: bool
    begin: int = 0  # UTC seconds of the part of the period it is about; 0: the period's own
    end: int = 0


def words(micros: int) -> str:
    """Millionths as a decimal number with six places."""
    return f"{Decimal(micros).scaleb(-6):f}"


def determinant(subject: Subject, figure: Figure, version: int, reason: str) -> Output:
    """The record of one version of a determinant. ``reason`` is why there is a new one; the first has none."""
    subject = subject.part(figure)
    body: dict[str, Any] = {
        "id": subject.identity(figure.kind, figure.tou, version),
        "account": subject.account,
        "service_point": subject.service_point,
        "device": subject.device,
        "channel": subject.channel,
        "period_start": subject.begin * 1000,
        "period_end": subject.end * 1000,
        "period": "billing",
        "kind": figure.kind,
        "tou": figure.tou,
        "unit": subject.unit,
        "quantity": Decimal(figure.quantity).scaleb(-6),
        "condition": figure.condition,
        "slots": figure.slots,
        "actual": figure.actual,
        "estimated": figure.estimated,
        "status": "held" if figure.held else "released",
        "version": version,
        "replaces": subject.identity(figure.kind, figure.tou, version - 1),
        "reason": "first" if version == 1 else reason,
        "correction": "" if version == 1 else "replacement",
    }
    return Output(TOPIC, "Determinant", body, subject.key)


def refused(subject: Subject, detail: str, now: int) -> Output:
    """An exception: the settlement cut-off keeps a channel's period from being corrected. ``now`` orders them, UTC seconds."""
    begin, end = (datetime.fromtimestamp(second, UTC) for second in (subject.begin, subject.end))
    body: dict[str, Any] = {
        "id": identity(CUT_OFF, subject.account, subject.device, subject.channel, subject.unit, subject.begin), "rule": CUT_OFF,
        "severity": "issue", "status": "open", "version": max(now, 1), "device": subject.device, "channel": subject.channel,
        "service_point": subject.service_point, "payload": "", "start": begin, "end": end, "count": 1,
        "detail": f"not corrected, the settlement cut-off has passed: {detail}",
    }  # fmt: skip
    return Output(EXCEPTIONS, "VeeException", body, subject.device.encode())
