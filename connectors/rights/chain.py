"""The hash chains of the audit: how what is found is verified.

Every hub process that writes has a chain of its own, and so has every partition of an agent. The first entry of a process's chain names
the last acknowledged entry of the chain before it at the same place; from time to time a process also names the ends of all other chains.
So a changed, missing or added entry shows, and so does a chain that is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from schemas.audit import sealed

BEGINS: Final = "audit-begins"
ANCHOR: Final = "audit-heads"  # names ends of other chains


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a chain that is surely kept."""

    writer: str
    sequence: int
    hash: str


@dataclass
class Verdict:
    """What came of a verification."""

    entries: int = 0
    chains: int = 0
    unchained: int = 0
    problems: list[str] = field(default_factory=list)


def verify(entries: Iterable[Mapping[str, Any]], heads: Iterable[Head] = ()) -> Verdict:
    """Holds entries against their chains. ``heads`` are entries that must be there, as writers know them. Order does not matter.

    Every entry belongs to a chain: one without a writer was put there by somebody else.
    """
    verdict = Verdict()
    chains: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for entry in entries:
        verdict.entries += 1
        if not entry["writer"]:
            verdict.unchained += 1
            continue
        known = chains[entry["writer"]].setdefault(int(entry["sequence"]), entry)
        if known["hash"] != entry["hash"]:
            verdict.problems.append(f"{entry['writer']} {entry['sequence']}: two different entries")
        if sealed(entry) != entry["hash"]:
            verdict.problems.append(f"{entry['writer']} {entry['sequence']}: was changed, its hash does not fit")
    if verdict.unchained:
        verdict.problems.append(f"{verdict.unchained} entries are in no chain")
    verdict.chains = len(chains)
    followed = _followed(chains)
    for writer, chain in sorted(chains.items()):
        verdict.problems += _broken(writer, chain, followed.get(writer))
    for head in [*followed.values(), *_anchored(chains), *heads]:
        kept = chains.get(head.writer, {}).get(head.sequence)
        if kept is None or kept["hash"] != head.hash:
            verdict.problems.append(f"{head.writer} {head.sequence}: must be there and is not, or is another")
    return verdict


def _anchored(chains: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[Head]:
    """The ends of chains as others have named them since."""
    found = []
    for chain in chains.values():
        for entry in chain.values():
            if entry["action"] == ANCHOR:
                with suppress(ValueError, KeyError, TypeError):  # it was changed, which its hash tells
                    found += [Head(one["writer"], int(one["sequence"]), one["hash"]) for one in orjson.loads(entry["after"])["heads"]]
    return found


def _followed(chains: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Head]:
    """The ends of chains as their successors name them."""
    found = {}
    for chain in chains.values():
        first = chain.get(1)
        if first is None or not first["after"]:
            continue
        try:
            follows = orjson.loads(first["after"])["follows"]
            if follows:
                found[follows["writer"]] = Head(follows["writer"], int(follows["sequence"]), follows["hash"])
        except (ValueError, KeyError, TypeError):
            continue  # it was changed, which its hash tells
    return found


def _broken(writer: str, chain: Mapping[int, Mapping[str, Any]], end: Head | None) -> list[str]:
    """What is wrong with the links of one chain. Behind a gap that lies behind its named end are remains of a write that was broken off."""
    problems, previous, last = [], "", 0
    for sequence in sorted(chain):
        if sequence != last + 1:
            if end is None or last < end.sequence:
                problems.append(f"{writer}: {last + 1} to {sequence - 1} are missing")
            break
        if chain[sequence]["previous"] != previous:
            problems.append(f"{writer} {sequence}: does not follow the entry before it")
        previous, last = chain[sequence]["hash"], sequence
    return problems
