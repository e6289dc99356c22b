"""A folder of .npz files, one episode in each, as numpy.savez writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Gt

from core import (
    ActionConvention,
    DataError,
    Episode,
    Meaning,
    RecipeError,
    Register,
    as_pictures,
    check_mapping,
    correct_convention,
    describe_source,
    first_readable,
    hookimpl,
    is_unit,
    join_columns,
    kind_of,
    numbered,
    read_npz,
    width_of,
)

INSTRUCTION = "instruction"


@dataclass(frozen=True)
class NpzConfig:
    """Which arrays of a file are what.

    fps: frames per second.
    cameras: {name: array}; all arrays of pictures unless said.
    action: the array that holds the actions.
    proprio: arrays that are joined; none unless said.
    instruction: told to the robot in every episode; the string in the array "instruction" unless said.
    meaning: of the actions; absolute positions in the world, without rotation and gripper, unless said.
    """

    fps: Annotated[float, Gt(0)]
    cameras: Mapping[str, str] = field(default_factory=dict)
    action: str = "action"
    proprio: tuple[str, ...] = ()
    instruction: str | None = None
    meaning: Meaning | None = None


class Npz:
    """Reads the .npz files of a folder, in the order of their names; pictures are (n Y X 3), numbers (n ...).

    Raises DataError, naming the file, for what is missing or damaged, RecipeError for arrays that are not there.
    """

    def __init__(self, config: NpzConfig, *, source: Path) -> None:
        self.config = config
        self.files = {file.stem: file for file in sorted(source.glob("*.npz"))}
        if not self.files:
            raise DataError(f"{source}: holds no .npz files; name a folder with one of them per episode")
        self.cameras, first = first_readable(self.files.values(), self._look)
        self.unit = {key: is_unit(first[key]) for key in self.cameras.values()}
        names = numbered([(config.action, width_of(first[config.action].shape))])
        found = ActionConvention(names, "absolute", "world", "none", (1.0,) * len(names), config.fps)
        self.info = describe_source(
            fps=config.fps,
            cameras={name: first[key].shape[1:3] for name, key in self.cameras.items()},
            action=correct_convention(found, config.meaning),
            proprio=numbered([(name, width_of(first[name].shape)) for name in config.proprio]),
            origin=f"folder {source.name}",
        )

    def _look(self, file: Path) -> tuple[Mapping[str, str], Mapping[str, np.ndarray]]:
        """Cameras and arrays of a file; raises RecipeError for names that are not there."""
        arrays, config = read_npz(file), self.config
        known = {name: kind_of(x.shape, x.dtype) for name, x in arrays.items()}
        cameras = dict(config.cameras) or {name: name for name, kind in known.items() if kind == "pictures"}
        wanted = {"pictures": cameras.values(), "numbers": [config.action, *config.proprio]}
        check_mapping(file, "array", wanted, known)
        if not config.instruction and known.get(INSTRUCTION) != "text":
            raise RecipeError(f"{file}: no array '{INSTRUCTION}' says what the robot is told; say instruction = ...")
        return cameras, arrays

    def ids(self) -> Sequence[str]:
        """The files' names."""
        return [*self.files]

    def read(self, episode: str) -> Episode:
        """Read one file; raises DataError that names it."""
        file, config = self.files[episode], self.config
        told = () if config.instruction else (INSTRUCTION,)
        arrays = read_npz(file, [*self.cameras.values(), config.action, *config.proprio, *told])
        length = len(arrays[config.action]) if arrays[config.action].ndim else 0
        text = config.instruction or _text(file, arrays[INSTRUCTION])
        return Episode(
            id=episode,
            task=text,
            instruction=text,
            images={
                name: as_pictures(arrays[key], f"{file}, {key}", unit=self.unit[key])
                for name, key in self.cameras.items()
            },
            actions=join_columns([arrays[config.action]], length, f"{file}, {config.action}"),
            proprio=join_columns(
                [arrays[name] for name in config.proprio], length, f"{file}, {', '.join(config.proprio)}"
            ),
        )


def _text(file: Path, told: np.ndarray) -> str:
    if told.dtype.kind != "U" or told.size != 1:
        raise DataError(f"{file}: {INSTRUCTION} is {told.dtype} {told.shape}, expected one string")
    return str(told.item())


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "npz"."""
    register("npz", NpzConfig, Npz)
