"""Rights that are bounded to an area, as conditions on the store: which service points, devices and accounts lie within.

A service point lies where its master data says: attributes ``utility``, ``region`` and ``commodity``. A device lies wherever it is or was
installed, with all of its history; an account (usage subscription) where its service points lie. What master data does not place lies
nowhere, and is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from connectors.head_end.problems import ProblemError
from connectors.rights.principal import current, denied, permission_asked
from connectors.rights.roles import Area

MASTER: Final = "master/"  # kind of an object of master data, as one of ``all_within``
Bounds = Sequence[tuple[Area, Area]]
_SIDES: Final = ("utility", "region", "commodity")
_KINDS: Final = {"device": "device", "service_point": "service_point", "account": "account", "subscription": "account"}


@dataclass(frozen=True, slots=True)
class Within:
    """An area as conditions on rows. ``bounds`` None: everywhere. Every condition needs the ``parameters``; ``mark`` begins their names."""

    bounds: tuple[tuple[Area, Area], ...] | None = None
    mark: str = "bound"

    @property
    def everywhere(self) -> bool:
        """Whether there are no bounds."""
        return self.bounds is None

    def covers(self, other: Within) -> bool:
        """Whether all of another area lies in this one, as far as their patterns tell."""
        if self.bounds is None or other.bounds is None:
            return self.bounds is None
        return all(any(_holds(mine, theirs) for mine in self.bounds) for theirs in other.bounds)

    @property
    def parameters(self) -> dict[str, str]:
        """What the conditions refer to."""
        patterns = list(dict.fromkeys(getattr(area, side) for pair in self.bounds or () for area in pair for side in _SIDES))
        return {f"{self.mark}_{place}": _regex(pattern) for place, pattern in enumerate(patterns) if pattern != "*"}

    def on(self, column: str, kind: str = "") -> str:
        """The condition that ``column`` names something within; ``kind`` device, service_point or account where its name does not say."""
        if self.bounds is None:
            return "1"
        return f"{column} IN ({self.ids(kind or column)})" if self.bounds else "0"

    def ids(self, kind: str) -> str:
        """A query of the ids (column ``id``) of a kind that lie within. Not for an area without bounds."""
        points = (
            f"SELECT object AS id FROM master_objects FINAL WHERE kind = 'service_point' AND notEmpty(span_from) AND ({self._placed()})"
        )
        if kind == "service_point":
            return points
        kinds = "'install', 'channel'" if kind == "device" else "'subscription', 'channel'"
        pairs = f"SELECT arrayJoin(places) AS place FROM master_objects FINAL WHERE kind IN ({kinds})"
        return f"SELECT place.{kind} AS id FROM ({pairs}) WHERE place.{kind} != '' AND place.service_point IN ({points})"

    def on_master(self) -> str:
        """The condition on rows of the view ``master``: places, what is installed there, who is supplied there, and the people behind."""
        if not self.bounds:
            return "1" if self.everywhere else "0"
        points, devices, accounts = (self.ids(kind) for kind in ("service_point", "device", "account"))
        payers = f"SELECT account FROM master WHERE kind = 'subscription' AND account != '' AND id IN ({accounts})"
        persons = f"SELECT JSONExtractString(attributes, 'person') FROM master WHERE kind = 'account' AND id IN ({payers})"
        alternatives = (
            f"service_point IN ({points})", f"kind = 'service_point' AND id IN ({points})", f"kind = 'device' AND id IN ({devices})",
            f"kind IN ('component', 'configuration') AND device IN ({devices})", f"kind = 'subscription' AND id IN ({accounts})",
            f"kind = 'contract' AND JSONExtractString(attributes, 'subscription') IN ({accounts})",
            f"kind = 'account' AND id IN ({payers})", f"kind = 'person' AND id != '' AND id IN ({persons})",
        )  # fmt: skip
        return f"({' OR '.join(f'({one})' for one in alternatives)})"

    def _placed(self) -> str:
        """The condition on a service point: one of the pairs of areas holds it, side by side."""
        names = {pattern: name for name, pattern in self.parameters.items()}
        alternatives = []
        for pair in self.bounds or ():
            patterns = [(side, getattr(area, side)) for area in pair for side in _SIDES]
            sides = [f"match({side}, {{{names[_regex(pattern)]}:String}})" for side, pattern in patterns if pattern != "*"]
            alternatives.append(f"({' AND '.join(dict.fromkeys(sides))})" if sides else "1")
        return " OR ".join(alternatives)


EVERYWHERE: Final = Within()


def here(permission: str | None = None, mark: str = "bound") -> Within:
    """Where the one who acts has a permission: that of the request in hand unless another is named. Outside of requests: everywhere."""
    asked = permission or permission_asked()
    bounds = current().bounds(asked) if asked else None
    return EVERYWHERE if bounds is None else Within(tuple(dict.fromkeys(bounds)), mark)


def condition(columns: Iterable[str], permission: str | None = None) -> tuple[str, dict[str, Any]]:
    """A condition on rows with these columns for the one who acts, with its parameters; empty where there are no bounds.

    Raises Problem 403 where rows with these columns cannot be placed.
    """
    area = here(permission)
    if area.everywhere:
        return "", {}
    names = set(columns)
    if {"kind", "id", "service_point"} <= names:
        return area.on_master(), dict(area.parameters)
    kind = next((name for name in ("service_point", "device", "account") if name in names), None)
    if kind is None or not area.bounds:
        raise denied(permission or permission_asked())
    return area.on(kind), dict(area.parameters)


def all_within(reader: Any, things: Iterable[tuple[str, str]], bounds: Bounds) -> bool:
    """Whether all of these (kind, id) lie within; what cannot be placed does not."""
    if reader is None or not bounds:
        return False
    area = Within(tuple(bounds))
    for kind, id in things:
        if kind in _KINDS:
            sql = f"SELECT count() AS n FROM ({area.ids(_KINDS[kind])}) AS within WHERE within.id = {{thing:String}}"
        elif kind.startswith(MASTER):
            sql = f"SELECT count() AS n FROM master WHERE kind = {{kind:String}} AND id = {{thing:String}} AND {area.on_master()}"
        else:
            return False
        if not reader.rows(sql, {**area.parameters, "kind": kind.removeprefix(MASTER), "thing": id})[0]["n"]:
            return False
    return True


def require_within(reader: Any, *things: tuple[str, str]) -> None:
    """Raises Problem 403 unless all of these (kind, id) lie where the permission of the request in hand holds."""
    area = here()
    if area.bounds is not None and not all_within(reader, things, area.bounds):
        raise denied(permission_asked())


def inside(reader: Any, kind: str, ids: Sequence[str], permission: str | None = None) -> list[str]:
    """Those of the ids (device, service_point or account) that lie where the one who acts has a permission, in their order."""
    area = here(permission)
    if area.everywhere or not ids:
        return list(ids)
    sql = f"SELECT DISTINCT id FROM ({area.ids(kind)}) AS within WHERE within.id IN {{things:Array(String)}}"
    found = {row["id"] for row in reader.rows(sql, {**area.parameters, "things": list(ids)})} if area.bounds else set()
    return [id for id in ids if id in found]


def may_about(reader: Any, device: str) -> Callable[[str], bool]:
    """The question whether the one who acts has a permission where a device lies; the store is asked once per area."""
    known: dict[Within, bool] = {}

    def may(permission: str) -> bool:
        area = here(permission)
        if area.bounds is None:
            return current().may(permission)
        if area not in known:
            known[area] = all_within(reader, [("device", device)], area.bounds)
        return known[area]

    return may


def needs_everything(permission: str, why: str = "") -> ProblemError:
    """The answer to somebody whose right holds in an area only, at a door that knows none."""
    said = why or "This is about the whole hub and cannot be held to an area."
    return ProblemError(403, "bounded", f"{said} You have the permission {permission} in an area only.", permission=permission)


def _holds(pair: tuple[Area, Area], other: tuple[Area, Area]) -> bool:
    """Whether both patterns of a pair match what the patterns of another let through, side by side."""
    return all(
        pattern == "*" or any(re.match(_regex(pattern), getattr(area, side)) for area in other)
        for side in _SIDES
        for pattern in (getattr(area, side) for area in pair)
    )


def _regex(pattern: str) -> str:
    return f"^{'.*'.join(re.escape(part) for part in pattern.split('*'))}$"
