import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import t

from core.rollout.scores import MeanScore, summarize

SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_an_attempt_has_the_best_the_mean_and_the_sum_of_its_steps():
    assert summarize([0.25, 1.0, 0.25]) == {"best": 1.0, "mean": 0.5, "sum": 1.5}
    assert summarize([-3.0]) == {"best": -3.0, "mean": -3.0, "sum": -3.0}
    assert summarize([]) == {}


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
@given(st.lists(SCORES, min_size=1), st.lists(SCORES, min_size=2))
def test_all_numbers_are_finite(steps, attempts):
    summary = summarize(steps)
    assert np.isfinite(list(summary.values())).all()
    assert min(steps) <= summary["mean"] <= summary["best"] == max(steps)
    score = MeanScore.of(attempts)
    assert (score.interval is None) == (len(set(attempts)) == 1)
    low, high = score.interval or (score.mean, score.mean)
    assert np.isfinite([score.mean, low, high]).all()
    assert low <= score.mean <= high
