"""NEM13, the accumulation meter data file of the Australian market: pairs of register reads and what was used between them.

Times are market time (UTC+10 all year). A read needs the one before it: from the same batch, else from the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from connectors.subscribers.past import Past, Read
from connectors.subscribers.writers.content import Content
from connectors.subscribers.writers.nem12 import NAME, OFFSET, SUFFIX, at_market, quality
from schemas import quantity
from schemas.block import FinalBlock, starts_of
from schemas.rules import METHODS

_SUFFIXES: Final = {0: "11", 1: "11", 2: "41"}  # of active energy, by direction
_INDICATOR: Final = {0: "E", 1: "E", 2: "I"}  # the market's words: export is what customers take
_ENERGY: Final = frozenset(("wh", "kwh", "mwh"))


def document(block: FinalBlock, made_at: int, past: Past | None = None) -> Content:
    """The file of a block of register reads; ``made_at`` (UTC seconds) stands in its header. One 250 record per read."""
    lines = [f"100,NEM13,{at_market(made_at):%Y%m%d%H%M},MDH,MDH"]
    left_out: list[str] = []
    begins, read_begins = starts_of(block.count), starts_of(block.reads)
    count = 0
    for row in range(len(block)):
        name = f"{block.device[row].as_py()} {block.channel[row].as_py()}"
        head, reason = _head(block, row)
        if not head:
            left_out.append(reason)
            continue
        reads = [
            Read(int(block.times[int(read_begins[row]) + n]), int(block.values[first]), int(block.conditions[first]),
                 METHODS[int(block.methods[first])])
            for n, first in enumerate(range(int(begins[row]), int(begins[row]) + int(block.count[row])))
        ]  # fmt: skip
        written = False
        for before, read in _pairs(block, row, reads, past):
            used = None if before is None else _used(before.value, read.value, int(block.dials[row]), int(block.multiplier[row]))
            if before is None:
                left_out.append(f"{name}: the read of {_stamp(read.at)} has none before it")
            elif used is None:
                left_out.append(f"{name}: the read of {_stamp(read.at)} is lower than the one before it")
            else:
                unit = block.unit[row].as_py().upper()
                amounts = f"{_side(before)},{_side(read)},{quantity.text_of(used)},{unit}"
                lines.append(f"{head},{amounts},,{at_market(made_at):%Y%m%d%H%M%S},")
                written = True
        count += written
    lines.append("900")
    return Content(("\r\n".join(lines) + "\r\n").encode(), count, left_out)


def _head(block: FinalBlock, row: int) -> tuple[str, str]:
    """The first eight fields of a 250 record; else why there are none."""
    device, channel, unit, point = (getattr(block, name)[row].as_py() for name in ("device", "channel", "unit", "service_point"))
    direction, nmi = int(block.direction[row]), point or device
    if not NAME.fullmatch(nmi) or not NAME.fullmatch(device):
        return "", f"{nmi!r} ({device!r}) cannot stand in a NEM13 file"
    if unit.lower() not in _ENERGY and not SUFFIX.fullmatch(channel):
        return "", f"{device} {channel}: NEM13 has no data stream for {unit}"
    suffix = channel if SUFFIX.fullmatch(channel) else _SUFFIXES[direction]
    return f"250,{nmi},{suffix},{suffix},{suffix},{suffix},{'' if device == nmi else device},{_INDICATOR[direction]}", ""


def _pairs(block: FinalBlock, row: int, reads: list[Read], past: Past | None) -> Iterator[tuple[Read | None, Read]]:
    """Each read with the one before it."""
    before = None
    for number, read in enumerate(sorted(reads, key=lambda one: one.at)):
        if not number and past is not None:
            before = past.before(block.device[row].as_py(), block.channel[row].as_py(), read.at)
        yield before, read
        before = read


def _used(before: int, after: int, dials: int, multiplier: int) -> int | None:
    """What was used between two reads, in millionths; a register of so many digits may have turned over once."""
    raw = after - before
    if raw < 0:
        whole = 10**dials * quantity.MICRO if dials else 0
        raw += whole
        if raw < 0 or 2 * raw > whole:
            return None
    return raw * (multiplier or quantity.MICRO) // quantity.MICRO


def _side(read: Read) -> str:
    return f"{quantity.text_of(read.value)},{_stamp(read.at)},{quality(read.condition, read.method)},,"


def _stamp(second: int) -> str:
    moment: datetime = at_market(second)
    return f"{moment:%Y%m%d%H%M%S}"


__all__ = ["OFFSET", "document"]
