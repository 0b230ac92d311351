"""Previews of commands: what one would change, found by carrying it out on a copy of its device's state that is thrown away.

A preview sees what the command itself would see at this place of the inbox. What it needs from the store is asked for like everything else;
until it has come the preview waits, and holds nothing up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from schemas import conditions
from schemas.block import FinalBlock, RecallBlock, starts_of
from schemas.quantity import text_of
from streams.runtime.fold import Message
from streams.vee.batch import iso
from streams.vee.channels import TABLE, key_of, names_of
from streams.vee.days import code_of
from streams.vee.older import overlaid

if TYPE_CHECKING:
    from streams.vee.fold import VeeFold

SHOWN: Final = 500  # changed intervals, and exceptions, that are written out; all are counted
_PENDING: Final = ("late", "again", "asked", "orders", "was", "parked", "preview")
_NONE: Final = np.zeros(0, np.int64)
Place = tuple[str, int, int]  # channel key, interval length, day
Stored = Callable[[Place], FinalBlock | None]


@dataclass(slots=True)
class Preview:
    """What came of a command on the copy: its audit, or the stored days that are missing to tell."""

    audit: dict[str, Any] | None = None
    missing: list[Place] = field(default_factory=list)


def preview(fold: VeeFold, body: dict[str, Any], message: Message, stored: Stored) -> Preview:
    """Carries a command out on a copy. ``stored`` gives days of the store that are at hand."""
    copy = copy_of(fold, body["device"])
    before = _finals(copy)
    found = Preview()
    told: dict[str, dict[str, Any]] = {}
    finals: list[FinalBlock] = []
    queue: list[Message] = [Message("Command", {**body, "dry_run": False}, message.id, message.payload)]
    while queue:
        for output in copy.apply(queue.pop(0)).outputs:
            if isinstance(output.body, RecallBlock):
                places = [(key_of(device, channel), seconds, day) for device, channel, seconds, day in output.body.places()]
                at_hand = {place: stored(place) for place in places}
                blocks = [block for block in at_hand.values() if block is not None]
                found.missing += [place for place, block in at_hand.items() if block is None]
                if len(blocks) == len(places):
                    given = overlaid(FinalBlock.join(blocks), finals)  # the copy's own readings are not in the store
                    queue.append(Message("FinalBlock", given, message.derive("preview", len(queue)), message.payload))
            elif output.type == "AuditEvent":
                found.audit = output.body
            elif output.type == "VeeException":
                told[output.body["id"]] = output.body
            elif output.type == "FinalBlock":
                finals.append(output.body)
    if found.missing or found.audit is None:
        return Preview(None, found.missing)
    if found.audit["outcome"] == "applied":
        after = json.loads(found.audit["after"] or "{}")
        found.audit |= {"outcome": "preview", "after": json.dumps(after | _effect(before, finals, list(told.values())), sort_keys=True)}
    return found


def copy_of(fold: VeeFold, device: str) -> VeeFold:
    """A fold that holds the channels of one device, without what waits for the store or for master data."""
    copy = type(fold)(fold.settings, fold.partition, fold.partitions)
    keys = [fold.channels.table.keys[channel] for channel in fold.channels.of_device(device)]
    for name in sorted(fold.state.tables, key=lambda name: (name != TABLE, name[0] == "h", name)):
        table = fold.state.tables[name]
        own = sorted((key for key in keys if key in table.index), key=lambda key: table.index[key])
        mine = copy.state.table(name)
        if not own:
            continue
        source, target = table.find(own), mine.add(own)
        for column in table.columns:
            mine[column][target] = table[column][source]
        for text, values in table.text.items():
            for a, b in zip(source.tolist(), target.tolist(), strict=True):
                mine.text[text][b] = values[a]
        if "channel" in table.columns:
            mine["channel"][target] = copy.state.table(TABLE).find(own)
    for entry, data in fold.state.entries.items():
        kind, _, rest = entry.partition("/")
        if kind not in _PENDING and (not rest or rest == device or any(rest.endswith(key) for key in keys)):
            copy.state.put(entry, data)
    copy.channels.refresh()
    return copy


def _finals(fold: VeeFold) -> dict[Place, tuple[list[int], list[int]]]:
    """Final values and conditions of the days in the state."""
    found = {}
    for seconds in fold.rings.lengths():
        table = fold.rings.table(seconds)
        row, pos = np.nonzero(table["day"][: len(table)] >= 0)
        if len(row):
            codes = np.sort(code_of(row, table["day"][row, pos].astype(np.int64)))
            decided = fold.days.decide(seconds, None, _NONE, {}, 0, 0, look=codes)
            for k, channel in enumerate(decided.channel.tolist()):
                count = int(decided.batch.counts[k])
                place = (fold.channels.table.keys[channel], seconds, int(decided.batch.day[k]))
                found[place] = (decided.batch.values[k, :count].tolist(), decided.batch.conditions[k, :count].tolist())
    return found


def _effect(before: dict[Place, tuple[list[int], list[int]]], finals: list[FinalBlock], told: list[dict[str, Any]]) -> dict[str, Any]:
    """Which intervals change from what to what, and which exceptions begin or end."""
    changes: list[dict[str, Any]] = []
    days: set[Place] = set()
    for block in finals:
        cells, old_cells = starts_of(block.count), starts_of(block.before_count)
        for row in np.flatnonzero(block.seconds > 0).tolist():
            key, seconds, count = (
                key_of(block.device[row].as_py(), block.channel[row].as_py()),
                int(block.seconds[row]),
                int(block.count[row]),
            )
            place = (key, seconds, int(block.day[row]))
            days.add(place)
            new = slice(int(cells[row]), int(cells[row]) + count)
            old = slice(int(old_cells[row]), int(old_cells[row]) + int(block.before_count[row]))
            was = (block.before[old].tolist(), block.before_conditions[old].tolist()) if block.before_count[row] else before.get(place)
            values, codes = was or ([0] * count, [0] * count)
            for slot, now in enumerate(zip(block.values[new].tolist(), block.conditions[new].tolist(), strict=True)):
                if (values[slot], codes[slot]) != now:
                    changes.append(
                        {"channel": names_of(key)[1], "start": iso(int(block.start[row]) + slot * seconds), "seconds": seconds,
                         "from": _shown(values[slot], codes[slot]), "to": _shown(*now)}
                    )  # fmt: skip
    exceptions = [
        {name: body[name] for name in ("rule", "severity", "status", "channel", "detail")}
        | {name: iso(int(body[name].timestamp())) for name in ("start", "end")}
        for body in told
    ]
    return {
        "changed_days": len(days), "changed_intervals": len(changes), "changes": changes[:SHOWN], "exceptions": exceptions[:SHOWN],
        "changed_exceptions": len(exceptions),
    }  # fmt: skip


def _shown(value: int, code: int) -> dict[str, Any]:
    return {"value": text_of(value) if code >= conditions.OUTAGE else None, "condition": code}
