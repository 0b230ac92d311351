"""The insights agent: what it tells, what it learns, and that both follow from its inbox alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas import conditions
from schemas.block import EXCEPTION, OPEN
from streams.insights import kernel
from streams.insights.profiles import make_table
from tests.insights.kit import FIRST, Agent, Array, day_of

HISTORY = range(FIRST, FIRST + 90)
NEXT = HISTORY.stop
RNG = np.random.default_rng(11)


def experienced(**settings: Any) -> Agent:
    agent = Agent(**settings)
    agent.live(["m1"], HISTORY)
    assert agent.said == []
    return agent


def spike(values: Array) -> Array:
    values[10] = values.max() * 12
    return values


FAULTS = {
    " kWh at 05:00 where": spike,
    "The same value for 24 hours": lambda values: np.full(len(values), values[4]),
    "of the day's energy is negative": lambda values: -values,
    "Nothing for 24 hours": lambda values: values * 0,
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_is_told_once_in_words(words: str) -> None:
    agent = experienced()
    agent.days({("m1", NEXT): FAULTS[words](day_of(RNG))})
    (told,) = agent.said
    assert words in told["detail"]
    assert (told["rule"], told["severity"], told["status"], told["count"]) == ("anomaly", "info", "open", 1)
    assert (told["end"] - told["start"]).total_seconds() == 86_400
    assert told["payload"] == "p"


def test_what_was_expected_and_what_came_stands_in_the_detail() -> None:
    agent = experienced()
    values = day_of(RNG)
    values[:8] += 5.0
    agent.days({("m1", NEXT): values})
    (told,) = agent.said
    assert "00:00–04:00 carries" in told["detail"]
    assert "where" in told["detail"] or "instead of" in told["detail"]


def test_ordinary_days_say_nothing_for_a_year() -> None:
    agent = Agent()
    agent.live(["m1", "m2"], range(FIRST, FIRST + 365), seed=5)
    assert len(agent.said) <= 2


def test_a_bad_week_does_not_become_normal() -> None:
    agent = experienced(quiet_days=0)
    for day in range(NEXT, NEXT + 8):
        agent.days({("m1", day): np.full(48, 0.2)})
    assert len(agent.said) == 8
    agent.said.clear()
    agent.live(["m1"], range(NEXT + 8, NEXT + 20))
    assert agent.said == []
    agent.days({("m1", NEXT + 20): np.full(48, 0.2)})
    assert len(agent.said) == 1


def test_trouble_that_goes_on_is_told_once() -> None:
    agent = experienced()
    for day in range(NEXT, NEXT + 12):
        agent.days({("m1", day): np.full(48, 0.2)})
    assert len(agent.said) == 1


def test_what_lasts_becomes_normal_in_the_end() -> None:
    agent = experienced()
    agent.live(["m1"], range(NEXT, NEXT + kernel.PATIENCE + 150), level=60.0)
    told = len(agent.said)
    assert told >= 1
    agent.live(["m1"], range(NEXT + kernel.PATIENCE + 150, NEXT + kernel.PATIENCE + 200), level=60.0)
    assert len(agent.said) == told


@pytest.mark.parametrize(
    "options", [{"state": EXCEPTION}, {"condition": conditions.EST_INTERPOLATED}, {"state": OPEN}], ids=["exception", "estimated", "open"]
)
def test_days_that_are_not_measured_and_final_do_not_teach(options: dict[str, Any]) -> None:
    agent, other = experienced(), experienced()
    for day in range(NEXT, NEXT + 5):
        agent.days({("m1", day): day_of(RNG, 14.0)}, **options)
    for name in ("location", "spread", "memory", "shares", "fits", "scalars", "ages"):
        assert np.array_equal(agent.fold.state.table("p1800")[name], other.fold.state.table("p1800")[name]), name


def test_a_correction_takes_the_exception_back() -> None:
    agent = experienced()
    agent.days({("m1", NEXT): np.full(48, 0.2)}, version=3)
    agent.days({("m1", NEXT): day_of(RNG)}, version=4)
    first, second = agent.said
    assert (first["status"], second["status"]) == ("open", "superseded")
    assert first["id"] == second["id"]
    assert first["version"] < second["version"]
    agent.days({("m1", NEXT): day_of(RNG)}, version=5)
    assert len(agent.said) == 2


def test_a_repeated_strange_day_is_the_same_exception_with_a_later_version() -> None:
    agent = experienced()
    for version in (3, 4):
        agent.days({("m1", NEXT): np.full(48, 0.2)}, version=version)
    assert [told["version"] for told in agent.said] == [3, 4]
    assert len({told["id"] for told in agent.said}) == 1


def test_meters_without_history_are_judged_by_their_segment() -> None:
    agent = Agent()
    agent.live([f"m{n}" for n in range(10)], range(FIRST, FIRST + 20))
    agent.days({("new", FIRST + 20): day_of(RNG)})
    assert agent.said == []
    agent.days({("new", FIRST + 21): -day_of(RNG)})
    (told,) = agent.said
    assert told["device"] == "new"
    assert "comparable meters" in told["detail"]


def test_other_quantities_and_lengths_are_left_alone() -> None:
    agent = Agent()
    for day in range(FIRST, FIRST + 40):
        agent.days({("t", day): day_of(RNG)}, unit="C")
        agent.days({("d", day): np.array([5.0])}, seconds=86_400)
    assert agent.said == []
    assert agent.fold.state.tables == {}


def test_days_with_a_change_of_the_clock_are_ordinary_days() -> None:
    agent = Agent()
    first = 20_088 - 60  # the last Sunday of 2024 with daylight saving is day 20 023; 2025's first is 20 177
    for day in range(first, first + 160):
        count = 48 + 2 * (day == 20_023) - 2 * (day == 20_177)
        values = np.resize(day_of(np.random.default_rng(day)), count)
        agent.days({("m1", day): values})
    assert agent.said == []


def test_labels_change_what_is_told() -> None:
    def told(confirmed: bool | None) -> int:
        agent = experienced(quiet_days=0)
        for k in range(12):
            day = NEXT + 2 * k
            agent.days({("m1", day): spike(day_of(np.random.default_rng(k)))})
            if confirmed is not None and agent.said:
                about = {"exception": agent.said[-1]["id"], "device": "other", "channel": "1.8.0", "day": day, "confirmed": confirmed}
                agent.apply("Label", about)
            agent.live(["m1"], range(day + 1, day + 2))
        return len(agent.said)

    assert told(False) < told(None) <= told(True)


def test_unusual_but_right_becomes_the_channels_normal() -> None:
    agent = experienced(quiet_days=0)
    agent.days({("m1", NEXT): day_of(RNG, 60.0)})
    (told,) = agent.said
    agent.apply("Label", {"exception": told["id"], "device": "m1", "channel": "1.8.0", "day": NEXT, "confirmed": False})
    before = agent.fold.state.table("p1800")["ages"][0, 2]
    agent.days({("m1", NEXT + 1): day_of(RNG, 60.0)})
    assert agent.fold.state.table("p1800")["ages"][0, 2] == before + 1


def test_a_restored_agent_goes_on_as_the_one_that_was_never_stopped() -> None:
    agent = Agent(quiet_days=0)
    devices = [f"m{n}" for n in range(6)]
    agent.live(devices, range(FIRST, FIRST + 45))
    agent.days({(device, FIRST + 45): np.full(48, 0.3) for device in devices})
    agent.apply("Label", {"exception": agent.said[-1]["id"], "device": "x", "channel": "y", "day": FIRST, "confirmed": True})
    agent.commit()
    twin = agent.restored()
    assert twin.fold.state.digest() == agent.fold.state.digest()
    for one in (agent, twin):
        one.said.clear()
        one.live(devices, range(FIRST + 46, FIRST + 80), seed=2)
        one.days({(device, FIRST + 80): np.full(48, 0.3) for device in devices})
    assert agent.said == twin.said
    assert len(agent.said) >= len(devices)
    assert twin.fold.state.digest() == agent.fold.state.digest()


def test_it_does_not_matter_how_days_are_cut_into_blocks() -> None:
    """The segment's models see the same days only where no block has more than they look at."""
    days = {("m1", day): day_of(np.random.default_rng(day)) for day in range(FIRST, FIRST + 60)} | {("m1", FIRST + 60): np.full(48, 0.2)}
    whole, single = Agent(), Agent()
    whole.days(days)
    for key, values in days.items():
        single.days({key: values})
    assert [told["detail"] for told in whole.said] == [told["detail"] for told in single.said]
    assert len(whole.said) == 1


@pytest.mark.parametrize("seconds", [300, 900, 1800, 3600])
def test_a_channel_stays_small(seconds: int) -> None:
    table = make_table(f"p{seconds}")
    table.add(str(n) for n in range(10_000))
    assert table.nbytes() / table._capacity <= 2304


def test_a_warm_worker_compiles_nothing_more() -> None:
    kernel.warm()
    known = list(kernel.fold_days.signatures)
    agent = Agent()
    agent.live(["m1"], range(FIRST, FIRST + 2))
    assert kernel.fold_days.signatures == known
