"""A folder of .npz files, one episode in each, as numpy.savez writes them."""

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

INSTRUCTION = "instruction"


@dataclass(frozen=True)
class FeatureArray:
    """An array with an entry for each frame that is kept as it is.

    array: its name in the files.
    meaning: what readers may take it for: "rgb", "depth", "points", "force", "reward", "text" or
    "other".
    unit: of its numbers, "mm" or "N" for example.
    """

    array: str
    meaning: FeatureMeaning
    unit: str = ""


@dataclass(frozen=True)
class NpzConfig:
    """Which arrays of a file are what."""

    fps: Annotated[float, Gt(0)]
    """frames per second."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: array}; all arrays of pictures unless said."""
    action: str = "action"
    """the array that holds the actions."""
    proprio: tuple[str, ...] = ()
    """arrays that are joined; none unless said."""
    features: Mapping[str, FeatureArray] = field(default_factory=dict)
    """{name: array, meaning and unit} of what else is observed; none unless said."""
    instruction: str | None = None
    """told to the robot in every episode; the string in the array "instruction" unless said."""
    meaning: ConventionOverride | None = None
    """of the actions; absolute positions in the world, without rotation and gripper, unless said.
    """


class Npz:
    """Reads the .npz files of a folder, in the order of their names; pictures are (n Y X 3),
    numbers (n ...).

    Raises DataError, naming the file, for what is missing or damaged, ConfigError for arrays that
    are not there.
    """

    def __init__(self, config: NpzConfig, *, source: Path) -> None:
        self.config = config
        self.files = {file.stem: file for file in sorted(source.glob("*.npz"))}
        if not self.files:
            raise DataError(
                f"{source}: holds no .npz files; name a folder with one of them per episode"
            )
        self.cameras, first = first_readable(self.files.values(), self._look)
        self.unit = {key: is_unit_range(first[key]) for key in self.cameras.values()}
        names = dimension_names([(config.action, flat_width(first[config.action].shape))])
        found = ActionConvention(
            names, "absolute", "world", "none", (1.0,) * len(names), config.fps
        )
        self.info = source_info(
            fps=config.fps,
            cameras={name: first[key].shape[1:3] for name, key in self.cameras.items()},
            action=override_convention(found, config.meaning),
            proprio=dimension_names(
                [(name, flat_width(first[name].shape)) for name in config.proprio]
            ),
            origin=f"folder {source.name}",
            features={
                name: _describe_feature(f"{source}, {entry.array}", first[entry.array], entry)
                for name, entry in config.features.items()
            },
        )

    def _look(self, file: Path) -> tuple[Mapping[str, str], Mapping[str, np.ndarray]]:
        """Cameras and arrays of a file; raises ConfigError for names that are not there."""
        arrays, config = read_npz(file), self.config
        known = {name: array_kind(x.shape, x.dtype) for name, x in arrays.items()}
        observed = [entry.array for entry in config.features.values()]
        pictures = [
            name for name, kind in known.items() if kind == "pictures" and name not in observed
        ]
        cameras = dict(config.cameras) or {name: name for name in pictures}
        numbers = [
            config.action,
            *config.proprio,
            *(name for name in observed if known.get(name) != "pictures"),
        ]
        check_mapping(file, "array", {"pictures": cameras.values(), "numbers": numbers}, known)
        if not config.instruction and known.get(INSTRUCTION) != "text":
            raise ConfigError(
                f"{file}: no array '{INSTRUCTION}' says what the robot is told; say instruction = ..."
            )
        return cameras, arrays

    def ids(self) -> Sequence[str]:
        """The files' names."""
        return [*self.files]

    def read(self, episode: str) -> Episode:
        """Read one file; raises DataError that names it."""
        file, config = self.files[episode], self.config
        told = () if config.instruction else (INSTRUCTION,)
        observed = {name: entry.array for name, entry in config.features.items()}
        arrays = read_npz(
            file,
            [*self.cameras.values(), config.action, *config.proprio, *observed.values(), *told],
        )
        length = len(arrays[config.action]) if arrays[config.action].ndim else 0
        text = config.instruction or _text(file, arrays[INSTRUCTION])
        return Episode(
            id=episode,
            task=text,
            instruction=text,
            images={
                name: as_images(arrays[key], f"{file}, {key}", unit=self.unit[key])
                for name, key in self.cameras.items()
            },
            actions=join_columns([arrays[config.action]], length, f"{file}, {config.action}"),
            proprio=join_columns(
                [arrays[name] for name in config.proprio],
                length,
                f"{file}, {', '.join(config.proprio)}",
            ),
            features={name: _native(arrays[key]) for name, key in observed.items()},
        )


def _describe_feature(where: str, array: np.ndarray, entry: FeatureArray) -> Feature:
    try:
        return Feature(array.shape[1:], array.dtype.name, entry.meaning, entry.unit)  # type: ignore[arg-type]  # checked
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def _native(array: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's order of bytes."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _text(file: Path, told: np.ndarray) -> str:
    if told.dtype.kind != "U" or told.size != 1:
        raise DataError(f"{file}: {INSTRUCTION} is {told.dtype} {told.shape}, expected one string")
    return str(told.item())


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "npz"."""
    register("npz", NpzConfig, Npz)
