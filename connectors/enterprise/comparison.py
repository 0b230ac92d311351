"""A CIS's full extract against what the hub has: what would be added, changed and ended.

An extract may be far larger than memory: its lines, what differs and what became of it lie in a temporary database on disk, and one object
after the other is compared.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import orjson

from connectors.enterprise.master import object_of
from connectors.enterprise.objects import attributes_of, item_of, time_text
from connectors.enterprise.service import ItemOutcome, MasterService
from schemas.master import EVENTS, KINDS
from streams.master.timeline import EVER, FOREVER, Span, at, differences, overlaid, within

TOLD: Final = 100  # lines that are not valid and items that were refused: so many are named
_LAST_FIRST: Final = ("contract", "subscription", "install", "component", "configuration", "device", "service_point", "account", "person")
_KINDS: Final = tuple(KINDS)
_ROOM: Final = ("contract", "subscription")  # nothing stands on them, and one that ends makes room for another
_FIRST, _SAID, _LAST = range(3)  # what makes room ends first, then comes what the extract says, what others stand on ends last
_TABLES: Final = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
    CREATE TABLE said (
        number INTEGER PRIMARY KEY, kind INTEGER, id TEXT, dated INTEGER, begin INTEGER, until INTEGER, body TEXT, line BLOB
    );
    CREATE TABLE found (phase INTEGER, kind INTEGER, part INTEGER, place INTEGER, told BLOB);
    CREATE TABLE made (phase INTEGER, kind INTEGER, at INTEGER, event INTEGER, part INTEGER, place INTEGER, line BLOB, more BLOB);
    CREATE TABLE became (item TEXT, kind TEXT, id TEXT, outcome TEXT, reason TEXT);
    BEGIN;
"""
Timeline = list[Span[dict[str, Any]]]
Stored = tuple[str, Timeline]
Line = tuple[bytes, dict[str, Any]]  # a line as it came, and what is put in place of some of it


@dataclass(slots=True)
class Wanted:
    """What an extract says of one object: its lines, and spans; ``dated`` is false where no line says from when."""

    lines: list[bytes] = field(default_factory=list)
    spans: Timeline = field(default_factory=list)
    dated: bool = False
    number: int = 0  # of its first line


@dataclass(slots=True)
class Difference:
    """One object that is not as the extract says, and the lines that make it so."""

    change: str  # added, changed, ended
    kind: str
    id: str
    fields: list[dict[str, Any]]  # name, from, to, here (what the hub has), there (what the extract says)
    lines: list[Line]

    def to_dict(self) -> dict[str, Any]:
        """As told."""
        return {"change": self.change, "kind": self.kind, "id": self.id, "fields": self.fields}


class Comparison:
    """Compares lines of an extract with the hub; ``moment`` (UTC seconds) is when changes without a date are to take effect.

    An extract is full for each kind in it: what it does not name of these ends at ``moment``, but install events, which are history.
    An object whose lines do not say from when is compared as it is at ``moment``. Used by one thread at a time; to be closed.
    """

    def __init__(self, service: MasterService, moment: int) -> None:
        self.service, self.moment = service, moment
        self.errors: list[tuple[int, str]] = []  # the first ones
        self.counts: Counter[str] = Counter()
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Gives the disk back."""
        self._database.close()

    # --- what the extract says ----------------------------------------------------------------------------------------------------

    def take(self, number: int, line: bytes) -> None:
        """Takes one line in; what is wrong with it is in ``errors``."""
        if not line.strip():
            return
        try:
            said = object_of(line)
            if isinstance(said, dict) and "kind" not in said:
                raise ValueError("an extract holds objects, each with its kind")
            item = item_of(said, "", self.service.zone, self.service.vault)
            if item["action"] != "put":
                raise ValueError("an extract says what holds: its lines have no action")
        except ValueError as error:
            if len(self.errors) < TOLD:
                self.errors.append((number, str(error)))
            return
        begin, end = item["from"], item["to"]
        row = (
            number, _KINDS.index(item["kind"]), item["object"], begin is not None or end is not None, EVER if begin is None else begin,
            FOREVER if end is None else end, item["body"], line,
        )  # fmt: skip
        self._database.execute("INSERT INTO said VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _wanted(self, kind: int) -> Iterator[tuple[str, Wanted]]:
        """Objects of a kind in the order of their ids, which is that of the store: by the bytes of UTF-8."""
        sql = "SELECT id, number, dated, begin, until, body, line FROM said WHERE kind = ? ORDER BY id, number"
        for id, rows in groupby(self._database.execute(sql, (kind,)), key=lambda row: row[0]):
            wanted = Wanted()
            for _, number, dated, begin, until, body, line in rows:
                wanted.number = wanted.number or number
                wanted.dated = wanted.dated or bool(dated)
                wanted.spans = overlaid(wanted.spans, begin, until, orjson.loads(body))
                wanted.lines.append(line)
            yield id, wanted

    # --- against what the hub has ---------------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Finds all differences; called once, when all lines are taken in."""
        self._database.execute("CREATE INDEX said_of ON said (kind, id, number)")
        for number, kind in enumerate(KINDS):
            if self._database.execute("SELECT 1 FROM said WHERE kind = ? LIMIT 1", (number,)).fetchone():
                self._of_kind(number, kind)
        self._database.execute("DROP TABLE said")

    def _of_kind(self, number: int, kind: str) -> None:
        known = ((id, _timeline(stored)) for _, id, stored in self.service.spans([kind]))
        for place, (id, here, said) in enumerate(_side_by_side(known, self._wanted(number))):
            if said is None:
                if kind != "install" and here and here[-1][1] > self.moment:
                    self.counts["ended"] += 1
                    phase = _FIRST if kind in _ROOM else _LAST
                    ended = Difference("ended", kind, id, [], [(b"{}", self._end(kind, id, self.moment))])
                    self._add(ended, phase, _LAST_FIRST.index(kind), 0, place)
            elif here is None:
                self.counts["added"] += 1
                self._add(Difference("added", kind, id, [], [(line, {}) for line in said.lines]), _SAID, number, 1, said.number)
            else:
                difference = self._compared(kind, id, here, said)
                self.counts["changed" if difference else "unchanged"] += 1
                if difference:
                    self._add(difference, _SAID, number, 0, place)

    def _add(self, found: Difference, phase: int, kind: int, part: int, place: int) -> None:
        told = orjson.dumps(found.to_dict(), option=orjson.OPT_APPEND_NEWLINE)
        self._database.execute("INSERT INTO found VALUES (?, ?, ?, ?, ?)", (phase, kind, part, place, told))
        for line, more in found.lines:
            moment, event = self._happens(line) if found.kind == "install" else (0, 0)
            row = (phase, kind, moment, event, part, place, line, orjson.dumps(more))
            self._database.execute("INSERT INTO made VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _happens(self, line: bytes) -> tuple[int, int]:
        """When an install event happened, and its place among those of that second."""
        said = object_of(line)
        return item_of(said, "", self.service.zone, self.service.vault)["from"], EVENTS.index(said["event"])

    def differences(self) -> Iterator[bytes]:
        """All differences as lines of JSON, in an order in which they can be applied."""
        for (told,) in self._database.execute("SELECT told FROM found ORDER BY phase, kind, part, place"):
            yield told

    def to_apply(self) -> Iterator[dict[str, Any]]:
        """The lines that make the hub as the extract says; install events in the order in which they happened."""
        for line, more in self._database.execute("SELECT line, more FROM made ORDER BY phase, kind, at, event, part, place, rowid"):
            yield {**object_of(line), **orjson.loads(more)}

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
            return Difference("changed", kind, id, fields, [(wanted.lines[-1], since)])
        first, last = wanted.spans[0][0], wanted.spans[-1][1]
        apart = differences(known, wanted.spans) if kind == "install" else differences(within(known, first, FOREVER), wanted.spans)
        if not apart:
            return None
        fields = [
            one for begin, end in apart
            for one in self._fields(kind, id, at(known, begin) or {}, at(wanted.spans, begin) or {}, (begin, end))
        ]  # fmt: skip
        lines: list[Line] = [(line, {}) for line in wanted.lines]
        if known and known[-1][1] > last:
            lines.append((b"{}", self._end(kind, id, last)))
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

    # --- what became of it ------------------------------------------------------------------------------------------------------------

    def note(self, outcomes: list[ItemOutcome]) -> None:
        """Notes the items of lines that were submitted."""
        rows = [(one.item, one.kind, one.id, one.outcome, one.reason) for one in outcomes]
        self._database.executemany("INSERT INTO became VALUES (?, ?, ?, ?, ?)", rows)

    def noted(self, many: int) -> Iterator[list[ItemOutcome]]:
        """What was noted, in order, so many at a time."""
        cursor = self._database.execute("SELECT item, kind, id, outcome, reason FROM became ORDER BY rowid")
        while rows := cursor.fetchmany(many):
            yield [ItemOutcome(*row) for row in rows]


def _timeline(stored: list[tuple[int, int, dict[str, Any]]]) -> Timeline:
    return [(EVER if a < 0 else a, FOREVER if b < 0 else b, body) for a, b, body in stored]


def _side_by_side(
    known: Iterator[tuple[str, Timeline]], wanted: Iterator[tuple[str, Wanted]]
) -> Iterator[tuple[str, Timeline | None, Wanted | None]]:
    """Two sequences in the order of ids as one: what each has of an id."""
    here, there = next(known, None), next(wanted, None)
    while here is not None or there is not None:
        order = 0 if here and there and here[0] == there[0] else -1 if there is None or (here and _before(here[0], there[0])) else 1
        if order < 0:
            assert here is not None
            yield here[0], here[1], None
        elif order > 0:
            assert there is not None
            yield there[0], None, there[1]
        else:
            assert here is not None
            assert there is not None
            yield here[0], here[1], there[1]
        if order <= 0:
            here = next(known, None)
        if order >= 0:
            there = next(wanted, None)


def _before(one: str, other: str) -> bool:
    return one.encode() < other.encode()
