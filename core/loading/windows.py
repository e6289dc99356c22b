"""Windows: which frames of an episode a sample covers."""

from collections.abc import Sequence

import numpy as np

from core.errors import DataError
from core.store.store import EpisodeStore


class Windows:
    """Windows of `window` frames (T); frame t's targets are the `horizon` actions (H) from t on.

    Windows start at every `stride`-th frame of the selected episodes, up to the last frame. Past an
    episode's end, the last frame is repeated and the repeated actions are masked, as in RoboVLMs.

    reach: (T H), how many frames after the window's start each target action comes.

    Raises DataError if no episode is selected.
    """

    def __init__(
        self,
        store: EpisodeStore,
        episodes: Sequence[int] | np.ndarray,
        window: int,
        horizon: int,
        stride: int = 1,
    ) -> None:
        self.store = store
        self.episodes = np.asarray(episodes, np.int64)
        self.window = window
        self.horizon = horizon
        self.stride = stride
        if len(self.episodes) == 0:
            raise DataError(
                f"{store.path}: no episodes are selected; import some, or hold out fewer"
            )
        self.reach = np.arange(window)[:, None] + np.arange(horizon)
        counts = -(-store.length[self.episodes] // stride)
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the episodes (n) of windows (n), and the frames (n) at which the windows start."""
        rows = np.searchsorted(self._ends, indices, "right")  # indices into `episodes`
        return self.episodes[rows], (indices - self._begins[rows]) * self.stride


def split_by_task(store: EpisodeStore, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Split episodes into (training, validation): each task's last `held_out` are for validation.

    Raises DataError if a task would have nothing left to train on.
    """
    tasks = np.array([store.task_name(episode) for episode in range(len(store))])
    validation = np.zeros(len(store), bool)
    for name in np.unique(tasks):
        of_task = np.flatnonzero(tasks == name)
        if len(of_task) <= held_out:
            raise DataError(
                f"{store.path}: task '{name}' has {len(of_task)} episodes, of which {held_out} "
                "are to be held out; hold out fewer or import more"
            )
        validation[of_task[len(of_task) - held_out :]] = True
    return np.flatnonzero(~validation), np.flatnonzero(validation)
