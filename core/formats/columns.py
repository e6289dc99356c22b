"""Columns of a dataset: what each holds, which of their numbers are chosen, and their names.

A column is an array (n ...) with one entry for each frame.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from core.episodes.episode import number_repeated
from core.errors import ConfigError, DataError, did_you_mean

# A column of an action or of the proprioception may hold at most this many numbers per frame.
MAX_WIDTH = 10_000
# "pictures" are colour images, and "depth" images of one channel; "text" is everything that is
# neither images nor numbers.
ArrayKind = Literal["pictures", "depth", "numbers", "text"]


@dataclass(frozen=True)
class Column:
    """What a column holds.

    shape: the shape of one frame's entry; () for a single number.
    dtype: numpy's name for the type of the numbers.
    names: the names of the numbers, if the dataset has one for each; else empty.
    short_name: the column's name without what all columns have in common; default: its name.
    white: the value that stands for white in images.
    texts: {number: text}, if the column's numbers stand for texts that the dataset lists elsewhere.
    """

    kind: ArrayKind
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    names: tuple[str, ...] = ()
    short_name: str = ""
    white: float = 255.0
    texts: Mapping[int, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Number of values per frame."""
        return prod(self.shape)


@dataclass(frozen=True)
class Selected:
    """The numbers `first` to `stop - 1` of a column."""

    column: str
    first: int
    stop: int

    def of(self, array: np.ndarray) -> np.ndarray:
        """Take the numbers from the column's array (n ...) -> (n D)."""
        return array.reshape(len(array), prod(array.shape[1:]))[:, self.first : self.stop]


def array_kind(shape: Sequence[int], dtype: np.dtype) -> ArrayKind:
    """Return what an array (n ...) holds: "pictures" have the shape (n Y X 3)."""
    if dtype.kind not in "uifb":
        return "text"
    return "pictures" if len(shape) == 4 and shape[3] == 3 and dtype.kind != "b" else "numbers"


def array_column(array: np.ndarray, white: float = 255.0) -> Column:
    """Describe a column by its array (n ...), or by anything with a shape and a type like one."""
    kind = array_kind(array.shape, array.dtype)
    return Column(kind, tuple(map(int, array.shape[1:])), array.dtype.name, white=white)


def check_mapping(
    where: Path | str,
    what: str,
    expected: Mapping[str, Collection[str]],
    known: Mapping[str, ArrayKind],
) -> None:
    """Check that every column named in the settings exists and holds the expected kind of array.

    where: the file that holds the columns.
    what: the format's word for a column, "array" for example.
    expected: {kind: names of the columns that must hold this kind}.
    known: {name of a column in the file: the kind that it holds}.

    Raises ConfigError with a line for each name that is wrong, and DataError if `expected` has the
    key "pictures" with no names under it.
    """
    if "pictures" in expected and not expected["pictures"]:
        raise DataError(
            f"{where}: holds no pictures, and an episode needs a camera; name another source"
        )
    mistakes = []
    for needed, names in expected.items():
        candidates = [name for name, kind in known.items() if kind == needed]
        for name in names:
            if name not in known:
                suggestion = did_you_mean(name, [*known])
                mistakes.append(f"{where}: there is no {what} '{name}'{suggestion}")
            elif known[name] != needed:
                mistakes.append(
                    f"{where}: {what} '{name}' holds {known[name]}, not {needed}"
                    f"{did_you_mean(name, candidates)}"
                )
    if mistakes:
        raise ConfigError(mistakes)


# ------------------------------------------------------------------------- some numbers of a column


def column_of(entry: str, known: Collection[str]) -> str:
    """Return the column that an entry of a selection names: "state[0:7]" names "state"."""
    return entry if entry in known else entry.partition("[")[0]


def select_numbers(entry: str, columns: Mapping[str, Column]) -> Selected:
    """Return the numbers that an entry of a selection names; its column must exist.

    Raises ConfigError if the numbers in brackets are no numbers of the column.
    """
    name = column_of(entry, columns)
    shape, width = columns[name].shape, columns[name].width
    if min(shape, default=1) < 1 or width > MAX_WIDTH:
        numbers = " x ".join(f"{length:,}" for length in shape)
        raise DataError(
            f"'{name}' holds {numbers} numbers a frame, expected 1 to {MAX_WIDTH:,}; name another"
        )
    if entry == name:
        return Selected(name, 0, width)
    match = re.fullmatch(r"\[(\d*)(:?)(\d*)\]", entry.removeprefix(name))
    if match:
        first = int(match[1] or 0)
        stop = int(match[3] or width) if match[2] else first + 1
        if (match[1] or match[2]) and first < stop <= width:
            return Selected(name, first, stop)
    raise ConfigError(
        f"'{entry}': '{name}' holds the numbers 0 to {width - 1}; write {name}[0:{width}] for all, "
        f"or {name}[{width - 1}] for the last"
    )


def selected_names(selection: Sequence[Selected], columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Name the chosen numbers: as the dataset does, or else by column and place.

    If two columns have a name in common, it gets the column's name in front, so that no two numbers
    have one name.
    """
    short = distinct_names(
        {part.column: columns[part.column].short_name or part.column for part in selection}
    )
    own = [_names_within(part, columns, short) for part in selection]
    owners: dict[str, set[str]] = {}
    for part, names in zip(selection, own, strict=True):
        for name in names:
            owners.setdefault(name, set()).add(part.column)
    names = [
        name if len(owners[name]) == 1 else f"{short[part.column]}_{name}"
        for part, names in zip(selection, own, strict=True)
        for name in names
    ]
    return number_repeated(names)


def _names_within(
    part: Selected, columns: Mapping[str, Column], short: Mapping[str, str]
) -> Sequence[str]:
    column = columns[part.column]
    if len(column.names) == column.width:
        return column.names[part.first : part.stop]
    return dimension_names([(short[part.column], column.width)])[part.first : part.stop]


def dimension_names(names_and_widths: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Name the dimensions of joined columns: `name` for a column of width 1, else `name_0` ..."""
    dimensions: list[str] = []
    for name, width in names_and_widths:
        dimensions += [name] if width == 1 else [f"{name}_{i}" for i in range(width)]
    return tuple(dimensions)


def distinct_names(short_names: Mapping[str, str]) -> dict[str, str]:
    """Return {column: name}: the short name if no other column has it, else the column's own name.

    short_names: {column: short name}. A "/" in a column's own name becomes "_".
    """
    occurrences = Counter(short_names.values())
    names = [
        short if occurrences[short] == 1 else column.replace("/", "_")
        for column, short in short_names.items()
    ]
    return dict(zip(short_names, number_repeated(names), strict=True))


def join_columns(columns: Sequence[np.ndarray], length: int, where: str) -> np.ndarray:
    """Join columns of numbers (n ...) into one array (n D) of float32; n is `length`.

    Raises DataError if a column does not have this length, or does not hold numbers.
    """
    for column in columns:
        if column.dtype.kind not in "uifb" or column.ndim < 1 or len(column) != length:
            raise DataError(
                f"{where}: {column.dtype} {column.shape}, expected numbers of {length} frames; "
                "name another"
            )
    # Numbers too large for float32 become infinite here; a store refuses infinite numbers later.
    with np.errstate(over="ignore"):
        parts = [
            column.reshape(length, prod(column.shape[1:])).astype(np.float32) for column in columns
        ]
    return np.concatenate([np.empty((length, 0), np.float32), *parts], axis=1)
