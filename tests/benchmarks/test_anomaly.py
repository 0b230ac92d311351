"""The yardsticks of `mdh bench anomaly` themselves."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.anomaly import FAULTS, Meter, pr_auc, roc_auc, with_fault
from benchmarks.nab import Series, sigmoid, standard_score

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
