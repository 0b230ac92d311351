"""The hash chain: what is whole passes, everything else shows."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from connectors.rights.chain import Head, verify
from schemas.audit import TEXTS, sealed
from streams.runtime.audit import Chain
from streams.runtime.state import State, Table


def chain(writer: str, count: int, follows: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        entry: dict[str, Any] = dict.fromkeys(TEXTS, "")
        entry |= {"at": 1000 + number, "start": 0, "end": 0, "sequence": number, "writer": writer, "actor": f"u{number}"}
        entry["previous"] = entries[-1]["hash"] if entries else ""
        if number == 1:
            entry["after"] = orjson.dumps({"follows": follows}).decode()
        entries.append({**entry, "hash": sealed(entry)})
    return entries


def end(entries: list[dict[str, Any]]) -> dict[str, Any]:
    last = entries[-1]
    return {"writer": last["writer"], "sequence": last["sequence"], "hash": last["hash"]}


def two_chains() -> list[dict[str, Any]]:
    first = chain("a", 5)
    return first + chain("b", 4, end(first))


def test_whole_chains_verify_in_any_order() -> None:
    found = verify(reversed(two_chains()), [Head(**end(chain("a", 5)))])

    assert (found.entries, found.chains, found.problems) == (9, 2, [])


@given(st.integers(0, 8), st.sampled_from([*TEXTS, "at", "sequence"]))
def test_any_change_of_any_field_shows(position: int, name: str) -> None:
    entries = two_chains()
    entries[position][name] = "x" if name in TEXTS else 77

    assert verify(entries).problems


@given(st.integers(0, 7))
def test_a_missing_entry_shows(position: int) -> None:
    entries = two_chains()
    del entries[position]

    assert verify(entries).problems


def test_the_last_entry_of_all_is_missed_by_who_knows_the_head() -> None:
    entries = two_chains()
    head = Head(**end(entries))

    assert verify(entries[:-1]).problems == []
    assert verify(entries[:-1], [head]).problems


def test_a_chain_that_is_gone_is_missed_by_the_next() -> None:
    assert verify(two_chains()[5:]).problems


def test_a_forged_entry_with_a_hash_of_its_own_does_not_fit_the_next() -> None:
    entries = two_chains()
    entries[2]["actor"] = "somebody else"
    entries[2]["hash"] = sealed(entries[2])

    assert verify(entries).problems == ["a 4: does not follow the entry before it"]


def test_remains_of_a_write_that_was_broken_off_are_no_loss() -> None:
    """Behind what the successor names as the end, entries may be missing: they were written again."""
    first = chain("a", 5)
    second = chain("b", 2, end(first[:3]))

    assert verify(first[:3] + first[4:] + second).problems == []
    assert verify(first[:2] + first[3:] + second).problems


def test_an_entry_outside_of_all_chains_shows() -> None:
    entry = chain("x", 1)[0]

    assert verify([*two_chains(), {**entry, "writer": "", "hash": ""}]).problems == ["1 entries are in no chain"]


def test_an_end_that_another_chain_has_named_is_missed() -> None:
    agents, hub = chain("vee-0-aa", 6), chain("hub", 2)
    named = {**hub[1], "action": "audit-heads", "after": orjson.dumps({"heads": [end(agents[:5])]}).decode()}
    named["hash"] = sealed(named)

    assert verify([*agents, hub[0], named]).problems == []
    assert verify([*agents[:5], hub[0], named]).problems == []
    assert verify([*agents[:4], hub[0], named]).problems == ["vee-0-aa 5: must be there and is not, or is another"]


def test_an_agent_goes_on_with_its_chain_after_a_restart() -> None:
    def body(number: int) -> dict[str, Any]:
        return {"id": f"id-{number}-0000000", "subject": "m1", "at": 5, "start": 1, "end": 2, "actor": "anna"}

    first = Chain(State(lambda _: Table({})), "vee", 3)
    told = [first.output(body(number)) for number in range(3)]
    state = State(lambda _: Table({}))
    state.load_all(dict(first.state.take_changed()))
    told += [Chain(state, "vee", 3).output(body(number)) for number in range(3, 5)]

    assert {one.partition for one in told} == {3}
    assert [one.body["sequence"] for one in told] == [1, 2, 3, 4, 5]
    assert {one.body["writer"] for one in told} == {"vee-3-id-0-000"}
    assert verify([one.body for one in told]).problems == []
    assert verify([one.body for one in told if one.body["sequence"] != 3]).problems
