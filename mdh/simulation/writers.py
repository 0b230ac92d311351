"""Payloads of the simulated head end as text: JSON, CSV and NEM12."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from itertools import groupby, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdh.simulation.faults import ABSENT, ACTUAL, ESTIMATED, MISSING
from schemas.quantity import text_of

Ints = npt.NDArray[np.int64]
States = npt.NDArray[np.int8]
CHANNEL, REGISTER = "E1", "R1"
MARKET: Final = timezone(timedelta(hours=10))
_COMMON: Final = 20_000
_WORDS: Final = {ACTUAL: "actual", MISSING: "missing", ESTIMATED: "estimated"}


@cache
def _common() -> npt.NDArray[Any]:
    return np.array([text_of(wh * 1000) for wh in range(_COMMON)], object)


def kwh(values: Ints) -> list[str]:
    """Wh of any shape as one flat list of decimal texts in kWh."""
    flat = values.ravel()
    usual = (flat >= 0) & (flat < _COMMON)
    texts: list[str] = _common()[np.where(usual, flat, 0)].tolist()
    for place in np.flatnonzero(~usual).tolist():
        texts[place] = text_of(int(flat[place]) * 1000)
    return texts


def iso(second: int) -> str:
    """UTC seconds as ISO text."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _runs(states: States) -> Iterator[tuple[int, int]]:
    """Spans of a row between values that never come."""
    present = np.flatnonzero(states != ABSENT)
    if len(present) == 0:
        return
    cuts = [0, *(np.flatnonzero(np.diff(present) > 1) + 1).tolist(), len(present)]
    for a, b in pairwise(cuts):
        yield int(present[a]), int(present[b - 1]) + 1


def json_payload(
    source: str, devices: Sequence[str], start: int, seconds: int, values: Ints, states: States, registers: list[str]
) -> bytes:
    """Meters × intervals from ``start`` as our plain JSON; ``registers`` are ready-made objects to add."""
    objects = list(registers)
    plain = (~(states != ACTUAL).any(axis=1)).tolist()
    slots, texts = values.shape[1], kwh(values)
    tail = f'","channel":"{CHANNEL}","unit":"kWh","seconds":{seconds},"start":"'
    usual = f'{tail}{iso(start)}","values":['
    for row, device in enumerate(devices):
        mine = texts[row * slots : (row + 1) * slots]
        if plain[row]:
            objects.append(f'{{"device":"{device}{usual}{",".join(mine)}]}}')
            continue
        for first, end in _runs(states[row]):
            span = states[row, first:end].tolist()
            shown = ["null" if s == MISSING else t for t, s in zip(mine[first:end], span, strict=True)]
            words = f',"conditions":{json.dumps([_WORDS[s] for s in span])}' if any(span) else ""
            objects.append(f'{{"device":"{device}{tail}{iso(start + first * seconds)}","values":[{",".join(shown)}]{words}}}')
    return "".join((f'{{"source":"{source}","reads":[\n', ",\n".join(objects), "\n]}\n")).encode()


def json_register(device: str, at: int, reading: str) -> str:
    """One register read as an object for :func:`json_payload`."""
    return f'{{"device":"{device}","channel":"{REGISTER}","unit":"kWh","readings":[{{"at":"{iso(at)}","value":{reading}}}]}}'


def csv_payload(devices: Sequence[str], start: int, seconds: int, values: Ints, states: States) -> bytes:
    """Meters × intervals as our plain CSV."""
    lines = ["device,channel,unit,seconds,start,value,condition"]
    stamps = [iso(start + i * seconds) for i in range(values.shape[1])]
    texts, marks = iter(kwh(values)), iter(states.ravel().tolist())
    for device in devices:
        head = f"{device},{CHANNEL},kWh,{seconds},"
        for stamp, text, state in zip(stamps, texts, marks, strict=False):
            if state != ABSENT:
                lines.append(f"{head}{stamp},{'' if state == MISSING else text},{'' if state == ACTUAL else _WORDS[state]}")
    return "\n".join([*lines, ""]).encode()


def csv_registers(reads: Sequence[tuple[str, int, str]]) -> bytes:
    """Register reads (device, at, reading) as our plain CSV."""
    lines = [f"{device},{REGISTER},kWh,{iso(at)},{reading}" for device, at, reading in reads]
    return "\n".join(["device,channel,unit,at,reading", *lines, ""]).encode()


def nem12_payload(devices: Sequence[str], start: int, seconds: int, values: Ints, states: States) -> bytes:
    """Meters × one day of market time as NEM12; values that never come are null data there."""
    day = datetime.fromtimestamp(start, MARKET)
    lines = [f"100,NEM12,{day + timedelta(days=1):%Y%m%d%H%M},SIMULATED,HUB"]
    quality = {ACTUAL: "A", ABSENT: "N", MISSING: "N", ESTIMATED: "E"}
    for row, device in enumerate(devices):
        codes = [quality[s] for s in states[row].tolist()]
        if all(code == "N" for code in codes):
            continue
        flag = codes[0] if len(set(codes)) == 1 else "V"
        numbers = ",".join(kwh(np.where(np.isin(states[row], (ABSENT, MISSING)), 0, values[row])))
        lines.append(f"200,{device},{CHANNEL},{CHANNEL},{CHANNEL},N1,{device},kWh,{seconds // 60},")
        lines.append(f"300,{day:%Y%m%d},{numbers},{flag},,,{day + timedelta(days=1):%Y%m%d}040000,")
        position = 1
        for code, run in groupby(codes) if flag == "V" else ():
            size = len(list(run))
            lines.append(f"400,{position},{position + size - 1},{code},,")
            position += size
    return "\r\n".join([*lines, "900", ""]).encode()
