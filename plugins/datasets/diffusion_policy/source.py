"""Episodes of a replay buffer."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from core import ConfigError, DataError
from core.episodes import Images, images_of
from core.formats import (
    Column,
    Description,
    Guess,
    MappedSource,
    Recording,
    SourceMapping,
    array_column,
    first_readable,
    guess_white,
)
from plugins.datasets.diffusion_policy.buffer import ENDS, ReplayBuffer

FPS = 10.0  # Hz, of the datasets that Diffusion Policy published
GUESS = Guess("absolute", "world", "a replay buffer does not say what actions mean")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DiffusionPolicyConfig(SourceMapping):
    """Which arrays hold images, actions and proprioception.

    The format records neither the frame rate nor the instruction.
    """

    missing_chunks: Literal["refuse", "zeros"] = "refuse"
    """what a chunk is that has no file: "refuse": a chunk that was lost when the buffer was copied;
    "zeros": a chunk of zeros, which zarr-python 3 does not write.
    """


class DiffusionPolicy(MappedSource):
    """Reads a replay buffer: the arrays in data/, cut into episodes at meta/episode_ends.

    The source is a folder name.zarr or an archive name.zarr.zip. Raises DataError, naming the
    array, for missing or damaged data, and ConfigError for arrays that do not exist.
    """

    def __init__(self, config: DiffusionPolicyConfig, *, source: Path) -> None:
        super().__init__(BufferReader(source, config.missing_chunks == "zeros"), config)


class BufferReader:
    """The arrays of a replay buffer, and the episodes that they hold back to back."""

    def __init__(self, path: Path, allows_missing: bool) -> None:
        self.path = path
        self.buffer = ReplayBuffer(path, allows_missing)
        self.bounds = self._read_bounds()

    def describe(self, use: Callable[[Description], T]) -> T:
        """Describe the arrays, except the bounds of the episodes."""
        columns = {name: self._column(name) for name in self.buffer.arrays if name != ENDS}
        return use(
            Description(
                where=str(self.path),
                noun="array",
                columns=columns,
                cameras={name: name for name, c in columns.items() if c.kind == "pictures"},
                action=("action",),
                proprio=(),
                guess=GUESS,
                origin=f"replay buffer {self.path.name}",
                has_instruction=False,
                fps=FPS,
                assumed={"fps": "a replay buffer does not record the frame rate"},
            )
        )

    def _column(self, name: str) -> Column:
        """Describe an array; what stands for white is judged by the first readable episode."""
        column = array_column(self.buffer.arrays[name])
        if column.kind != "pictures" or column.dtype == "uint8":
            return column
        spans = pairwise(self.bounds.tolist())
        white = first_readable(spans, lambda span: guess_white(self._images(name, *span)))
        return array_column(self.buffer.arrays[name], white)

    def _read_bounds(self) -> np.ndarray:
        """Return (episodes + 1) indices: each episode's first frame, then the last one's end."""
        ends = self.buffer.arrays[ENDS]
        self.buffer.check_claimed_size(ENDS)
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or not ends.size:
            raise DataError(
                f"{self.path}: {ENDS} is {ends.dtype} {ends.shape}, expected whole numbers, one "
                "for each episode; write it again"
            )
        ends = self.buffer.read(ENDS, 0, ends.size).astype(np.int64)
        if (np.diff(ends, prepend=0) <= 0).any():
            raise DataError(
                f"{self.path}: {ENDS} says {ends[:8].tolist()}, and an episode ends after the one "
                "before; correct it, without episodes of no frames"
            )
        return np.concatenate([[0], ends])

    def ids(self) -> Sequence[str]:
        """Return the episodes' indices, each as six digits."""
        return [f"{number:06d}" for number in range(len(self.bounds) - 1)]

    def facts(self, episode: str) -> Mapping[str, Any]:
        """Return the episode's length."""
        number = int(episode)
        return {"length": int(self.bounds[number + 1] - self.bounds[number])}

    def members(self, mask: str) -> Collection[str]:
        """Raise ConfigError: a replay buffer has no masks."""
        raise ConfigError(f"mask: a replay buffer has no '{mask}'; choose with episodes or where")

    def read(self, episode: str, columns: Collection[str]) -> Recording:
        """Read one episode; raises DataError, naming the file, for missing or damaged data."""
        begin, end = (int(bound) for bound in self.bounds[int(episode) : int(episode) + 2])
        values: dict[str, Any] = {}
        for name in columns:
            array = self.buffer.arrays[name]
            self.buffer.check_claimed_size(name)
            if array.ndim < 1 or array.shape[0] < self.bounds[-1]:
                raise DataError(
                    f"{self.path}: {ENDS} counts {self.bounds[-1]} frames, data/{name} has fewer; "
                    "copy it again, or name another array"
                )
            values[name] = self._images(name, begin, end)
        return Recording(f"{self.path}, episode {episode}", end - begin, values)

    def _images(self, name: str, begin: int, end: int) -> Images:
        """Return the rows begin..end-1 of an array; those of long images are read later."""
        array = self.buffer.arrays[name]
        if array.ndim != 4:
            return self.buffer.read(name, begin, end)
        read = partial(self._stretch, name, begin)
        return images_of((end - begin, *array.shape[1:]), read, array.dtype)

    def _stretch(self, name: str, begin: int, start: int, stop: int) -> np.ndarray:
        return self.buffer.read(name, begin + start, begin + stop)
