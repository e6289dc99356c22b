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
    """Which arrays hold images, actions and proprioception.

    The format records neither the frame rate nor the instruction, so this configuration gives them.
    """

    instruction: str
    """the instruction of every episode."""
    fps: Annotated[float, Gt(0)] = 10.0
    """frames per second."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: array}; default: every array of images."""
    action: str = "action"
    """the array that holds the actions."""
    proprio: tuple[str, ...] = ()
    """arrays that are joined to form the proprioception; the array "state" often holds facts that a
    policy must not see.
    """
    meaning: ConventionOverride | None = None
    """meaning of the actions; default: absolute positions in the world, no rotation, no gripper."""


class DiffusionPolicy:
    """Reads a replay buffer: the arrays in data/, cut into episodes at meta/episode_ends.

    The source is a folder name.zarr or an archive name.zarr.zip. Raises DataError, naming the
    array, for missing or damaged data, and ConfigError for arrays that do not exist.
    """

    def __init__(self, config: DiffusionPolicyConfig, *, source: Path) -> None:
        self.config = config
        self.path = source
        self.buffer = ReplayBuffer(source)
        arrays = self.buffer.arrays
        kinds = {
            name: array_kind(array.shape, array.dtype)
            for name, array in arrays.items()
            if name != ENDS
        }
        self.cameras = dict(config.cameras) or {
            name: name for name, kind in kinds.items() if kind == "pictures"
        }
        numbers = [config.action, *config.proprio]
        check_mapping(
            source, "array", {"pictures": self.cameras.values(), "numbers": numbers}, kinds
        )
        self.bounds = self._read_bounds([*self.cameras.values(), *numbers])
        self.unit_range = {key: self._is_unit_range(key) for key in self.cameras.values()}
        widths = {name: flat_width(arrays[name].shape) for name in numbers}
        names = dimension_names([(config.action, widths[config.action])])
        convention = ActionConvention(
            names, "absolute", "world", "none", (1.0,) * len(names), config.fps
        )
        self.info = source_info(
            fps=config.fps,
            cameras={name: arrays[key].shape[1:3] for name, key in self.cameras.items()},
            action=override_convention(convention, config.meaning),
            proprio=dimension_names([(name, widths[name]) for name in config.proprio]),
            origin=f"replay buffer {source.name}",
        )

    def _read_bounds(self, names: Sequence[str]) -> np.ndarray:
        """Return (episodes + 1) indices: each episode's first frame, then the last episode's end.

        names: the arrays that the episodes need.

        Raises DataError if one of these arrays has fewer frames than the episodes together.
        """
        arrays, ends = self.buffer.arrays, self.buffer.arrays[ENDS]
        for name in (*names, ENDS):
            self.buffer.check_claimed_size(name)
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or not ends.size:
            raise DataError(
                f"{self.path}: {ENDS} is {ends.dtype} {ends.shape}, expected whole numbers"
            )
        ends = self.buffer.read(ENDS, 0, ends.size).astype(np.int64)
        if (np.diff(ends, prepend=0) <= 0).any():
            raise DataError(
                f"{self.path}: {ENDS} must rise, got {ends[:8].tolist()}; record it again"
            )
        for name in names:
            if arrays[name].ndim < 1 or arrays[name].shape[0] < ends[-1]:
                raise DataError(
                    f"{self.path}: {ENDS} counts {ends[-1]} frames, data/{name} has fewer"
                )
        return np.concatenate([[0], ends])

    def _is_unit_range(self, key: str) -> bool:
        """Return whether images are floats in [0, 1], judging by the first readable episode."""
        if self.buffer.arrays[key].dtype.kind != "f":
            return False
        spans = pairwise(self.bounds.tolist())
        return is_unit_range(first_readable(spans, lambda span: self.buffer.read(key, *span)))

    def ids(self) -> Sequence[str]:
        """Return the episodes' indices, each as six digits."""
        return [f"{number:06d}" for number in range(len(self.bounds) - 1)]

    def read(self, episode: str) -> Episode:
        """Read one episode; raises DataError, naming the file, for missing or damaged data."""
        begin, end = (int(bound) for bound in self.bounds[int(episode) : int(episode) + 2])
        config, where = self.config, f"{self.path}, episode {episode}"
        images = {}
        for name, key in self.cameras.items():
            frames = self.buffer.read(key, begin, end)
            images[name] = as_images(frames, f"{where}, {key}", unit=self.unit_range[key])
        actions = [self.buffer.read(config.action, begin, end)]
        proprio = [self.buffer.read(key, begin, end) for key in config.proprio]
        return Episode(
            id=episode,
            task=config.instruction,
            instruction=config.instruction,
            images=images,
            actions=join_columns(actions, end - begin, f"{where}, {config.action}"),
            proprio=join_columns(proprio, end - begin, where),
        )
