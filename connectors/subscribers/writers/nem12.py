"""NEM12, the interval meter data file of the Australian market: final intervals as 200, 300 and 400 records.

Market days run in UTC+10 all year. A local day that begins elsewhere (daylight saving) covers parts of two of them: parts that fill a
market day together are put together, with what the store has of the days around. A market day whose other part has not come yet is named
as left out; it is written with the local day that completes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from connectors.subscribers.past import Past, Series, Slot
from connectors.subscribers.writers.content import Content
from schemas import conditions, quantity
from schemas.block import FinalBlock, starts_of
from schemas.rules import METHOD, METHODS

Ints = npt.NDArray[Any]
OFFSET: Final = 36_000
_DAY: Final = 86_400
SUFFIX: Final = re.compile(r"[A-Z][A-Z0-9]", re.ASCII)
NAME: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,50}", re.ASCII)
_LETTER: Final = {("Wh", 1): "E1", ("Wh", 2): "B1", ("Wh", 0): "E1", ("varh", 1): "Q1", ("varh", 2): "K1", ("varh", 0): "Q1"}
# Method numbers of the specification: 12 calculated, 15 average like day, 16 agreed, 17 linear, 18 alternate, 19 zero
_METHODS: Final = {"like-day-average": 15, "interval-interpolation": 17, "profile": 18, "outage-zero": 19, "manual": 16}
_CALCULATED: Final = 12


@dataclass(frozen=True, slots=True)
class Key:
    """A 200 record: whose days, of which length."""

    nmi: str
    suffix: str
    serial: str
    unit: str
    seconds: int

    def record(self) -> str:
        """The 200 record."""
        return f"200,{self.nmi},{self.suffix},{self.suffix},{self.suffix},,{self.serial},{self.unit},{self.seconds // 60},"


def document(block: FinalBlock, made_at: int, past: Past | None = None) -> Content:
    """The file of a block of final intervals; ``made_at`` (UTC seconds) stands in its header. Raises AwayError where ``past`` does."""
    market = at_market(made_at)
    lines = [f"100,NEM12,{market:%Y%m%d%H%M},MDH,MDH"]
    left_out: list[str] = []
    days: dict[Key, dict[int, list[int]]] = {}  # key → market day → rows
    for row in range(len(block)):
        key, reason = _key(block, row)
        if key is None:
            left_out.append(reason)
            continue
        first = int(block.start[row])
        last = first + int(block.count[row]) * key.seconds - 1
        for day in range((first + OFFSET) // _DAY, (last + OFFSET) // _DAY + 1):
            days.setdefault(key, {}).setdefault(day, []).append(row)
    begins = starts_of(block.count)
    stored = _around(block, days, past) if past is not None else {}
    written: set[int] = set()
    for key in sorted(days, key=lambda k: (k.nmi, k.suffix, k.seconds)):
        records: list[str] = []
        for day, rows in sorted(days[key].items()):
            codes, values, methods = _assemble(block, begins, rows, day, key.seconds)
            _fill(stored.get(_series(block, rows[0]), {}), day, key.seconds, codes, values, methods)
            if (codes == conditions.NOT_RECEIVED).any():
                left_out.append(f"{key.nmi} {key.suffix}: market day {_date(day):%Y-%m-%d} is not complete here")
                continue
            records += _records(day, codes, values, methods, made_at)
            written.update(rows)
        if records:
            lines += [key.record(), *records]
    lines.append("900")
    return Content(("\r\n".join(lines) + "\r\n").encode(), len(written), left_out)


def at_market(second: int) -> datetime:
    """A moment on the market's clock."""
    return datetime.fromtimestamp(second + OFFSET, UTC)


def _date(day: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)


def _key(block: FinalBlock, row: int) -> tuple[Key | None, str]:
    device, channel, unit, point = (getattr(block, name)[row].as_py() for name in ("device", "channel", "unit", "service_point"))
    seconds, direction = int(block.seconds[row]), int(block.direction[row])
    base = {"kwh": "Wh", "wh": "Wh", "mwh": "Wh", "varh": "varh", "kvarh": "varh", "mvarh": "varh"}.get(unit.lower(), unit)
    suffix = channel if SUFFIX.fullmatch(channel) else _LETTER.get((base, direction), "")
    nmi = point or device
    if not NAME.fullmatch(nmi) or not NAME.fullmatch(device):
        return None, f"{nmi!r} ({device!r}) cannot stand in a NEM12 file"
    if not suffix:
        return None, f"{device} {channel}: NEM12 has no data stream for {unit}"
    if seconds % 60 or _DAY % seconds:
        return None, f"{device} {channel}: intervals of {seconds} seconds"
    return Key(nmi, suffix, "" if device == nmi else device, unit.upper(), seconds), ""


def _assemble(block: FinalBlock, begins: Ints, rows: Sequence[int], day: int, seconds: int) -> tuple[Ints, Ints, Ints]:
    """Conditions, values and methods of a market day out of the local days that touch it; later versions lie over earlier ones."""
    count, midnight = _DAY // seconds, day * _DAY - OFFSET
    codes, values, methods = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    for row in sorted(rows, key=lambda r: int(block.version[r])):
        shift = (int(block.start[row]) - midnight) // seconds
        low, high = max(shift, 0), min(shift + int(block.count[row]), count)
        source = slice(int(begins[row]) + low - shift, int(begins[row]) + high - shift)
        codes[low:high], values[low:high], methods[low:high] = block.conditions[source], block.values[source], block.methods[source]
    return codes, values, methods


def _series(block: FinalBlock, row: int) -> Series:
    return block.device[row].as_py(), block.channel[row].as_py(), int(block.seconds[row])


def _around(block: FinalBlock, days: Mapping[Key, Mapping[int, list[int]]], past: Past) -> Mapping[Series, Mapping[int, Slot]]:
    """What the store has of the market days that the local days given do not hold whole."""
    series: set[Series] = set()
    touched: set[int] = set()
    for by_day in days.values():
        for day, rows in by_day.items():
            midnight = day * _DAY - OFFSET
            held = sum(
                min(int(block.start[row]) + int(block.count[row]) * int(block.seconds[row]), midnight + _DAY)
                - max(int(block.start[row]), midnight)
                for row in rows
            )
            if held < _DAY:
                series.add(_series(block, rows[0]))
                touched.add(midnight)
    return past.intervals(series, min(touched), max(touched) + _DAY) if touched else {}


def _fill(stored: Mapping[int, Slot], day: int, seconds: int, codes: Ints, values: Ints, methods: Ints) -> None:
    """Puts what the store has where nothing was given."""
    midnight = day * _DAY - OFFSET
    for slot in np.flatnonzero(codes == conditions.NOT_RECEIVED).tolist():
        found = stored.get(midnight + slot * seconds)
        if found is not None:
            values[slot], codes[slot], methods[slot] = found[0], found[1], METHOD.get(found[2], 0)


def _records(day: int, codes: Ints, values: Ints, methods: Ints, made_at: int) -> Iterator[str]:
    flags = [quality(int(code), METHODS[int(method)]) for code, method in zip(codes, methods, strict=True)]
    numbers = [
        "0" if flag == "N" and code != conditions.INVALID else quantity.text_of(int(value))
        for flag, code, value in zip(flags, codes, values, strict=True)
    ]
    same = len(set(flags)) == 1
    flag = flags[0] if same else "V"
    yield f"300,{_date(day):%Y%m%d},{','.join(numbers)},{flag},,,{at_market(made_at):%Y%m%d%H%M%S},"
    if not same:
        begin = 0
        for at in range(1, len(flags) + 1):
            if at == len(flags) or flags[at] != flags[begin]:
                yield f"400,{begin + 1},{at},{flags[begin]},,"
                begin = at


def quality(code: int, method: str) -> str:
    """The quality flag and method of a condition."""
    number = _METHODS.get(method, _CALCULATED)
    if code < conditions.OUTAGE:
        return "N"
    if code < conditions.EST_FLAT - 10_000:  # an outage
        return "S19" if not method else f"S{number}"
    if code < conditions.EXT_ESTIMATE:
        return f"S{number}"
    if code < conditions.EXT_SUBSTITUTE:
        return "E52"
    if code < conditions.EXT_FINAL_SUBSTITUTE:
        return f"S{number}"
    if code < conditions.SUSPECT:
        return f"F{number}"
    if code < conditions.REGULAR:
        return f"S{number}"
    return "A" if code < conditions.USER_EDIT or code >= conditions.SUPER else f"F{number if method else 16}"
