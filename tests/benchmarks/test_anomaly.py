"""The yardsticks of `mdh bench anomaly` themselves."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.anomaly import FAULTS, Judge, Meter, pr_auc, roc_auc, told_of, with_fault
from benchmarks.nab import LEAST, QUIET, Series, own, sigmoid, standard_score, told

TRUTH = np.array([False, False, True, False, True])


def test_areas_of_perfect_worthless_and_reversed_scores() -> None:
    assert roc_auc(TRUTH.astype(float), TRUTH) == pr_auc(TRUTH.astype(float), TRUTH) == 1.0
    assert roc_auc(np.zeros(5), TRUTH) == 0.5
    assert roc_auc(-TRUTH.astype(float), TRUTH) == 0.0
    assert pr_auc(np.array([5.0, 4, 3, 2, 1]), TRUTH) == pytest.approx((1 / 3 + 2 / 5) / 2)


def series(*windows: tuple[int, int], size: int = 1000) -> Series:
    return Series("s", np.arange(size) * 300, np.zeros(size), list(windows))


def test_nab_scores_nothing_and_perfection_as_published() -> None:
    one = series((400, 500), (800, 850))
    assert standard_score([one], [np.zeros(1000)]) == 0.0
    perfect = np.zeros(1000)
    perfect[[400, 800]] = 1.0
    assert standard_score([one], [perfect]) == pytest.approx(100.0)


def test_nab_takes_less_for_late_detections_and_for_false_ones() -> None:
    one = series((400, 500))

    def score(*points: int) -> float:
        got = np.zeros(1000)
        got[list(points)] = 1.0
        return standard_score([one], [got])

    assert score(400) > score(450) > score(499) > score()
    assert score(400) > score(400, 700) > score(400, 700, 900)
    assert score(400, 300) == pytest.approx(score(400) - 100 * 0.11 / 2)
    assert score(100, 400) == score(400)  # probation


def test_nabs_sigmoid() -> None:
    assert sigmoid(-1.0) == pytest.approx(0.98661, abs=1e-4)
    assert sigmoid(0.0) == 0.0
    assert sigmoid(4.0) == -1.0


def daily(seed: int = 1, days: int = 14) -> Series:
    rng = np.random.default_rng(seed)
    hours = np.arange(days * 288) * 300 % 86_400 / 3600
    values = 50 + 30 * (hours > 8) * (hours < 18) + rng.uniform(-2, 2, len(hours))
    return Series("daily", np.arange(len(hours)) * 300, values, [])


def test_a_day_without_its_course_breaks_the_records() -> None:
    one = daily()
    ordinary = told(own(one))
    quiet = slice(10 * 288 + 96, 10 * 288 + 216)
    one.values[quiet] = 50.0
    said = told(own(one))
    assert said[quiet].max() > max(0.5, ordinary[one.probation :].max())
    assert (said > 0)[one.probation : quiet.start].sum() == (ordinary > 0)[one.probation : quiet.start].sum()


def test_no_score_knows_what_comes() -> None:
    whole, other = daily(), daily(seed=2)
    cut = 7 * 288
    other.values[:cut] = whole.values[:cut]
    np.testing.assert_array_equal(own(whole)[:cut], own(other)[:cut])


def test_what_was_told_is_not_told_again_at_once() -> None:
    score = np.full(3 * QUIET, LEAST)
    score[[5, 6, 5 + QUIET, 6 + QUIET]] = 1.0
    assert np.flatnonzero(told(score) > 0).tolist() == [5, 6 + QUIET]


def test_clerks_decide_week_by_week_and_what_is_right_is_not_told_again() -> None:
    rng = np.random.default_rng(4)
    course = np.r_[np.full(7, 0.2), np.full(10, 0.6), np.full(7, 1.0)]
    loads = course * rng.uniform(0.8, 1.2, (120, 24))
    loads[60:] = np.roll(loads[60:], 8, axis=1)
    heard, deaf = Judge(), Judge()
    meter = Meter("m", 20_000, loads)
    right, unheard = told_of(heard, meter, decided=True), told_of(deaf, meter)
    assert min(right) == min(unheard) >= 60
    assert heard._labels.labels == len(right)
    assert deaf._labels.labels == 0
    assert len(heard.odds) == len(deaf.odds) == 120
    np.testing.assert_array_equal(heard.odds[:60], deaf.odds[:60])


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_change_their_days_only(fault: str) -> None:
    rng = np.random.default_rng(3)
    meter, other = (Meter(name, 20_000, rng.uniform(0.1, 1.0, (200, 24))) for name in "ab")
    made = with_fault(meter, [other], fault, rng)
    assert made is not None
    faulty, begin, end = made
    changed = np.flatnonzero((faulty.loads != meter.loads).any(axis=1))
    assert len(changed)
    assert begin <= changed.min()
    assert changed.max() < end
