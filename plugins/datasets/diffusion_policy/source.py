"""Episodes of a replay buffer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Gt

from core import DataError
from core.episodes import ActionConvention, Episode
from core.formats import (
    ConventionOverride,
    array_kind,
    as_images,
    check_mapping,
    dimension_names,
    first_readable,
    flat_width,
    is_unit_range,
    join_columns,
    override_convention,
    source_info,
)
from plugins.datasets.diffusion_policy.buffer import ENDS, ReplayBuffer


@dataclass(frozen=True)
class DiffusionPolicyConfig:
    """Which arrays are what; the format records neither rate nor instruction."""

    instruction: str
    """told to the robot in every episode."""
    fps: Annotated[float, Gt(0)] = 10.0
    """frames per second."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: array}; all arrays of pictures unless said."""
    action: str = "action"
    """the array that holds the actions."""
    proprio: tuple[str, ...] = ()
    """arrays that are joined; none unless said: "state" often holds what the policy is not meant to
    see.
    """
    meaning: ConventionOverride | None = None
    """of the actions; absolute positions in the world, without rotation and gripper, unless said.
    """


class DiffusionPolicy:
    """Reads `data/*`, cut at `meta/episode_ends`, from a folder name.zarr or an archive
    name.zarr.zip.

    Raises DataError, naming the array, for what is missing or damaged, ConfigError for arrays that
    are not there.
    """

    def __init__(self, config: DiffusionPolicyConfig, *, source: Path) -> None:
        self.config = config
        self.path = source
        self.buffer = ReplayBuffer(source)
        arrays = self.buffer.arrays
        known = {name: array_kind(x.shape, x.dtype) for name, x in arrays.items() if name != ENDS}
        pictures = {name: name for name, kind in known.items() if kind == "pictures"}
        self.cameras = dict(config.cameras) or pictures
        numbers = [config.action, *config.proprio]
        check_mapping(
            source, "array", {"pictures": self.cameras.values(), "numbers": numbers}, known
        )
        self.bounds = self._bounds([*self.cameras.values(), *numbers])
        self.unit = {key: self._is_unit(key) for key in self.cameras.values()}
        widths = {name: flat_width(arrays[name].shape) for name in numbers}
        names = dimension_names([(config.action, widths[config.action])])
        found = ActionConvention(
            names, "absolute", "world", "none", (1.0,) * len(names), config.fps
        )
        self.info = source_info(
            fps=config.fps,
            cameras={name: arrays[key].shape[1:3] for name, key in self.cameras.items()},
            action=override_convention(found, config.meaning),
            proprio=dimension_names([(name, widths[name]) for name in config.proprio]),
            origin=f"replay buffer {source.name}",
        )

    def _bounds(self, wanted: Sequence[str]) -> np.ndarray:
        """Where episodes begin and end; the arrays that they need must be as long."""
        arrays = self.buffer.arrays
        for name in (*wanted, ENDS):
            self.buffer.check_claimed_size(name)
        if arrays[ENDS].ndim != 1 or arrays[ENDS].dtype.kind not in "iu" or not arrays[ENDS].size:
            raise DataError(
                f"{self.path}: {ENDS} is {arrays[ENDS].dtype} {arrays[ENDS].shape}, expected whole numbers"
            )
        ends = self.buffer.read(ENDS, 0, arrays[ENDS].size).astype(np.int64)
        if (np.diff(ends, prepend=0) <= 0).any():
            raise DataError(
                f"{self.path}: {ENDS} must rise, got {ends[:8].tolist()}; record it again"
            )
        for name in wanted:
            if arrays[name].ndim < 1 or arrays[name].shape[0] < ends[-1]:
                raise DataError(
                    f"{self.path}: {ENDS} counts {ends[-1]} frames, data/{name} has fewer"
                )
        return np.concatenate([[0], ends])

    def _is_unit(self, key: str) -> bool:
        """Whether pictures are floats in [0, 1], by the first episode that can be read."""
        if self.buffer.arrays[key].dtype.kind != "f":
            return False
        return is_unit_range(
            first_readable(
                pairwise(self.bounds.tolist()), lambda bounds: self.buffer.read(key, *bounds)
            )
        )

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
                name: as_images(
                    self.buffer.read(key, begin, end), f"{where}, {key}", unit=self.unit[key]
                )
                for name, key in self.cameras.items()
            },
            actions=join_columns(
                [self.buffer.read(self.config.action, begin, end)],
                end - begin,
                f"{where}, {self.config.action}",
            ),
            proprio=join_columns(
                [self.buffer.read(key, begin, end) for key in self.config.proprio],
                end - begin,
                where,
            ),
        )
