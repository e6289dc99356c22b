"""Reads the recorded attempts of a run: films, and arrays of frames that earlier versions wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import DataError
from core.evaluation.film_files import read_film
from core.evaluation.results_log import recorded_rollouts
from core.report.film_strips import choose_steps
from core.report.run_files import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    TEXT,
    evaluation_folder,
    get_array,
    read_arrays,
)


@dataclass(frozen=True)
class Rollout:
    """A recorded attempt.

    steps: the indices of the frames that are shown, among all frames (k).
    images: {camera: (k Y X 3) uint8} at these steps.
    gripper: opening of the gripper at every frame (n), from 0 (closed) to 1 (open); None if there
        is no gripper.
    """

    task: str
    instruction: str
    seed: int
    success: bool
    steps: Sequence[int]
    images: Mapping[str, np.ndarray]
    gripper: np.ndarray | None


def rollout_files(folder: Path) -> list[Path]:
    """Return the files of the recorded attempts of a run or an evaluation, sorted by name."""
    return recorded_rollouts(evaluation_folder(folder))


def read_rollout(path: Path) -> Rollout:
    """Read a recorded attempt; raises DataError if the file is damaged."""
    if path.suffix == ".npz":
        return _read_frames(path)
    film = read_film(path, choose_steps)
    facts = film.facts
    return Rollout(
        task=facts.task,
        instruction=facts.instruction,
        seed=facts.seed,
        success=facts.success,
        steps=film.steps,
        images=film.images,
        gripper=None if facts.gripper is None else np.array(facts.gripper).clip(0, 1),
    )


def _read_frames(path: Path) -> Rollout:
    """Read an attempt that was recorded by an earlier version."""
    arrays = read_arrays(path)
    gripper = get_array(path, arrays, "gripper", 1, NUMBER).astype(np.float64)
    images = {
        name.removeprefix("camera/"): array
        for name, array in arrays.items()
        if name.startswith("camera/")
    }
    are_images = all(
        x.ndim == 4 and x.shape[-1] == 3 and x.size and x.dtype == np.uint8 for x in images.values()
    )
    if not (images and are_images and all(len(x) == len(gripper) for x in images.values())):
        raise DataError(
            f"{path}: expected camera/NAME (n Y X 3) uint8 and gripper (n); evaluate the run again"
        )
    steps = choose_steps(len(gripper))
    return Rollout(
        task=str(get_array(path, arrays, "task", 0, TEXT)),
        instruction=str(get_array(path, arrays, "instruction", 0, TEXT)),
        seed=int(get_array(path, arrays, "seed", 0, INTEGER)),
        success=bool(get_array(path, arrays, "success", 0, BOOLEAN)),
        steps=steps,
        images={name: frames[steps] for name, frames in images.items()},
        gripper=None if np.isnan(gripper).all() else np.nan_to_num(gripper).clip(0, 1),
    )
