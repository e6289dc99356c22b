import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import binomtest, t

from core.rollout.intervals import MeanScore, Rate, interval_within

SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(("successes", "episodes"), [(0, 10), (10, 10), (5, 10), (96, 100)])
def test_intervals_are_wilsons(successes: int, episodes: int) -> None:
    expected = binomtest(successes, episodes).proportion_ci(0.95, method="wilson")
    interval = Rate(successes, episodes).interval
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_intervals_are_students():
    scores = [0.3, 0.9, 0.55, 0.7]
    expected = t(3, np.mean(scores), np.std(scores, ddof=1) / 2).interval(0.95)
    score = MeanScore.of(scores)
    assert (score.mean, score.attempts) == (pytest.approx(0.6125), 4)
    assert score.interval == pytest.approx(expected)


def test_attempts_of_one_score_have_no_interval():
    assert MeanScore.of([0.5]) == MeanScore(0.5, 1, None)
    assert MeanScore.of([0.5, 0.5]) == MeanScore(0.5, 2, None)


@settings(deadline=None)
@given(st.lists(SCORES, min_size=2))
def test_means_and_intervals_are_finite(attempts):
    score = MeanScore.of(attempts)
    assert (score.interval is None) == (len(set(attempts)) == 1)
    low, high = score.interval or (score.mean, score.mean)
    assert np.isfinite([score.mean, low, high]).all()
    assert low <= score.mean <= high


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=20))
def test_an_interval_has_a_width_and_stays_within_what_is_possible(values):
    low, high = interval_within(values, -5, 5)
    assert -5 <= low <= np.mean(values) <= high <= 5
    assert low < high
