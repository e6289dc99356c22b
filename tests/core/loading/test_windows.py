from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError
from core.loading.windows import Windows, split_by_task
from core.store.store import EpisodeStore
from tests.factories import make_store


@pytest.mark.parametrize("stride", [1, 3, 100])
def test_windows_start_everywhere_by_stride(store: EpisodeStore, stride: int) -> None:
    windows = Windows(store, [4, 1], window=4, horizon=3, stride=stride)
    expected = [(e, start) for e in (4, 1) for start in range(0, int(store.length[e]), stride)]
    episodes, starts = windows.locate(np.arange(len(windows)))
    assert list(zip(episodes.tolist(), starts.tolist(), strict=True)) == expected


def test_no_episodes_are_an_error(store: EpisodeStore) -> None:
    with pytest.raises(DataError, match="no episodes are selected"):
        Windows(store, [], window=4, horizon=3)


def test_the_last_episodes_of_each_task_validate(store: EpisodeStore) -> None:
    training, validation = split_by_task(store, 1)
    assert (training.tolist(), validation.tolist()) == ([0, 1, 2, 3], [4, 5])
    assert split_by_task(store, 0)[1].size == 0


def test_a_task_with_too_few_episodes_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", episodes=4, tasks=("reach", "reach", "reach", "open"))
    with pytest.raises(
        DataError, match="task 'open' has 1 episodes, of which 1 are to be held out"
    ):
        split_by_task(store, 1)
