"""Rules and time-of-use maps as they are in force, and what a proposed topology.yaml would change."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import yaml

from schemas.identity import identity
from schemas.topology import Topology, TopologyError, parse_topology
from schemas.topology.tou import clock

MOST: Final = 1_000_000  # characters of a proposal


def told(topology: Topology) -> dict[str, Any]:
    """All settings, those left out with their defaults: two files that say the same give the same."""
    return topology.model_dump(mode="json", by_alias=True)


def digest(topology: Topology) -> str:
    """Names what a topology says, however it is written."""
    return identity("topology", yaml.safe_dump(told(topology), sort_keys=True))


@dataclass(frozen=True, slots=True)
class Checked:
    """What is to be said of a proposal: why it cannot be used, or what it changes.

    ``lines`` are those of the two files that differ; ``settings`` the settings that change; ``undated`` those of them that hold as soon as
    the hub starts with the file, whatever day was proposed.
    """

    error: str = ""
    lines: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    undated: tuple[str, ...] = ()
    digest: str = ""


def check(topology: Topology, proposal: str, since: date | None = None) -> Checked:
    """Reads a proposal and compares it with what is in force; ``since`` is the day from which it is to hold."""
    if len(proposal) > MOST:
        return Checked(f"it is longer than {MOST} characters")
    try:
        proposed = parse_topology(proposal, "proposal")
    except TopologyError as error:
        return Checked(str(error))
    changed = list(_changes(told(topology), told(proposed), ()))
    lines = difflib.unified_diff(topology.text.splitlines(), proposal.splitlines(), "in force", "proposed", lineterm="", n=4)
    undated = [] if since is None else [path for path, after in changed if not _dated(after, since)]
    return Checked("", tuple(lines), tuple(path for path, _ in changed), tuple(undated), digest(proposed))


def _changes(before: Any, after: Any, path: tuple[str, ...]) -> Iterator[tuple[str, list[Any]]]:
    """Settings that differ, each with what stands around it in the proposal, the innermost last."""
    yield from _differing(before, after, path, [])


def _differing(before: Any, after: Any, path: tuple[str, ...], around: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    if before == after:
        return
    inside = [*around, after]
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*after, *(name for name in before if name not in after)]:
            yield from _differing(before.get(name), after.get(name), (*path, name), inside)
    elif isinstance(before, list) and isinstance(after, list):
        for place in range(max(len(before), len(after))):
            one, other = (side[place] if place < len(side) else None for side in (before, after))
            yield from _differing(one, other, (*path, _name(other or one, place)), inside)
    else:
        yield ".".join(path), inside


def _name(entry: Any, place: int) -> str:
    return str(entry["id"]) if isinstance(entry, dict) and "id" in entry else str(place)


def _dated(around: list[Any], since: date) -> bool:
    """Whether something around a setting says that it holds from ``since`` on, or later."""
    for entry in around:
        for name in ("effective_from", "from"):
            said = entry.get(name) if isinstance(entry, dict) else None
            if isinstance(said, str) and said[:4].isdigit() and said >= since.isoformat():
                return True
    return False


def groups(topology: Topology) -> list[dict[str, Any]]:
    """Rule groups: each rule with the settings that differ from its defaults."""
    return [
        {
            "name": name,
            "rules": [
                {"id": rule.id, "about": " ".join((type(rule).__doc__ or "").split()), "severity": getattr(rule, "severity", ""),
                 "settings": rule.model_dump(mode="json", exclude={"id", "severity"}, exclude_defaults=True)}
                for rule in group.rules
            ],
        }
        for name, group in topology.vee.groups.items()
    ]  # fmt: skip


def maps(topology: Topology) -> list[dict[str, Any]]:
    """Time-of-use maps: their versions and the periods of each."""
    return [
        {"id": one.id, "zone": one.zone or "", "slot": clock(one.slot), "periods": one.periods(),
         "versions": [{"since": version.since, "text": yaml.safe_dump(version.model_dump(mode="json", by_alias=True, exclude_defaults=True),
                                                                      sort_keys=False, allow_unicode=True)} for version in one.versions]}
        for one in topology.determinants.maps
    ]  # fmt: skip
