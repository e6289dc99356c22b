from math import isqrt

import numpy as np
from hypothesis import given, strategies as st

from core.loading.shuffle import permute, windows_at

MASK = 2**64 - 1


def mixed(x: int) -> int:
    """SplitMix64's finaliser in whole numbers of any size."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def sent(index: int, count: int, seed: int, epoch: int) -> int:
    """The permutation, one number at a time and without overflow."""
    a = isqrt(count - 1) + 1
    b = -(-count // a)
    key = mixed(mixed(seed & MASK) ^ epoch)
    right, left = divmod(index, a)
    for turn in range(0, 8, 2):
        left = (left + mixed(key + (turn << 48) + right)) % a
        right = (right + mixed(key + (turn + 1 << 48) + left)) % b
    index = right * a + left
    return index if index < count else sent(index, count, seed, epoch)


def epoch_of(count: int, seed: int, epoch: int) -> list[int]:
    """Where one epoch's permutation sends every number."""
    return permute(np.arange(count), count, seed, np.full(count, epoch)).tolist()


@given(st.integers(1, 500), st.integers(0, 2**64), st.integers(0, 10**9))
def test_an_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_of(count, seed, epoch)) == list(range(count))


@given(
    st.integers(1, 2**40),
    st.integers(0, 2**65),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=20),
)
def test_it_equals_whole_numbers_of_any_size_also_across_epochs(
    count: int, seed: int, positions: list[int]
) -> None:
    expected = [sent(position % count, count, seed, position // count) for position in positions]
    assert windows_at(np.array(positions), count, seed).tolist() == expected


def test_epochs_and_seeds_differ_and_the_order_is_fixed() -> None:
    orders = {(s, e): tuple(epoch_of(100, s, e)) for s in range(5) for e in range(5)}
    assert len(set(orders.values())) == 25
    assert orders[0, 0] + orders[0, 1] == tuple(windows_at(np.arange(200), 100, 0).tolist())


def test_the_shuffle_looks_random() -> None:
    """Each number comes first about equally often, and neighbours do not stay neighbours."""
    count, epochs = 11, 5500
    first = np.bincount(
        permute(np.zeros(epochs, int), count, 3, np.arange(epochs)), minlength=count
    )
    # chi-squared with 10 degrees of freedom, p = 0.001
    assert np.square(first - epochs / count).sum() / (epochs / count) < 29.6
    order = np.array(epoch_of(5000, 3, 0))
    assert abs(np.corrcoef(order, np.arange(5000))[0, 1]) < 0.05
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05


def test_the_order_does_not_change_between_versions() -> None:
    """A run resumed after an upgrade must see the windows that it would have seen."""
    assert windows_at(np.arange(6), 1000, 42).tolist() == [207, 468, 897, 959, 698, 510]
