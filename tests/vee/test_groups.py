"""Groups: eligibility, effective dates, nested groups, matrices and entries that steer; and what topology.yaml is told of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import schemas
from schemas.block import EXCEPTION, FINALIZED
from schemas.conditions import SUSPECT, USER_EDIT
from schemas.topology.loader import TopologyError, parse_topology
from schemas.topology.presets import PRESETS
from schemas.topology.vee import VeeSettings
from tests.vee.driver import Hub, interval_row

START = 19_800 * 86_400
SPIKES = {"id": "interval-spike", "severity": "issue"}
NEGATIVE = {"id": "negative-consumption", "severity": "info"}
ODD = [-1.0] + [1.0] * 40 + [500.0] + [1.0] * 54


def run(*rules: dict[str, Any], groups: dict[str, Any] | None = None, values: list[float] | None = None, **row: Any) -> Hub:
    more = {name: {"rules": held} for name, held in (groups or {}).items()}
    hub = Hub(VeeSettings.model_validate({"groups": {"initial-load": {"rules": list(rules)}} | more}))
    hub.send(interval_row(START, values or ODD, **row))
    return hub


def state(hub: Hub) -> int:
    return int(next(iter(hub.days.values())).state[0])


@pytest.mark.parametrize(
    ("steps", "otherwise", "found"),
    [
        ([], "apply", True),
        ([{"devices": ["M*"], "then": "skip"}], "apply", False),
        ([{"devices": ["X*"], "then": "skip"}], "apply", True),
        ([{"devices": ["X*"]}], "skip", False),
        ([{"channels": ["E?"], "units": ["kWh"], "seconds": [900]}], "skip", True),
        ([{"channels": ["E?"], "units": ["m3"]}], "skip", False),
        ([{"seconds": [1800], "then": "next", "otherwise": "skip"}], "apply", False),
        ([{"zones": ["UTC"], "then": "next", "otherwise": "skip"}, {"devices": ["M1"], "then": "skip"}], "apply", False),
        ([{"accounts": [""], "then": "skip"}], "apply", False),
        ([{"accounts": ["?*"], "then": "skip"}], "apply", True),
        ([{"negative_allowed": True}], "skip", False),
        ([{"quantities": ["energy"], "directions": ["none"]}], "skip", True),
    ],
)
def test_eligibility_decides_step_by_step(steps: list[dict[str, Any]], otherwise: str, found: bool) -> None:
    hub = run(SPIKES | {"eligibility": steps, "otherwise": otherwise})
    assert hub.rules() == (["interval-spike"] if found else [])


@pytest.mark.parametrize(
    ("dates", "found"),
    [
        ({"effective_from": "2024-03-18"}, True),
        ({"effective_from": "2024-03-19"}, False),
        ({"effective_to": "2024-03-18"}, False),
        ({"effective_to": "2024-03-19"}, True),
    ],
)
def test_effective_dates_are_tested_against_the_start_of_the_day(dates: dict[str, str], found: bool) -> None:
    assert run(SPIKES | dates).rules() == (["interval-spike"] if found else [])  # the day is 2024-03-18


def test_a_group_runs_another_in_its_place_where_it_is_eligible() -> None:
    inner = {"spikes": [SPIKES]}
    assert run({"id": "execute-group", "group": "spikes"}, groups=inner).rules() == ["interval-spike"]
    skipped = {"id": "execute-group", "group": "spikes", "eligibility": [{"devices": ["M1"], "then": "skip"}]}
    assert run(skipped, groups=inner).rules() == []


def test_a_matrix_runs_the_group_of_its_first_line_that_fits() -> None:
    lines = [
        {"devices": ["M1"], "effective_to": "2024-01-01", "group": "negative"},
        {"devices": ["M1"], "group": "spikes"},
        {"devices": ["M2"], "group": "negative"},
    ]
    matrix = {"id": "group-matrix", "matrix": lines}
    inner = {"spikes": [SPIKES], "negative": [NEGATIVE]}
    assert run(matrix, groups=inner).rules() == ["interval-spike"]
    assert run(matrix, groups=inner, device="M2").rules() == ["negative-consumption"]
    assert run(matrix, groups=inner, device="M3").rules() == []
    assert run(matrix | {"default": "negative"}, groups=inner, device="M3").rules() == ["negative-consumption"]


def test_an_exception_handler_ends_what_has_too_many_exceptions() -> None:
    handler = {"id": "exception-handler", "exceptions": ["interval-spike", "negative-consumption"], "at_least": 2}
    both = run(NEGATIVE, SPIKES | {"severity": "info"}, handler, {"id": "zero-consumption"})
    assert state(both) == EXCEPTION
    one = run(NEGATIVE, SPIKES | {"severity": "info"}, handler, values=[-1.0] + [1.0] * 95)
    assert state(one) == FINALIZED


def test_successful_termination_ends_what_has_only_listed_exceptions() -> None:
    early = {"id": "successful-termination", "exceptions": ["interval-spike"], "without_any": False}
    spiky = [1.0] * 40 + [500.0] + [1.0] * 55
    hub = run(SPIKES, early, {"id": "consecutive-interval", "value": "> 0", "min_run": "1h", "each_day": True}, values=spiky)
    assert state(hub) == FINALIZED
    assert hub.rules() == ["interval-spike"]  # what stands behind did not run
    day = next(iter(hub.days.values()))
    assert int(day.conditions[40]) == SUSPECT
    assert state(run(NEGATIVE, SPIKES, early)) == EXCEPTION


def vee(text: str) -> str:
    whole = (Path(schemas.__file__).parent.parent / "topology.yaml").read_text()
    begin, end = whole.index("\nvee:\n"), whole.index("\ndeterminants:\n")
    return whole[:begin] + "\nvee:\n" + text + whole[end:]


GROUPS = """  groups:
    initial-load:
      rules:
        - {id: interval-size}
        - id: execute-group
          group: %s
    a:
      rules: [{id: execute-group, group: %s}]
    b:
      rules: [{id: group-matrix, matrix: [{group: %s}]}]
    c: {rules: [{id: execute-group, group: d}]}
    d: {rules: [{id: execute-group, group: e}]}
    e: {rules: [{id: interval-spike}]}
"""


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (("nowhere", "c", "c"), "groups.initial-load.rules[1].group: there is no group 'nowhere'"),
        (("a", "b", "a"), "in a circle: a → b → a"),
        (("a", "b", "c"), "deep, 5 is the most"),
    ],
)
def test_groups_that_cannot_run_are_named_with_their_line(groups: tuple[str, str, str], says: str) -> None:
    text = vee(GROUPS % groups)
    with pytest.raises(TopologyError) as caught:
        parse_topology(text)
    lines = [line for line in str(caught.value).splitlines() if says in line]
    assert lines
    number = int(lines[0].split(":")[1])
    assert groups[0 if "initial" in says or "deep" in says else 1] in text.splitlines()[number - 1]


def test_groups_at_the_deepest_that_is_allowed_run() -> None:
    parse_topology(vee(GROUPS % ("b", "c", "c")))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("  roles: {initial-load: initial-load, estimation: none}\n", "vee.roles.estimation: there is no group 'none'"),
        ("  groups: {initial-load: {rules: [{id: exception-handler, exceptions: [spike]}]}}\n", "there is no rule 'spike'"),
        ("  preset: mars\n", "vee.preset: must be"),
        ("  groups: {initial-load: {rules: [{id: interval-spike, eligibility: [{then: maybe}]}]}}\n", "then: must be"),
        ("  groups: {initial-load: {rules: [{id: group-matrix, matrix: []}]}}\n", "matrix"),
    ],
)
def test_mistakes_are_named(text: str, says: str) -> None:
    with pytest.raises(TopologyError, match=r"topology\.yaml:[0-9]+: ") as caught:
        parse_topology(vee(text))
    assert says in str(caught.value)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_groups_that_run(preset: str) -> None:
    settings = VeeSettings.model_validate({"preset": preset}).check()
    hub = Hub(settings)
    gap: list[float | None] = [*[1.0] * 40, None, None, None, None, *[1.0] * 52]
    hub.send(interval_row(START, gap))
    filled = int((next(iter(hub.days.values())).conditions > 300_000).sum())
    assert filled == (92 if preset == "germany" else 96)  # an hour is four quarter hours, and Germany interpolates three


def test_a_group_written_out_replaces_that_of_the_preset() -> None:
    settings = VeeSettings.model_validate({"preset": "california", "groups": {"fill": {"rules": [{"id": "interval-interpolation"}]}}})
    ids = [rule.id for rule in settings.rules_of().rules]
    assert "sum-check" in ids
    assert "like-day-average" not in ids


def test_a_day_with_an_edit_from_the_source_is_one_of_manual_override() -> None:
    settings = VeeSettings.model_validate({"preset": "california"})
    hub = Hub(settings)
    hub.send(interval_row(START, [*ODD[1:], 1.0], codes=[USER_EDIT] + [500_000] * 95))
    assert hub.rules() == []


def test_a_role_without_its_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"roles\.initial-load: there is no group 'other'"):
        Hub(VeeSettings.model_validate({"roles": {"initial-load": "other"}}))
