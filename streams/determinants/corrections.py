"""What becomes of a difference to what was sent of a channel: a new version, nothing, or an exception behind the settlement cut-off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final, Literal

from schemas.topology.corrections import Corrections, Terms
from streams import calendar
from streams.determinants.periods import months_behind
from streams.determinants.records import Figure, Subject, refused, words
from streams.determinants.usage.billed import Billed
from streams.determinants.usage.checks import material
from streams.runtime.fold import Output

Verdict = Literal["send", "keep", "refuse"]
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent last of one period: the amount and version of each figure (same order), when the first version was sent (UTC second),
    and whether anything but amounts is other than it was."""

    amounts: Sequence[int]
    versions: Sequence[int]
    first: int
    quality: bool


class Judge:
    """Decides by the thresholds and cut-offs that hold for a period, and by what is known to stand on bills."""

    def __init__(self, settings: Corrections, billed: Billed) -> None:
        self._settings, self.billed = settings, billed

    def terms(self, zone: str, begin: int) -> Terms:
        """What holds for a billing period that begins at a UTC second."""
        return _terms(self._settings, zone, begin)

    def is_late(self, zone: str, subject: Subject, first: int, now: int) -> bool:
        """Whether the cut-off of a period has passed."""
        months = self.terms(zone, subject.begin).cut_off_months
        return now > months_behind(zone, max(subject.end, first), months)

    def verdict(self, zone: str, subject: Subject, figures: Sequence[Figure], sent: Sent, now: int) -> Verdict:
        """Whether a period that was sent is sent again.

        A material amount is, until the cut-off. A change of quality alone (condition, intervals due, held or not) is where none of the
        figures is known to stand on a bill. What was sent while its older version went on a bill is told once more, as its correction.
        """
        bills = [self.billed.of(subject.part(figure).subject(figure.kind, figure.tou)) for figure in figures]
        if any(bill is not None and bill.version < version for bill, version in zip(bills, sent.versions, strict=True)):
            return "send"
        threshold = self.terms(zone, subject.begin).of(subject.unit)
        matters = any(
            material(figure.quantity, amount, threshold.absolute, threshold.percent)
            for figure, amount in zip(figures, sent.amounts, strict=True)
        )
        if not matters and (not sent.quality or any(bill is not None for bill in bills)):
            return "keep"
        if not self.is_late(zone, subject, sent.first, now):
            return "send"
        return "refuse" if matters else "keep"

    def is_sent(self, zone: str, subject: Subject, figures: Sequence[Figure], sent: Sent, now: int, outputs: list[Output]) -> bool:
        """Whether a period that was sent is sent again; where the cut-off forbids it, the exception that says so is added."""
        verdict = self.verdict(zone, subject, figures, sent, now)
        if verdict == "refuse":
            outputs.append(refused(subject, differences(subject, figures, sent.amounts), now))
        return verdict == "send"


@lru_cache(maxsize=65_536)
def _terms(settings: Corrections, zone: str, begin: int) -> Terms:
    return settings.on(_EPOCH + timedelta(days=int(calendar.day_of(zone, begin))))


def differences(subject: Subject, figures: Sequence[Figure], amounts: Sequence[int]) -> str:
    """The figures whose amounts differ, in words."""
    found = [
        f"{' '.join(filter(None, (figure.kind, figure.tou)))} {words(amount)} → {words(figure.quantity)} {subject.unit}"
        for figure, amount in zip(figures, amounts, strict=True)
        if figure.quantity != amount
    ]
    return "; ".join(found)
