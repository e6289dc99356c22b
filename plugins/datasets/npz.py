"""A folder of .npz files, as numpy.savez writes them; each file is one episode."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from core import ConfigError, DataError, Register, hookimpl
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
    npz_names,
    read_npz,
)

# the array that holds the instruction
INSTRUCTION = "instruction"
GUESS = Guess("absolute", "world", ".npz files do not say what actions mean")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class NpzConfig(SourceMapping):
    """Which arrays of a file hold images, actions, proprioception and instruction."""


class Npz(MappedSource):
    """Reads the .npz files of a folder, in the order of their names.

    Arrays of images have the shape (n Y X 3), and numeric arrays have the shape (n ...); n is the
    number of frames. Raises DataError, naming the file, for missing or damaged data, and
    ConfigError for arrays that do not exist.
    """

    def __init__(self, config: NpzConfig, *, source: Path) -> None:
        super().__init__(NpzReader(source), config)


class NpzReader:
    """The arrays of the .npz files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {file.stem: file for file in sorted(folder.glob("*.npz"))}
        if not self.files:
            raise DataError(
                f"{folder}: holds no .npz files; name a folder with one of them per episode"
            )

    def describe(self, use: Callable[[Description], T]) -> T:
        """Describe the arrays of the first file that can be read and that the settings fit."""
        return first_readable(self.files.values(), lambda file: use(self._describe(file)))

    def _describe(self, file: Path) -> Description:
        arrays = read_npz(file)
        columns = {name: array_column(x, guess_white(x)) for name, x in arrays.items()}
        left_out = [name for name in npz_names(file) if name not in arrays]
        columns |= {name: Column("text") for name in left_out}  # whose reading says what they hold
        has_words = INSTRUCTION in columns and columns[INSTRUCTION].kind == "text"
        return Description(
            where=str(file),
            noun="array",
            columns=columns,
            cameras={name: name for name, column in columns.items() if column.kind == "pictures"},
            action=("action",),
            proprio=(),
            guess=GUESS,
            origin=f"folder {self.folder.name}",
            instruction_column=INSTRUCTION if has_words else None,
            has_instruction=has_words,
            notes=tuple(f"left out: {name}, Python objects" for name in left_out),
        )

    def ids(self) -> Sequence[str]:
        """Return the files' names without ".npz"."""
        return [*self.files]

    def facts(self, episode: str) -> Mapping[str, Any]:
        """Return the file's single numbers and texts."""
        arrays = read_npz(self.files[episode])
        return {name: array.item() for name, array in arrays.items() if array.ndim == 0}

    def members(self, mask: str) -> Collection[str]:
        """Raise ConfigError: a folder of .npz files has no masks."""
        raise ConfigError(f"mask: .npz files have no '{mask}'; choose with episodes or where")

    def read(self, episode: str, columns: Collection[str]) -> Recording:
        """Read one file; raises DataError with the file's name."""
        file = self.files[episode]
        arrays = read_npz(file, columns)
        numbers = {name: x for name, x in arrays.items() if x.dtype.kind in "uifb"}
        length = max((len(x) for x in numbers.values() if x.ndim), default=0)
        texts = {
            name: _texts(file, name, x, length) for name, x in arrays.items() if name not in numbers
        }
        return Recording(str(file), length, {**numbers, **texts})


def _texts(file: Path, name: str, array: np.ndarray, length: int) -> list[str]:
    """Return the texts of an array that holds one, or one for each frame."""
    if array.dtype.kind != "U" or array.size not in (1, length):
        raise DataError(
            f"{file}: {name} is {array.dtype} {array.shape}, expected one string, or one for each "
            "frame; say instruction = ..."
        )
    return list(map(str, array.reshape(-1)))


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "npz"."""
    register("npz", NpzConfig, Npz)
