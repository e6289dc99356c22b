"""Ways of training compared over their seeds: Student's t, pairs, and Holm's correction."""

from dataclasses import replace

import pytest
from scipy import stats

from core.report.over_seeds import compare, compare_pairs, estimate, holm


def test_comparisons_are_paired_t_tests():
    base, other = [0.8, 0.9, 0.7, 0.85, 0.9], [0.6, 0.8, 0.65, 0.6, 0.7]
    (comparison,) = compare(base, {"other": other})
    expected = stats.ttest_rel(other, base)
    assert comparison.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert comparison.difference.low == pytest.approx(interval.low)
    assert comparison.difference.high == pytest.approx(interval.high)
    assert comparison.verdict == "worse"
    assert replace(comparison, p=0.06).verdict == "no difference shown"


def test_seeds_without_spread_need_no_division_by_zero():
    same, lower = compare([0.5, 0.6], {"same": [0.5, 0.6], "lower": [0.25, 0.35]})
    assert (same.p, same.verdict) == (1.0, "no difference shown")
    assert lower.difference.mean == pytest.approx(-0.25)
    # two coins fall alike every second time; corrected for two comparisons
    assert lower.p == 1.0
    (lower,) = compare([0.5] * 7, {"lower": [0.25] * 7})
    assert (lower.p, lower.verdict) == (2**-6, "worse")
    assert estimate([1.0, 1.0, 1.0]).low == 1.0


def test_holm():
    # the example of Holm's procedure: the smallest times 3, the next times 2, never falling
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_each_way_has_its_own_seeds_in_common_with_the_baseline():
    pairs = {"two": ([0.1, 0.5], [0.3, 0.4]), "three": ([0.1, 0.5, 0.2], [0.3, 0.4, 0.9])}
    two, three = compare_pairs(pairs)
    assert two.difference.mean == pytest.approx(0.05)
    p = stats.ttest_rel(*reversed(pairs["three"])).pvalue
    assert three.p == pytest.approx(2 * p)
    assert three.difference.mean == pytest.approx(0.8 / 3)
