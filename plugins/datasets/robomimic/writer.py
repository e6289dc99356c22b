"""Writes episodes into an HDF5 file that robomimic can read."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from annotated_types import Ge

from core import DataError, import_optional
from core.episodes import Episode, StoreInfo
from core.formats import dimension_names
from plugins.datasets.robomimic.file import TolerantFile
from plugins.datasets.robomimic.sidecar import (
    EpisodeSidecar,
    Sidecar,
    write_episode_sidecar,
    write_sidecar,
)

GYM = 2  # robomimic's code for environments that do not belong to robosuite
PROPRIO = "proprio"
T = TypeVar("T")


@dataclass(frozen=True)
class RobomimicWriterConfig:
    """How images are compressed, and further settings that an episode store does not record."""

    compression: Literal["gzip", "lzf", "none"] = "gzip"
    """lossless compression of images: "gzip", "lzf" (faster, but larger files) or "none"."""
    next_obs: bool = False
    """whether frames also hold the next frame's observation, for offline RL; doubles the size."""
    validation_episodes: Annotated[int, Ge(0)] = 0
    """number of each task's last episodes that go into the mask "valid"; all others go into
    the mask "train", as do those of a task that has no more episodes. If all tasks are so small,
    the last of all episodes are "valid". 0: no masks are written.
    """
    env_args: Mapping[str, Any] = field(default_factory=dict)
    """the settings from which robomimic builds the environment: env_name, type, env_kwargs."""


class RobomimicWriter:
    """Writes one .hdf5 file of demonstrations.

    Attributes named "joinery" keep the facts for which robomimic's format has no place.

    Raises DataError if a camera and an observation of the proprioception have the same name.
    """

    def __init__(self, config: RobomimicWriterConfig, *, info: StoreInfo, out: Path) -> None:
        # HDF5 crashes if Ctrl-C interrupts it. Ctrl-C interrupts only the main thread, so HDF5 runs
        # in another thread.
        self._thread = ThreadPoolExecutor(1)
        self._demonstrations = self._run(Demonstrations, config, info, out)

    def append(self, episode: Episode) -> None:
        """Add a demonstration."""
        self._run(self._demonstrations.append, episode)

    def finish(self) -> None:
        """Write the facts about all demonstrations."""
        self._run(self._demonstrations.finish)

    def close(self) -> None:
        """Close the file."""
        self._run(self._demonstrations.close)
        self._thread.shutdown()

    def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._thread.submit(function, *arguments).result()


class Demonstrations:
    """The file of demonstrations; RobomimicWriter calls all methods of this class in one thread."""

    def __init__(self, config: RobomimicWriterConfig, info: StoreInfo, out: Path) -> None:
        h5py = import_optional("h5py", extra="robomimic")
        self.config = config
        self.proprio = split_names(info.proprio)
        clashes = sorted(self.proprio.keys() & info.cameras.keys())
        if clashes:
            raise DataError(
                f"camera '{clashes[0]}': the proprioception has that name, too; rename one"
            )
        self.tasks: list[str] = []  # the task of each demonstration that is written
        self.total = 0  # number of frames
        self.disk = TolerantFile(FileIO(out, "x+"))
        self.file = h5py.File(self.disk, "w")
        self.data = self.file.create_group("data")
        environment = {"env_name": "unknown", "type": GYM, "env_kwargs": {}, **config.env_args}
        self.data.attrs["env_args"] = json.dumps(environment, indent=4)
        write_sidecar(self.data, Sidecar(info, [*self.proprio]))

    def append(self, episode: Episode) -> None:
        """Add a demonstration."""
        demo, count = self.data.create_group(_demo_name(len(self.tasks))), len(episode)
        demo.attrs["num_samples"] = count
        demo.attrs["ep_meta"] = json.dumps({"lang": episode.instruction})  # as in RoboCasa
        write_episode_sidecar(demo, EpisodeSidecar(episode.id, episode.task, episode.instruction))
        demo["actions"] = episode.actions
        demo["rewards"] = np.zeros(count)  # robomimic expects rewards
        demo["dones"] = (np.arange(count) == count - 1).astype(np.int64)
        frames = np.arange(count)
        self._write_observations(demo.create_group("obs"), episode, frames)
        if self.config.next_obs:
            successors = np.minimum(frames + 1, count - 1)
            self._write_observations(demo.create_group("next_obs"), episode, successors)
        self.tasks.append(episode.task)
        self.total += count
        self._raise_if_full()

    def _write_observations(self, group: Any, episode: Episode, frames: np.ndarray) -> None:
        """Write the images and the proprioception of some frames, given by their indices."""
        compression = self.config.compression
        options = {} if compression == "none" else {"compression": compression}
        for name, images in episode.images.items():
            group.create_dataset(
                name, data=np.asarray(images)[frames], chunks=(1, *images.shape[1:]), **options
            )
        for name, columns in self.proprio.items():
            group[name] = episode.proprio[frames, columns]

    def finish(self) -> None:
        """Write the facts about all demonstrations."""
        self.data.attrs["total"] = self.total
        if self.config.validation_episodes:
            self._write_masks()
        self.close()
        self._raise_if_full()

    def _raise_if_full(self) -> None:
        if self.disk.error is not None:
            raise self.disk.error

    def _write_masks(self) -> None:
        """Write the masks: lists of the demonstrations for training and for validation."""
        demos_by_task: dict[str, list[str]] = {}
        for number, task in enumerate(self.tasks):
            demos_by_task.setdefault(task, []).append(_demo_name(number))
        demos = [_demo_name(number) for number in range(len(self.tasks))]
        valid = {demo for of_task in demos_by_task.values() for demo in self._last(of_task)}
        valid = valid or {*self._last(demos)}
        self.file["mask/train"] = np.array([demo for demo in demos if demo not in valid], "S")
        self.file["mask/valid"] = np.array([demo for demo in demos if demo in valid], "S")

    def _last(self, demos: Sequence[str]) -> Sequence[str]:
        """Return the demonstrations to hold out; none if no others would be left."""
        count = self.config.validation_episodes
        return demos[-count:] if len(demos) > count else ()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        self.disk.close()


def split_names(names: Sequence[str]) -> dict[str, slice]:
    """Group the proprioception's columns by name into observations; return {observation: columns}.

    For example, the columns pos_0, pos_1, pos_2 and grip become the observations pos and grip. All
    columns become one observation, "proprio", if each observation would have a single column, if
    robomimic does not allow an observation's name, or if a reader could not restore the columns'
    names.
    """
    columns: dict[str, slice] = {}
    first = 0
    while first < len(names):
        base, stop = names[first].removesuffix("_0"), first + 1
        while stop < len(names) and names[stop] == f"{base}_{stop - first}":
            stop += 1
        columns[base if stop > first + 1 else names[first]] = slice(first, stop)
        first = stop
    widths = [(name, span.stop - span.start) for name, span in columns.items()]
    is_numbered = any(width > 1 for _, width in widths)
    is_exact = dimension_names(widths) == tuple(names)  # reading restores the names
    are_valid = all(re.fullmatch(r"\w[\w.-]*", name) for name in columns)
    if is_exact and are_valid and is_numbered:
        return columns
    return {PROPRIO: slice(0, len(names))} if names else {}


def _demo_name(number: int) -> str:
    return f"demo_{number}"
