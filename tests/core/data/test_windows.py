from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from core.data.store import EpisodeStore
from core.data.windows import Windows, shuffled, split_by_task, window_at
from core.errors import DataError
from tests.factories import make_store


@given(st.integers(1, 500), st.integers(0, 2**64), st.integers(0, 10**9))
def test_an_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(i, count, seed, epoch) for i in range(count)) == list(range(count))


@given(st.integers(1, 2**40), st.integers(0, 2**32), st.integers(0, 2**40))
def test_positions_of_huge_sets_stay_inside(count: int, seed: int, position: int) -> None:
    assert 0 <= window_at(position, count, seed) < count


def test_epochs_and_seeds_differ_and_the_order_is_fixed() -> None:
    orders = {(s, e): tuple(shuffled(i, 100, s, e) for i in range(100)) for s in range(5) for e in range(5)}
    assert len(set(orders.values())) == 25
    assert orders[0, 0][:5] == tuple(window_at(i, 100, 0) for i in range(5))
    assert orders[0, 1][:5] == tuple(window_at(100 + i, 100, 0) for i in range(5))


def test_the_shuffle_looks_random() -> None:
    """Over many epochs each number comes first about equally often, and neighbours do not stay neighbours."""
    count, epochs = 11, 5500
    first = np.bincount([shuffled(0, count, 3, epoch) for epoch in range(epochs)], minlength=count)
    assert np.square(first - epochs / count).sum() / (epochs / count) < 29.6  # chi-squared, 10 degrees, p = 0.001
    order = np.array([shuffled(i, 5000, 3, 0) for i in range(5000)])
    assert abs(np.corrcoef(order, np.arange(5000))[0, 1]) < 0.05
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05


def test_the_order_does_not_change_between_versions() -> None:
    """A run resumed after an upgrade must see the windows that it would have seen."""
    assert [window_at(i, 1000, 42) for i in range(6)] == [207, 468, 897, 959, 698, 510]


@pytest.mark.parametrize("stride", [1, 3, 100])
def test_windows_start_everywhere_by_stride(store: EpisodeStore, stride: int) -> None:
    windows = Windows(store, [4, 1], window=4, horizon=3, stride=stride)
    expected = [(e, start) for e in (4, 1) for start in range(0, int(store.length[e]), stride)]
    assert [windows.locate(i) for i in range(len(windows))] == expected


def test_no_episodes_are_an_error(store: EpisodeStore) -> None:
    with pytest.raises(DataError, match="no episodes are selected"):
        Windows(store, [], window=4, horizon=3)


def test_the_last_episodes_of_each_task_validate(store: EpisodeStore) -> None:
    training, validation = split_by_task(store, 1)
    assert (training.tolist(), validation.tolist()) == ([0, 1, 2, 3], [4, 5])
    assert split_by_task(store, 0)[1].size == 0


def test_a_task_with_too_few_episodes_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", episodes=4, tasks=("reach", "reach", "reach", "open"))
    with pytest.raises(DataError, match="task 'open' has 1 episodes, of which 1 are to be held out"):
        split_by_task(store, 1)
