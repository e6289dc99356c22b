"""Diffusion Policy (https://github.com/real-stanford/diffusion_policy): replay buffers in zarr, episodes in a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from core import (
    ActionConvention,
    DataError,
    Episode,
    Meaning,
    Register,
    as_pictures,
    correct_convention,
    describe_source,
    hookimpl,
    is_unit,
    join_columns,
    numbered,
    one_line,
    raise_if_unknown,
)


@dataclass(frozen=True)
class DiffusionPolicyConfig:
    """Which arrays are what; the format records neither rate nor instruction.

    instruction: told to the robot in every episode.
    fps: frames per second.
    cameras: {name: array}; all arrays of pictures unless said.
    action: the array that holds the actions.
    proprio: arrays that are joined; none unless said: "state" often holds what the policy is not meant to see.
    meaning: of the actions; absolute positions in the world, without rotation and gripper, unless said.
    """

    instruction: str
    fps: Annotated[float, Gt(0)] = 10.0
    cameras: Mapping[str, str] = field(default_factory=dict)
    action: str = "action"
    proprio: tuple[str, ...] = ()
    meaning: Meaning | None = None


class DiffusionPolicy:
    """Reads `data/*`, cut at `meta/episode_ends`, from a folder name.zarr or an archive name.zarr.zip.

    Raises DataError, naming the array, for what is missing or damaged, RecipeError for arrays that are not there.
    """

    def __init__(self, config: DiffusionPolicyConfig, *, source: Path) -> None:
        self.config = config
        self.path = source
        group = _open(source)
        self.arrays = {name: group[f"data/{name}"] for name in _names(source, group)}
        pictures = {name: name for name, x in self.arrays.items() if x.ndim == 4 and x.shape[3] == 3}
        self.cameras = dict(config.cameras) or pictures
        self.wanted = [*self.cameras.values(), config.action, *config.proprio]
        raise_if_unknown("array", self.wanted, self.arrays)
        self.bounds = self._bounds(group)
        self.unit = {key: is_unit(self._slice(key, 0, int(self.bounds[1]))) for key in self.cameras.values()}
        widths = {name: int(np.prod(self.arrays[name].shape[1:])) for name in self.wanted}
        names = numbered([(config.action, widths[config.action])])
        found = ActionConvention(names, "absolute", "world", "none", (1.0,) * len(names), config.fps)
        self.info = describe_source(
            fps=config.fps,
            cameras={name: self.arrays[key].shape[1:3] for name, key in self.cameras.items()},
            action=correct_convention(found, config.meaning),
            proprio=numbered([(name, widths[name]) for name in config.proprio]),
            origin=f"replay buffer {source.name}",
        )

    def _bounds(self, group: Any) -> np.ndarray:
        """Where episodes begin and end; everything that they need must be there."""
        ends = _numbers(self.path, group, "meta/episode_ends")
        if ends.ndim != 1 or not ends.size or (np.diff(ends, prepend=0) <= 0).any():
            raise DataError(
                f"{self.path}: meta/episode_ends must rise, got {ends.ravel()[:8].tolist()}; record it again"
            )
        for name in self.wanted:
            array = self.arrays[name]
            if array.ndim < 1 or array.shape[0] < ends[-1]:
                raise DataError(f"{self.path}: meta/episode_ends counts {ends[-1]} frames, data/{name} has fewer")
            if array.nchunks_initialized < array.nchunks:  # a chunk that is not there reads as zeros
                lost = array.nchunks - array.nchunks_initialized
                raise DataError(f"{self.path}: data/{name} lacks {lost} of {array.nchunks} chunks; copy it again")
        return np.concatenate([[0], ends]).astype(np.int64)

    def ids(self) -> Sequence[str]:
        """The episodes' numbers."""
        return [f"{number:06d}" for number in range(len(self.bounds) - 1)]

    def read(self, episode: str) -> Episode:
        """Read one episode; raises DataError that names the array."""
        begin, end = (int(bound) for bound in self.bounds[int(episode) : int(episode) + 2])
        where = f"{self.path}, episode {episode}"
        return Episode(
            id=episode,
            task=self.config.instruction,
            instruction=self.config.instruction,
            images={
                name: as_pictures(self._slice(key, begin, end), f"{where}, {key}", unit=self.unit[key])
                for name, key in self.cameras.items()
            },
            actions=join_columns(
                [self._slice(self.config.action, begin, end)], end - begin, f"{where}, {self.config.action}"
            ),
            proprio=join_columns([self._slice(key, begin, end) for key in self.config.proprio], end - begin, where),
        )

    def _slice(self, name: str, begin: int, end: int) -> np.ndarray:
        try:
            return np.asarray(self.arrays[name][begin:end])
        except Exception as error:  # noqa: BLE001 - each codec fails in its own way
            raise DataError(f"{self.path}: data/{name} cannot be read ({one_line(error)}); copy it again") from None


def _open(path: Path) -> Any:
    """Open the root group; raises DataError where there is none."""
    import zarr
    from zarr.storage import ZipStore

    _register_codecs()
    try:
        return zarr.open_group(ZipStore(path, mode="r") if path.suffix == ".zip" else path, mode="r")
    except Exception as error:  # noqa: BLE001 - not there, no group, no archive
        raise DataError(f"{path}: holds no zarr group ({one_line(error)}); name a replay buffer's .zarr") from None


def _register_codecs() -> None:
    """The format's own JPEG 2000 comes from imagecodecs, where that is installed."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError:
        return
    register_codecs(verbose=False)


def _names(path: Path, group: Any) -> list[str]:
    try:
        return sorted(name for name, _ in group["data"].arrays())
    except Exception as error:  # noqa: BLE001
        raise DataError(
            f"{path}: the arrays in data/ cannot be opened ({one_line(error)}); where a codec is missing, "
            "pip install imagecodecs"
        ) from None


def _numbers(path: Path, group: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(group[name][:])
    except Exception as error:  # noqa: BLE001
        raise DataError(f"{path}: {name} cannot be read ({one_line(error)})") from None


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "diffusion_policy"."""
    register("diffusion_policy", DiffusionPolicyConfig, DiffusionPolicy)
