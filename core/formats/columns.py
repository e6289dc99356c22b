"""Columns of a dataset: find out what each holds, check settings that name them, and join them.

A column is an array (n ...) with one entry for each frame.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from core.episodes.episode import number_repeated
from core.errors import ConfigError, DataError, did_you_mean

# A column of an action or of the proprioception may hold at most this many numbers per frame.
MAX_WIDTH = 10_000
# "pictures" are colour images; "text" is everything that is neither images nor numbers.
ArrayKind = Literal["pictures", "numbers", "text"]


def array_kind(shape: Sequence[int], dtype: np.dtype) -> ArrayKind:
    """Return what an array (n ...) holds: "pictures" have the shape (n Y X 3)."""
    if dtype.kind not in "uifb":
        return "text"
    return "pictures" if len(shape) == 4 and shape[3] == 3 and dtype.kind != "b" else "numbers"


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
                    f"{where}: {what} '{name}' holds {known[name]}, and {needed} are needed"
                    f"{did_you_mean(name, candidates)}"
                )
    if mistakes:
        raise ConfigError(mistakes)


def join_columns(columns: Sequence[np.ndarray], length: int, where: str) -> np.ndarray:
    """Join columns of numbers (n ...) into one array (n D) of float32; n is `length`.

    Raises DataError if a column does not have this length, or does not hold numbers.
    """
    for column in columns:
        if column.dtype.kind not in "uifb" or column.ndim < 1 or len(column) != length:
            raise DataError(
                f"{where}: {column.dtype} {column.shape}, expected numbers of {length} frames"
            )
    # Numbers too large for float32 become infinite here; a store refuses infinite numbers later.
    with np.errstate(over="ignore"):
        parts = [column.reshape(length, -1).astype(np.float32) for column in columns]
    return np.concatenate([np.empty((length, 0), np.float32), *parts], axis=1)


def distinct_names(short_names: Mapping[str, str], separator: str) -> dict[str, str]:
    """Return {column: name}: the short name if no other column has it, else the column's own name.

    short_names: {column: short name}.
    separator: separates the words of a column's name; it becomes "_".
    """
    occurrences = Counter(short_names.values())
    names = [
        short if occurrences[short] == 1 else column.replace(separator, "_")
        for column, short in short_names.items()
    ]
    return dict(zip(short_names, number_repeated(names), strict=True))


def dimension_names(names_and_widths: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Name the dimensions of joined columns: `name` for a column of width 1, else `name_0` ...

    Raises DataError if the width of a column is 0 or larger than MAX_WIDTH.
    """
    dimensions: list[str] = []
    for name, width in names_and_widths:
        if not 1 <= width <= MAX_WIDTH:
            raise DataError(
                f"'{name}' holds {width:,} numbers a frame, expected 1 to {MAX_WIDTH:,}; "
                "name another"
            )
        dimensions += [name] if width == 1 else [f"{name}_{i}" for i in range(width)]
    return tuple(dimensions)


def flat_width(shape: Sequence[int]) -> int:
    """Return the number of values per frame in an array of shape (n ...)."""
    return prod(int(length) for length in shape[1:])
