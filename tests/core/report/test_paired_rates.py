"""How two success rates are compared."""

from math import comb

import pytest
from hypothesis import given, settings, strategies as st

from core.report.paired_rates import Pairs, difference_interval
from core.rollout.intervals import Rate


@given(alone=st.integers(0, 30), other=st.integers(0, 30), rest=st.integers(0, 30))
@settings(deadline=None)
def test_mcnemars_exact_test_is_that_of_a_fair_coin(alone, other, rest):
    unequal, fewer = alone + other, min(alone, other)
    tail = sum(comb(unequal, k) for k in range(fewer + 1)) / 2**unequal
    pairs = Pairs(rest, alone, other, 1)
    assert pairs.p_value == pytest.approx(min(1.0, 2 * tail))
    low, high = pairs.interval
    assert -1 <= low <= (other - alone) / pairs.count <= high <= 1


def test_intervals_are_those_that_newcombe_publishes():
    # 56 of 70 and 48 of 80, method 10 of his paper on independent proportions
    assert difference_interval(Rate(48, 80), Rate(56, 70)) == pytest.approx(
        (0.0524, 0.3339), abs=1e-4
    )
    # all pairs alike: the correlation leaves nothing of the difference but its own width
    low, high = Pairs(50, 0, 0, 50).interval
    assert -0.03 < low < 0 < high < 0.03
