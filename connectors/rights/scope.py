"""Rights that are bounded to an area, as conditions on the store: which service points, devices and accounts lie within.

A service point lies where its master data says: attributes ``utility``, ``region`` and ``commodity``. Devices lie where they are installed,
accounts (usage subscriptions) where their service points lie. What master data does not place lies nowhere, and is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from connectors.rights.principal import current, denied, permission_asked
from connectors.rights.roles import Area

MASTER: Final = "master/"  # kind of an object of master data, as one of ``all_within``
Bounds = Sequence[tuple[Area, Area]]
_SIDES: Final = {"utility": "'attributes', 'utility'", "region": "'region'", "commodity": "'commodity'"}  # where a service point says it
_KINDS: Final = {"device": "device", "service_point": "service_point", "account": "account", "subscription": "account"}


def condition(columns: Iterable[str], permission: str | None = None) -> tuple[str, dict[str, Any]]:
    """A condition on rows with these columns for the one who acts, with its parameters; empty where there are no bounds.

    Raises Problem 403 where rows with these columns cannot be placed.
    """
    asked = permission or permission_asked()
    bounds = current().bounds(asked) if asked else None
    if bounds is None:
        return "", {}
    names = set(columns)
    if {"kind", "id", "service_point"} <= names:
        return _master(bounds)
    kind = next((name for name in ("service_point", "device", "account") if name in names), None)
    if kind is None or not bounds:
        raise denied(asked)
    inside, parameters = _within(kind, bounds)
    return f"{kind} IN ({inside})", parameters


def all_within(reader: Any, things: Iterable[tuple[str, str]], bounds: Bounds) -> bool:
    """Whether all of these (kind, id) lie within; what cannot be placed does not."""
    if reader is None or not bounds:
        return False
    for kind, id in things:
        if kind in _KINDS:
            inside, parameters = _within(_KINDS[kind], bounds)
            sql = f"SELECT count() AS n FROM ({inside}) AS within WHERE within.id = {{thing:String}}"
        elif kind.startswith(MASTER):
            inside, parameters = _master(bounds)
            sql = f"SELECT count() AS n FROM master WHERE kind = {{kind:String}} AND id = {{thing:String}} AND ({inside})"
            parameters["kind"] = kind.removeprefix(MASTER)
        else:
            return False
        if not reader.rows(sql, {**parameters, "thing": id})[0]["n"]:
            return False
    return True


def require_within(reader: Any, *things: tuple[str, str]) -> None:
    """Raises Problem 403 unless all of these (kind, id) lie where the permission of the request in hand holds."""
    asked = permission_asked()
    bounds = current().bounds(asked) if asked else None
    if bounds is not None and not all_within(reader, things, bounds):
        raise denied(asked)


def _master(bounds: Bounds) -> tuple[str, dict[str, Any]]:
    """The condition on rows of the view ``master``: places, what is installed there, who is supplied there, and the people behind."""
    points, parameters = _within("service_point", bounds)
    devices, accounts = (_within(kind, bounds)[0] for kind in ("device", "account"))
    payers = f"SELECT account FROM master WHERE kind = 'subscription' AND account != '' AND id IN ({accounts})"
    persons = f"SELECT JSONExtractString(attributes, 'person') FROM master WHERE kind = 'account' AND id IN ({payers})"
    alternatives = (
        f"service_point IN ({points})", f"kind = 'service_point' AND id IN ({points})", f"kind = 'device' AND id IN ({devices})",
        f"kind IN ('component', 'configuration') AND device IN ({devices})", f"kind = 'subscription' AND id IN ({accounts})",
        f"kind = 'contract' AND JSONExtractString(attributes, 'subscription') IN ({accounts})", f"kind = 'account' AND id IN ({payers})",
        f"kind = 'person' AND id != '' AND id IN ({persons})",
    )  # fmt: skip
    return f"({' OR '.join(f'({one})' for one in alternatives)})", parameters


def _within(kind: str, bounds: Bounds) -> tuple[str, dict[str, Any]]:
    """A query of the ids (column ``id``) of a kind that lie within."""
    parameters: dict[str, Any] = {}
    places = _placed(bounds, parameters)
    newest = "SELECT id, attributes FROM master WHERE kind = 'service_point' ORDER BY span DESC LIMIT 1 BY id"
    points = f"SELECT id FROM ({newest}) WHERE {places}"
    if kind == "service_point":
        return points, parameters
    if kind == "device":
        return f"SELECT device AS id FROM master WHERE kind IN ('install', 'channel') AND service_point IN ({points})", parameters
    served = "arrayJoin(JSONExtract(attributes, 'service_points', 'Array(String)'))"
    subscriptions = f"SELECT id FROM (SELECT id, {served} AS place FROM master WHERE kind = 'subscription') WHERE place IN ({points})"
    return f"{subscriptions} UNION ALL SELECT account AS id FROM master WHERE kind = 'channel' AND service_point IN ({points})", parameters


def _placed(bounds: Bounds, parameters: dict[str, Any]) -> str:
    """The condition on a service point's attributes: one of the pairs of areas holds it, side by side."""
    alternatives = []
    for pair in bounds:
        sides = []
        for area in pair:
            for side, place in _SIDES.items():
                pattern = getattr(area, side)
                if pattern == "*":
                    continue
                name = f"bound_{len(parameters)}"
                parameters[name] = f"^{'.*'.join(re.escape(part) for part in pattern.split('*'))}$"
                sides.append(f"match(JSONExtractString(attributes, {place}), {{{name}:String}})")
        alternatives.append(f"({' AND '.join(sides)})" if sides else "1")
    return " OR ".join(alternatives) or "0"
