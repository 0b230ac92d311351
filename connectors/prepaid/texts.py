"""What customers read, from a catalogue per language; amounts and times as they are written there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from schemas.topology.portal import LANGUAGES
from schemas.topology.prepaid import Currency

FALLBACK: Final = "en"


class Texts:
    """The texts of one language: ``texts("key", name=value)``."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else FALLBACK
        self._texts = _catalogue(self.language)

    def __call__(self, key: str, **values: object) -> str:
        """A text with its gaps filled. Raises KeyError for one that is not in the catalogue."""
        return self._texts[key].format(**values)

    def has(self, key: str) -> bool:
        """Whether the catalogue has a text."""
        return key in self._texts

    def money(self, amount: str, code: str) -> str:
        """Decimal text with the decimal sign of the language and the currency behind it."""
        return f"{amount.replace('.', ',') if self.language == 'de' else amount} {code}"

    def date(self, day: date) -> str:
        """A day."""
        return day.strftime("%d.%m.%Y" if self.language == "de" else "%d %b %Y")

    def time(self, at: datetime, zone: str) -> str:
        """A time in a zone, to the minute."""
        there = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(ZoneInfo(zone or "UTC"))
        return there.strftime("%d.%m.%Y %H:%M" if self.language == "de" else "%d %b %Y %H:%M")

    def notice(self, notice: Mapping[str, Any], currency: Currency, zone: str) -> str:
        """A notice as one or two sentences; its amounts are whole smallest units."""

        def money(whole: Any) -> str:
            return self.money(currency.text(int(whole or 0)), currency.code)

        days, cut = notice["days_left"], notice["cut_from"]
        return self(
            f"notice.{notice['kind']}",
            balance=money(notice["balance"]),
            amount=money(notice["amount"]),
            days="" if days is None else self("notice.day") if days == 1 else self("notice.days", days=days),
            cut=self("notice.cut", time=self.time(cut, zone)) if cut is not None else "",
        )


@cache
def _catalogue(language: str) -> dict[str, str]:
    found: dict[str, str] = orjson.loads((files("connectors.prepaid.portal") / "texts" / f"{language}.json").read_bytes())
    return found
