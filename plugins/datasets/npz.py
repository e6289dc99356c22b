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
        first = _load(next(iter(self.files.values())))
        pictures = {name: name for name, x in first.items() if x.ndim == 4 and x.shape[3] == 3}
        self.cameras = dict(config.cameras) or pictures
        wanted = [*self.cameras.values(), config.action, *config.proprio]
        raise_if_unknown("array", wanted, first)
        self.unit = {key: is_unit(first[key]) for key in self.cameras.values()}
        names = numbered([(config.action, _width(first[config.action]))])
        found = ActionConvention(names, "absolute", "world", "none", (1.0,) * len(names), config.fps)
        self.info = describe_source(
            fps=config.fps,
            cameras={name: first[key].shape[1:3] for name, key in self.cameras.items()},
            action=correct_convention(found, config.meaning),
            proprio=numbered([(name, _width(first[name])) for name in config.proprio]),
            origin=f"folder {source.name}",
        )

    def ids(self) -> Sequence[str]:
        """The files' names."""
        return [*self.files]

    def read(self, episode: str) -> Episode:
        """Read one file; raises DataError that names it."""
        file = self.files[episode]
        arrays, config = _load(file), self.config
        wanted = [*self.cameras.values(), config.action, *config.proprio]
        if lost := [name for name in wanted if name not in arrays]:
            raise DataError(f"{file}: has no array '{lost[0]}'; it holds {', '.join(sorted(arrays))}")
        length = len(arrays[config.action]) if arrays[config.action].ndim else 0
        text = config.instruction or _text(file, arrays)
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


def _load(file: Path) -> Mapping[str, np.ndarray]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # noqa: BLE001 - damaged bytes make zipfile and numpy raise almost anything
        raise DataError(f"{file}: damaged or no .npz file ({one_line(error)}); copy it again") from None


def _text(file: Path, arrays: Mapping[str, np.ndarray]) -> str:
    told = arrays.get("instruction")
    if told is None or told.dtype.kind != "U" or told.size != 1:
        raise DataError(f"{file}: has no array 'instruction' with one string in it; add it, or say instruction = ...")
    return str(told.item())


def _width(array: np.ndarray) -> int:
    return int(np.prod(array.shape[1:]))


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "npz"."""
    register("npz", NpzConfig, Npz)
