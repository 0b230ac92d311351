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
    kind = next((name for name in ("service_point", "device", "account") if name in set(columns)), None)
    if kind is None or not bounds:
        raise denied(asked)
    inside, parameters = _within(kind, bounds)
    return f"{kind} IN ({inside})", parameters


def all_within(reader: Any, things: Iterable[tuple[str, str]], bounds: Bounds) -> bool:
    """Whether all of these (kind, id) lie within; what cannot be placed does not."""
    if reader is None or not bounds:
        return False
    for kind, id in things:
        if kind not in _KINDS:
            return False
        inside, parameters = _within(_KINDS[kind], bounds)
        sql = f"SELECT count() AS n FROM ({inside}) AS within WHERE within.id = {{thing:String}}"
        if not reader.rows(sql, {**parameters, "thing": id})[0]["n"]:
            return False
    return True


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
