"""Which episodes are held out for validation."""

from dataclasses import dataclass

import numpy as np

from core.errors import DataError
from core.recipe.sections import DataConfig
from core.store.store import EpisodeStore


@dataclass(frozen=True)
class Split:
    """The episodes of a store, divided into those to train on and those that are held out.

    training, held_out: indices of episodes, each in rising order.
    """

    training: np.ndarray
    held_out: np.ndarray


def hold_out(store: EpisodeStore, config: DataConfig, label: str = "") -> Split:
    """Divide a store's episodes as the recipe's `data.validation_...` say.

    label: begins the ids of the store's episodes, if the recipe has several stores.

    Raises DataError if nothing would be left to train on.
    """
    if not len(store):
        raise DataError(f"{store.path}: holds no episodes; import some")
    if config.validation_ids:
        held_out = np.array(
            [name in config.validation_ids for name in episode_ids(store, label)], bool
        )
    else:
        tasks = np.array([store.task_name(episode) for episode in range(len(store))])
        held_out = _last_of_each_task(tasks, config)
        if config.validation_over == "all" or not held_out.any():
            held_out = _spread_over_all(len(store), config)
    if held_out.all():
        raise DataError(
            f"{store.path}: its {len(store)} episodes would all be held out for validation; import "
            "more, hold out fewer, or none with data.validation_episodes = 0"
        )
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out))


def episode_ids(store: EpisodeStore, label: str = "") -> list[str]:
    """Return the ids of a store's episodes as `data.validation_ids` names them."""
    ids = map(store.episode_id, range(len(store)))
    return [f"{label}/{name}" if label else name for name in ids]


def _last_of_each_task(tasks: np.ndarray, config: DataConfig) -> np.ndarray:
    """Return which episodes (n) are among the last of their task (n).

    A task that has no more episodes than are to be held out gives none.
    """
    held_out = np.zeros(len(tasks), bool)
    for task in np.unique(tasks):
        of_task = np.flatnonzero(tasks == task)
        count = _count(len(of_task), config)
        if count < len(of_task):
            held_out[of_task[len(of_task) - count :]] = True
    return held_out


def _spread_over_all(total: int, config: DataConfig) -> np.ndarray:
    """Return which of all episodes are held out: they are spread evenly, and the last is one."""
    count = min(_count(total, config), total)
    if config.validation_share:
        count = max(1, count)
    held_out = np.zeros(total, bool)
    held_out[(np.arange(count) + 1) * total // max(1, count) - 1] = True
    return held_out


def _count(total: int, config: DataConfig) -> int:
    """Return how many of `total` episodes are to be held out."""
    if config.validation_share:
        return round(config.validation_share * total)
    return config.validation_episodes
