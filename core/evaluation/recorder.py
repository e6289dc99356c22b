"""Records each task's first success and first failure as .npz files, for people to look at."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.episodes.episode import ActionConvention, StoreInfo
from core.evaluation.files import write_arrays
from core.rollout.attempt import Attempt, FinishedRollout
from core.rollout.plan import PlannedAttempt, PlannedRollout, planned_rollout
from core.rollout.results import STANDARD, EpisodeResult, Result


class RolloutRecorder:
    """Keeps each task's first success and first failure under the standard condition.

    "First" means first in the plan, so that the recordings depend neither on the number of parallel
    attempts nor on interruptions. A recording is written as soon as its attempt ends, and is
    replaced if an attempt that comes earlier in the plan ends later.

    folder: where the recordings are written.
    results: results of the attempts that had ended before an interruption; if one of them had to
        be recorded, its recording exists already.
    """

    def __init__(
        self,
        folder: Path,
        plan: Sequence[PlannedRollout],
        results: Sequence[Result],
        info: StoreInfo,
    ) -> None:
        self._folder, self._info = folder, info
        self._position = {planned: position for position, planned in enumerate(plan)}
        self._recorded: dict[tuple[str, bool], int] = {}  # {(task, success): position in the plan}
        for result in results:
            if isinstance(result, EpisodeResult):
                self._remember_if_first(result)

    def should_record(self, attempt: PlannedAttempt) -> bool:
        """Return whether an attempt must be recorded: it may be a first success or failure."""
        if attempt.condition != STANDARD:
            return False
        behind_all = len(self._position)
        recorded = [
            self._recorded.get((attempt.task, success), behind_all) for success in (True, False)
        ]
        return self._position[attempt] < max(recorded)

    def save(self, finished: FinishedRollout) -> None:
        """Write a recorded attempt if it is its task's first success or failure so far."""
        result, attempt = finished.result, finished.recorded_attempt
        if attempt is None or not isinstance(result, EpisodeResult):
            return
        if self._remember_if_first(result):
            write_rollout(self._folder, result, attempt, self._info)

    def _remember_if_first(self, result: EpisodeResult) -> bool:
        """Return whether a result is its task's first success or failure so far; if so, note it."""
        if result.condition != STANDARD or result.failure is not None:
            return False
        kind, position = (result.task, result.success), self._position[planned_rollout(result)]
        self._recorded[kind] = min(position, self._recorded.get(kind, position))
        return self._recorded[kind] == position


def write_rollout(folder: Path, result: EpisodeResult, attempt: Attempt, info: StoreInfo) -> None:
    """Write FOLDER/<task>-success.npz or <task>-failure.npz with what the policy saw.

    Arrays: `camera/<name>` (n Y X C) uint8, `gripper` (n), and the result's `task`, `instruction`,
    `seed` and `success`.
    """
    task = re.sub(r"[^A-Za-z0-9._-]", "_", result.task)
    name = f"{task}-{'success' if result.success else 'failure'}.npz"
    arrays = {
        f"camera/{camera}": np.stack([frame.images[camera] for frame in attempt.frames])
        for camera in info.cameras
    }
    opening = gripper_opening(np.stack(attempt.commands), info.action)
    arrays["gripper"] = opening.astype(np.float32)
    for key in ("task", "instruction", "seed", "success"):
        arrays[key] = np.array(getattr(result, key))
    write_arrays(folder / name, arrays)


def gripper_opening(commands: np.ndarray, action: ActionConvention) -> np.ndarray:
    """Return how far commands (n A) open the first gripper (n): 0 closed, 1 open.

    All values are NaN if there is no gripper.
    """
    if not action.grippers:
        return np.full(len(commands), np.nan)
    gripper = action.grippers[0]
    command = commands[:, gripper.dimension]
    opening: np.ndarray = (command - gripper.closed) / (gripper.open - gripper.closed)
    return opening.clip(0, 1)
