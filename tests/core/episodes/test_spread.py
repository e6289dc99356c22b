"""A few of many episodes, spread evenly."""

from itertools import pairwise

from hypothesis import given, strategies as st

from core.episodes.spread import spread_evenly


@given(length=st.integers(0, 300), count=st.integers(2, 40))
def test_as_many_as_asked_for_with_both_ends(length: int, count: int) -> None:
    chosen = spread_evenly(length, count)
    assert len(chosen) == min(length, count)
    assert chosen == sorted(set(chosen))
    assert [*chosen[:1], *chosen[-1:]] == ([0, length - 1] if length else [])
    gaps = [after - before for before, after in pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_single_one_is_the_first() -> None:
    assert spread_evenly(5, 1) == [0]
