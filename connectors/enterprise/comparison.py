"""A CIS's full extract against what the hub has: what would be added, changed and ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from connectors.enterprise.objects import attributes_of, item_of, time_text
from connectors.enterprise.service import MasterService
from schemas.master import EVENTS, KINDS
from streams.master.timeline import EVER, FOREVER, Span, at, differences, overlaid, within

_LAST_FIRST: Final = ("contract", "subscription", "install", "component", "configuration", "device", "service_point", "account", "person")
_ROOM: Final = ("contract", "subscription")  # nothing stands on them, and one that ends makes room for another
Key = tuple[str, str]
Timeline = list[Span[dict[str, Any]]]


@dataclass(slots=True)
class Wanted:
    """What an extract says of one object: its lines, and spans; ``dated`` is false where no line says from when."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    spans: Timeline = field(default_factory=list)
    dated: bool = False


@dataclass(slots=True)
class Difference:
    """One object that is not as the extract says, and the lines that make it so."""

    change: str  # added, changed, ended
    kind: str
    id: str
    fields: list[dict[str, Any]]  # name, from, to, here (what the hub has), there (what the extract says)
    lines: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """As told."""
        return {"change": self.change, "kind": self.kind, "id": self.id, "fields": self.fields}


class Comparison:
    """Compares lines of an extract with the hub; ``moment`` (UTC seconds) is when changes without a date are to take effect.

    An extract is full for each kind in it: what it does not name of these ends at ``moment``, but install events, which are history.
    An object whose lines do not say from when is compared as it is at ``moment``.
    """

    def __init__(self, service: MasterService, moment: int) -> None:
        self.service, self.moment = service, moment
        self.wanted: dict[Key, Wanted] = {}
        self.errors: list[tuple[int, str]] = []
        self.counts: Counter[str] = Counter()

    def take(self, number: int, line: dict[str, Any]) -> None:
        """Takes one line in; what is wrong with it is in ``errors``."""
        try:
            item = item_of(line, "", self.service.zone, self.service.vault)
            if item["action"] != "put":
                raise ValueError("an extract says what holds: its lines have no action")
        except ValueError as error:
            self.errors.append((number, str(error)))
            return
        wanted = self.wanted.setdefault((item["kind"], item["object"]), Wanted())
        begin = EVER if item["from"] is None else item["from"]
        wanted.dated = wanted.dated or item["from"] is not None or item["to"] is not None
        wanted.spans = overlaid(wanted.spans, begin, FOREVER if item["to"] is None else item["to"], orjson.loads(item["body"]))
        wanted.lines.append(line)

    def differences(self) -> list[Difference]:
        """All differences in an order in which they can be applied: what makes room ends first, what others stand on ends last."""
        found: list[Difference] = []
        ended: list[Difference] = []
        for kind in KINDS:
            wanted = {id: said for (other, id), said in self.wanted.items() if other == kind}
            if not wanted:
                continue
            for _, id, stored in self.service.spans([kind]):
                known: Timeline = [(EVER if a < 0 else a, FOREVER if b < 0 else b, body) for a, b, body in stored]
                said = wanted.pop(id, None)
                if said is not None:
                    difference = self._compared(kind, id, known, said)
                    self.counts["changed" if difference else "unchanged"] += 1
                    found += [difference] if difference else []
                elif kind != "install" and known and known[-1][1] > self.moment:
                    ended.append(Difference("ended", kind, id, [], [self._end(kind, id, self.moment)]))
            self.counts["added"] += len(wanted)
            found += [Difference("added", kind, id, [], said.lines) for id, said in wanted.items()]
        self.counts["ended"] = len(ended)
        ended.sort(key=lambda one: (_LAST_FIRST.index(one.kind), one.id))
        first = [one for one in ended if one.kind in _ROOM]
        return [*first, *found, *(one for one in ended if one.kind not in _ROOM)]

    def _end(self, kind: str, id: str, moment: int) -> dict[str, Any]:
        return {"kind": kind, "id": id, "action": "end", "at": time_text(moment)}

    def _compared(self, kind: str, id: str, known: Timeline, wanted: Wanted) -> Difference | None:
        if any(body.get("erased") for _, _, body in known):
            return None
        if not wanted.dated and kind != "install":
            body, new = at(known, self.moment), wanted.spans[0][2]
            if body == new:
                return None
            since = {"from": time_text(self.moment)} if known else {}
            fields = self._fields(kind, id, body or {}, new, (self.moment, FOREVER))
            return Difference("changed", kind, id, fields, [{**wanted.lines[-1], **since}])
        first, last = wanted.spans[0][0], wanted.spans[-1][1]
        apart = differences(known, wanted.spans) if kind == "install" else differences(within(known, first, FOREVER), wanted.spans)
        if not apart:
            return None
        fields = [
            one for begin, end in apart
            for one in self._fields(kind, id, at(known, begin) or {}, at(wanted.spans, begin) or {}, (begin, end))
        ]  # fmt: skip
        lines = list(wanted.lines)
        if known and known[-1][1] > last:
            lines.append(self._end(kind, id, last))
        return Difference("changed", kind, id, fields, lines)

    def _fields(
        self, kind: str, id: str, here: Mapping[str, Any], there: Mapping[str, Any], bounds: tuple[int, int]
    ) -> list[dict[str, Any]]:
        one, other = (attributes_of(kind, id, body, self.service.vault) for body in (here, there))
        edges = {"from": None if bounds[0] == EVER else time_text(bounds[0]), "to": None if bounds[1] == FOREVER else time_text(bounds[1])}
        return [
            {"name": name, **edges, "here": one.get(name), "there": other.get(name)}
            for name in sorted({*one, *other})
            if one.get(name) != other.get(name)
        ]


def lines_to_apply(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """The lines that make the hub as the extract says; install events in the order in which they happened."""
    lines = [line for difference in found for line in difference.lines]
    events = sorted((line for line in lines if line["kind"] == "install"), key=lambda line: (line["at"], EVENTS.index(line["event"])))
    in_time = iter(events)
    return [next(in_time) if line["kind"] == "install" else line for line in lines]
