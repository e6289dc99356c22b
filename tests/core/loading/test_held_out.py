"""Which episodes are held out: of each task, of all, by name, or none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from core.errors import DataError
from core.loading.held_out import _last_of_each_task, _spread_over_all, hold_out
from core.recipe.sections import DataConfig
from core.store.store import EpisodeStore
from tests.factories import make_store


def held_out(store: EpisodeStore, **config: Any) -> list[int]:
    split = hold_out(store, DataConfig(path=store.path, **config))
    assert sorted([*split.training, *split.held_out]) == [*range(len(store))]
    return list(split.held_out.tolist())


def test_the_last_episodes_of_each_task(store: EpisodeStore) -> None:
    tasks = [store.task_name(episode) for episode in range(len(store))]
    assert tasks == ["reach", "push"] * 3
    assert held_out(store) == [4, 5]
    assert held_out(store, validation_episodes=2) == [2, 3, 4, 5]
    assert held_out(store, validation_episodes=0) == []


def test_a_share_of_each_task_or_of_all(store: EpisodeStore) -> None:
    assert held_out(store, validation_share=0.34) == [4, 5]
    assert held_out(store, validation_share=0.34, validation_over="all") == [2, 5]
    assert held_out(store, validation_episodes=3, validation_over="all") == [1, 3, 5]
    assert held_out(store, validation_share=0.01) == [5]  # at least one


def test_named_episodes(store: EpisodeStore) -> None:
    names = (store.episode_id(3), store.episode_id(0))
    assert held_out(store, validation_ids=names) == [0, 3]
    labelled = hold_out(
        store, DataConfig(path=store.path, validation_ids=(f"arm/{names[0]}", names[1])), "arm"
    )
    assert labelled.held_out.tolist() == [3]


def test_tasks_too_small_to_divide_are_trained_on(tmp_path: Path) -> None:
    """In a dataset with free annotations, nearly every episode has words of its own."""
    tasks = ("reach", "reach", "reach", "open")
    assert held_out(make_store(tmp_path / "some.zarr", episodes=4, tasks=tasks)) == [2]
    tasks = ("reach", "push", "open")
    assert held_out(make_store(tmp_path / "all.zarr", episodes=3, tasks=tasks)) == [2]


def test_something_must_be_left_to_train_on(tmp_path: Path) -> None:
    store = make_store(tmp_path / "one.zarr", episodes=1)
    with pytest.raises(DataError, match="its 1 episodes would all be held out"):
        held_out(store)
    assert held_out(store, validation_episodes=0) == []


@pytest.mark.parametrize("setting", [{"validation_share": 0.1}, {"validation_over": "all"}])
def test_names_and_numbers_exclude_each_other(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation_ids names the episodes"):
        DataConfig(path=Path("a.zarr"), validation_ids=("a",), **setting)


@given(
    tasks=st.lists(st.sampled_from("abc"), min_size=1, max_size=40),
    count=st.integers(0, 12),
    share=st.floats(0, 0.99),
)
def test_as_many_as_asked_for(tasks: list[str], count: int, share: float) -> None:
    config = DataConfig(
        path=Path("a.zarr"), validation_episodes=count, validation_share=share or 0.0
    )
    chosen = _last_of_each_task(np.array(tasks), config)
    for task in {*tasks}:
        of_task = chosen[np.array(tasks) == task]
        wanted = round(share * len(of_task)) if share else count
        expected = wanted if wanted < len(of_task) else 0
        assert of_task.tolist() == [False] * (len(of_task) - expected) + [True] * expected
    spread = _spread_over_all(len(tasks), config)
    wanted = max(1, round(share * len(tasks))) if share else min(count, len(tasks))
    assert spread.sum() == wanted
    gaps = np.diff(np.flatnonzero(spread))
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
