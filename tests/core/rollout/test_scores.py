import numpy as np
from hypothesis import given, settings, strategies as st

from core.rollout.scores import summarize

SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_an_attempt_has_the_best_the_mean_and_the_sum_of_its_steps():
    assert summarize([0.25, 1.0, 0.25]) == {"best": 1.0, "mean": 0.5, "sum": 1.5}
    assert summarize([-3.0]) == {"best": -3.0, "mean": -3.0, "sum": -3.0}
    assert summarize([]) == {}


@settings(deadline=None)
@given(st.lists(SCORES, min_size=1))
def test_all_measures_are_finite(steps):
    summary = summarize(steps)
    assert np.isfinite(list(summary.values())).all()
    assert min(steps) <= summary["mean"] <= summary["best"] == max(steps)
