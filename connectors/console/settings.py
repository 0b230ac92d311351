"""Rules and time-of-use maps as they are in force, and what a proposed topology.yaml would change."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Final

import yaml

from schemas.topology import Topology, TopologyError, parse_topology
from schemas.topology.tou import clock

MOST: Final = 1_000_000  # characters of a proposal


def text_of(topology: Topology) -> str:
    """All settings as YAML, those left out with their defaults: two files that say the same give the same text."""
    return str(yaml.safe_dump(topology.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True, width=120))


@dataclass(frozen=True, slots=True)
class Checked:
    """What is to be said of a proposal: why it cannot be used, or the lines that differ from what is in force."""

    error: str
    lines: list[str]


def check(topology: Topology, proposal: str) -> Checked:
    """Reads a proposal and compares it with what is in force."""
    if len(proposal) > MOST:
        return Checked(f"it is longer than {MOST} characters", [])
    try:
        proposed = parse_topology(proposal, "proposal")
    except TopologyError as error:
        return Checked(str(error), [])
    before, after = text_of(topology).splitlines(), text_of(proposed).splitlines()
    return Checked("", list(difflib.unified_diff(before, after, "in force", "proposed", lineterm="", n=4)))


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
