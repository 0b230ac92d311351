"""Roles as policy: topology.yaml's roles loaded into casbin, and the question whether a role may do something in an area."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

import casbin

from schemas.topology.rights import PERMISSIONS, Grant, Role

MODEL: Final = """
[request_definition]
r = role, utility, region, commodity, act

[policy_definition]
p = role, utility, region, commodity, act

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = g(r.role, p.role) && permits(r.act, p.act) && covers(r.utility, p.utility) && covers(r.region, p.region) && \
covers(r.commodity, p.commodity)
"""
ANYWHERE: Final = ""


@dataclass(frozen=True, slots=True)
class Area:
    """Where something lies. ``*`` is everywhere; as an area asked for, only rights without bounds cover it."""

    utility: str = "*"
    region: str = "*"
    commodity: str = "*"


EVERYWHERE: Final = Area()


def covers(asked: str, pattern: str) -> bool:
    """Whether a pattern of a grant covers a value; the empty value asks for any place at all."""
    return asked == ANYWHERE or fnmatchcase(asked, pattern)


def permits(asked: str, pattern: str) -> bool:
    """Whether a permission, ``word.*`` or ``*`` holds a permission."""
    return pattern in ("*", asked) or (pattern.endswith(".*") and asked.startswith(pattern[:-1]))


class Roles:
    """What the roles of a hub permit. Answers are kept: the policy of a running hub does not change."""

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self.roles = dict(roles)
        model = casbin.Model()
        model.load_model_from_text(MODEL)
        self._enforcer: Any = casbin.Enforcer(model)
        self._enforcer.add_function("covers", covers)
        self._enforcer.add_function("permits", permits)
        for name, role in self.roles.items():
            for permission in role.permissions:
                self._enforcer.add_policy(name, role.utility, role.region, role.commodity, permission)
            for other in role.includes:
                self._enforcer.add_grouping_policy(name, other)
        self._decide = lru_cache(maxsize=100_000)(self._enforced)

    def _enforced(self, role: str, utility: str, region: str, commodity: str, permission: str) -> bool:
        return bool(self._enforcer.enforce(role, utility, region, commodity, permission))

    def permit(self, grants: Iterable[Grant], permission: str, area: Area | None) -> bool:
        """Whether one of the grants gives a permission in an area; None: anywhere at all."""
        place = Area(ANYWHERE, ANYWHERE, ANYWHERE) if area is None else area
        for grant in grants:
            pairs = ((place.utility, grant.utility), (place.region, grant.region), (place.commodity, grant.commodity))
            if all(covers(*pair) for pair in pairs) and self._decide(grant.role, place.utility, place.region, place.commodity, permission):
                return True
        return False

    def bounds(self, grants: Iterable[Grant], permission: str) -> list[tuple[Area, Area]]:
        """Where a permission holds: pairs of patterns, of the grant and of the role, that must both match."""
        found = []
        for grant in grants:
            for name in self._family(grant.role):
                role = self.roles[name]
                if any(permits(permission, pattern) for pattern in role.permissions):
                    found.append((Area(grant.utility, grant.region, grant.commodity), Area(role.utility, role.region, role.commodity)))
        return found

    def permissions(self, grants: Iterable[Grant]) -> list[str]:
        """The permissions that grants give anywhere, sorted."""
        held = list(grants)
        return sorted(name for name in PERMISSIONS if self.permit(held, name, None))

    def _family(self, role: str) -> set[str]:
        found: set[str] = set()
        waiting = [role]
        while waiting:
            name = waiting.pop()
            if name in self.roles and name not in found:
                found.add(name)
                waiting += self.roles[name].includes
        return found
