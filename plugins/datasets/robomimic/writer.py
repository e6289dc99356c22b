"""Episodes into an HDF5 file as robomimic reads it."""

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
from plugins.datasets.robomimic.note import EpisodeNote, Note, write_episode_note, write_note

GYM = 2  # robomimic's number for environments that are not robosuite's
PROPRIO = "proprio"
T = TypeVar("T")


@dataclass(frozen=True)
class RobomimicWriterConfig:
    """How pictures are packed, and what a store does not know."""

    compression: Literal["gzip", "lzf", "none"] = "gzip"
    """of pictures, lossless: "gzip", "lzf", which is faster and larger, or "none"."""
    next_obs: bool = False
    """write each frame's successor, too, which offline reinforcement learning reads; it doubles the
    file.
    """
    validation_episodes: Annotated[int, Ge(0)] = 0
    """of each task, the last so many are in the mask "valid" and the others in "train"; 0: no
    masks.
    """
    env_args: Mapping[str, Any] = field(default_factory=dict)
    """what robomimic makes the environment of: env_name, type, env_kwargs."""


class RobomimicWriter:
    """Writes one .hdf5 file of demonstrations; attributes named "joinery" keep what has no other
    place in it.

    Raises DataError where a camera has the name of other observations.
    """

    def __init__(self, config: RobomimicWriterConfig, *, info: StoreInfo, out: Path) -> None:
        self._thread = ThreadPoolExecutor(
            1
        )  # Ctrl-C strikes the main thread alone, and HDF5 would crash of it
        self._demonstrations = self._wait_for(Demonstrations, config, info, out)

    def append(self, episode: Episode) -> None:
        """Add a demonstration."""
        self._wait_for(self._demonstrations.append, episode)

    def finish(self) -> None:
        """Write what is known of all demonstrations."""
        self._wait_for(self._demonstrations.finish)

    def close(self) -> None:
        """Close the file."""
        self._wait_for(self._demonstrations.close)
        self._thread.shutdown()

    def _wait_for(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._thread.submit(function, *arguments).result()


class Demonstrations:
    """The file; see RobomimicWriter."""

    def __init__(self, config: RobomimicWriterConfig, info: StoreInfo, out: Path) -> None:
        h5py = import_optional("h5py", extra="robomimic")
        self.config = config
        self.proprio = split_names(info.proprio)
        if clash := sorted(self.proprio.keys() & info.cameras.keys()):
            raise DataError(
                f"camera '{clash[0]}': the proprioception has that name, too; rename one"
            )
        self.tasks: list[str] = []  # of the demonstrations so far
        self.total = 0  # frames
        self.disk = TolerantFile(FileIO(out, "x+"))
        self.file = h5py.File(self.disk, "w")
        self.data = self.file.create_group("data")
        environment = {"env_name": "unknown", "type": GYM, "env_kwargs": {}, **config.env_args}
        self.data.attrs["env_args"] = json.dumps(environment, indent=4)
        write_note(self.data, Note(info, [*self.proprio]))

    def append(self, episode: Episode) -> None:
        """Add a demonstration."""
        demo, count = self.data.create_group(_name(len(self.tasks))), len(episode)
        demo.attrs["num_samples"] = count
        demo.attrs["ep_meta"] = json.dumps({"lang": episode.instruction})  # as RoboCasa says it
        write_episode_note(demo, EpisodeNote(episode.id, episode.task, episode.instruction))
        demo["actions"] = episode.actions
        demo["rewards"] = np.zeros(count)  # a store has none
        demo["dones"] = (np.arange(count) == count - 1).astype(np.int64)
        self._observe(demo.create_group("obs"), episode, np.arange(count))
        if self.config.next_obs:
            self._observe(
                demo.create_group("next_obs"), episode, np.minimum(np.arange(count) + 1, count - 1)
            )
        self.tasks.append(episode.task)
        self.total += count
        self._raise_if_full()

    def _observe(self, group: Any, episode: Episode, frames: np.ndarray) -> None:
        packing = (
            {} if self.config.compression == "none" else {"compression": self.config.compression}
        )
        for name, images in episode.images.items():
            group.create_dataset(
                name, data=images[frames], chunks=(1, *images.shape[1:]), **packing
            )
        for name, columns in self.proprio.items():
            group[name] = episode.proprio[frames, columns]

    def finish(self) -> None:
        """Write what is known of all demonstrations."""
        self.data.attrs["total"] = self.total
        if self.config.validation_episodes:
            self._write_masks()
        self.close()
        self._raise_if_full()

    def _raise_if_full(self) -> None:
        if self.disk.error is not None:
            raise self.disk.error

    def _write_masks(self) -> None:
        of_task: dict[str, list[str]] = {}
        for number, task in enumerate(self.tasks):
            of_task.setdefault(task, []).append(_name(number))
        held_out = {
            name for names in of_task.values() for name in names[-self.config.validation_episodes :]
        }
        names = [_name(number) for number in range(len(self.tasks))]
        self.file["mask/train"] = np.array([name for name in names if name not in held_out], "S")
        self.file["mask/valid"] = np.array([name for name in names if name in held_out], "S")

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        self.disk.close()


def split_names(names: Sequence[str]) -> dict[str, slice]:
    """Names of numbers -> {observation: its columns}: pos_0, pos_1, pos_2, grip -> pos and grip, as
    they were imported.

    Where nothing is numbered, or the names are none for observations, all are one, "proprio".
    """
    found: dict[str, slice] = {}
    first = 0
    while first < len(names):
        base, stop = names[first].removesuffix("_0"), first + 1
        while stop < len(names) and names[stop] == f"{base}_{stop - first}":
            stop += 1
        found[base if stop > first + 1 else names[first]] = slice(first, stop)
        first = stop
    widths = [(name, columns.stop - columns.start) for name, columns in found.items()]
    whole = dimension_names(widths) == tuple(names) and all(
        re.fullmatch(r"\w[\w.-]*", name) for name in found
    )
    if whole and any(width > 1 for _, width in widths):
        return found
    return {PROPRIO: slice(0, len(names))} if names else {}


def _name(number: int) -> str:
    return f"demo_{number}"
