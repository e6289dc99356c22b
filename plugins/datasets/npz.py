"""A folder of .npz files, as numpy.savez writes them; each file is one episode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Gt

from core import ConfigError, DataError, Register, hookimpl
from core.episodes import ActionConvention, Episode, Feature, FeatureMeaning
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
    read_npz,
    source_info,
)

# the array that holds the instruction
INSTRUCTION = "instruction"


@dataclass(frozen=True)
class FeatureArray:
    """An array with one entry per frame, which an episode store keeps unchanged.

    array: name of the array in the files.
    meaning: "rgb", "depth", "points", "force", "reward", "text" or "other".
    unit: unit of the array's values, for example "mm" or "N".
    """

    array: str
    meaning: FeatureMeaning
    unit: str = ""


@dataclass(frozen=True)
class NpzConfig:
    """Which arrays of a file hold images, actions, proprioception and instruction."""

    fps: Annotated[float, Gt(0)]
    """frames per second."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: array}; default: every array of images."""
    action: str = "action"
    """the array that holds the actions."""
    proprio: tuple[str, ...] = ()
    """arrays that are joined in this order to form the proprioception."""
    features: Mapping[str, FeatureArray] = field(default_factory=dict)
    """further features: {name of the feature: its array, meaning and unit}."""
    instruction: str | None = None
    """the instruction of every episode; default: the string in the array "instruction"."""
    meaning: ConventionOverride | None = None
    """meaning of the actions; default: absolute positions in the world, no rotation, no gripper."""


class Npz:
    """Reads the .npz files of a folder, in the order of their names.

    Arrays of images have the shape (n Y X 3), and numeric arrays have the shape (n ...); n is the
    number of frames. Raises DataError, naming the file, for missing or damaged data, and
    ConfigError for arrays that do not exist.
    """

    def __init__(self, config: NpzConfig, *, source: Path) -> None:
        self.config = config
        self.files = {file.stem: file for file in sorted(source.glob("*.npz"))}
        if not self.files:
            raise DataError(
                f"{source}: holds no .npz files; name a folder with one of them per episode"
            )
        self.cameras, arrays = first_readable(self.files.values(), self._read_and_check)
        self.unit_range = {key: is_unit_range(arrays[key]) for key in self.cameras.values()}
        features = {}
        for name, entry in config.features.items():
            array = arrays[entry.array]
            try:
                features[name] = Feature(
                    array.shape[1:],
                    array.dtype.name,  # type: ignore[arg-type]  # checked by Feature
                    entry.meaning,
                    entry.unit,
                )
            except ValueError as error:
                raise DataError(f"{source}, {entry.array}: {error}") from None
        names = dimension_names([(config.action, flat_width(arrays[config.action].shape))])
        convention = ActionConvention(
            names, "absolute", "world", "none", (1.0,) * len(names), config.fps
        )
        self.info = source_info(
            fps=config.fps,
            cameras={name: arrays[key].shape[1:3] for name, key in self.cameras.items()},
            action=override_convention(convention, config.meaning),
            proprio=dimension_names(
                [(key, flat_width(arrays[key].shape)) for key in config.proprio]
            ),
            origin=f"folder {source.name}",
            features=features,
        )

    def _read_and_check(self, file: Path) -> tuple[Mapping[str, str], Mapping[str, np.ndarray]]:
        """Read a file; return {camera: name of its array} and {name: array}.

        Raises ConfigError if the configuration names arrays that the file does not have.
        """
        arrays, config = read_npz(file), self.config
        kinds = {name: array_kind(array.shape, array.dtype) for name, array in arrays.items()}
        features = [entry.array for entry in config.features.values()]
        cameras = dict(config.cameras) or {
            name: name
            for name, kind in kinds.items()
            if kind == "pictures" and name not in features
        }
        numbers = [config.action, *config.proprio]
        numbers += [name for name in features if kinds.get(name) != "pictures"]
        check_mapping(file, "array", {"pictures": cameras.values(), "numbers": numbers}, kinds)
        if not config.instruction and kinds.get(INSTRUCTION) != "text":
            raise ConfigError(
                f"{file}: no array '{INSTRUCTION}' says what the robot is told; "
                "say instruction = ..."
            )
        return cameras, arrays

    def ids(self) -> Sequence[str]:
        """Return the files' names without ".npz"."""
        return [*self.files]

    def read(self, episode: str) -> Episode:
        """Read one file; raises DataError with the file's name."""
        file, config = self.files[episode], self.config
        features = {name: entry.array for name, entry in config.features.items()}
        keys = [*self.cameras.values(), config.action, *config.proprio, *features.values()]
        if not config.instruction:
            keys.append(INSTRUCTION)
        arrays = read_npz(file, keys)
        actions = arrays[config.action]
        length = len(actions) if actions.ndim else 0
        instruction = config.instruction or _text(file, arrays[INSTRUCTION])
        return Episode(
            id=episode,
            task=instruction,
            instruction=instruction,
            images={
                name: as_images(arrays[key], f"{file}, {key}", unit=self.unit_range[key])
                for name, key in self.cameras.items()
            },
            actions=join_columns([actions], length, f"{file}, {config.action}"),
            proprio=join_columns(
                [arrays[key] for key in config.proprio],
                length,
                f"{file}, {', '.join(config.proprio)}",
            ),
            features={name: _in_native_order(arrays[key]) for name, key in features.items()},
        )


def _text(file: Path, array: np.ndarray) -> str:
    if array.dtype.kind != "U" or array.size != 1:
        raise DataError(
            f"{file}: {INSTRUCTION} is {array.dtype} {array.shape}, expected one string"
        )
    return str(array.item())


def _in_native_order(array: np.ndarray) -> np.ndarray:
    """Return the array in this machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "npz"."""
    register("npz", NpzConfig, Npz)
