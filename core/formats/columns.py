"""Columns of numbers, pictures and text: which of them a setting names, joined and named."""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from core.errors import ConfigError, DataError, did_you_mean

WIDEST = 10_000  # numbers in an action or in the proprioception
# what a name in a file stands for; "text" is also what is no numbers
ArrayKind = Literal["pictures", "numbers", "text"]


def array_kind(shape: Sequence[int], dtype: np.dtype) -> ArrayKind:
    """What an array holds, one entry a frame: pictures are (n Y X 3)."""
    if dtype.kind not in "uifb":
        return "text"
    return "pictures" if len(shape) == 4 and shape[3] == 3 and dtype.kind != "b" else "numbers"


def check_mapping(
    where: Path | str,
    what: str,
    wanted: Mapping[str, Collection[str]],
    known: Mapping[str, ArrayKind],
) -> None:
    """Raise ConfigError, one line for each, where settings name what is not there, or not of the
    kind that is needed.

    where: the file that was looked at. what: "array", for example. wanted: names by what they must
    stand for. Raises DataError where no pictures are wanted for want of any.
    """
    if "pictures" in wanted and not wanted["pictures"]:
        raise DataError(
            f"{where}: holds no pictures, and an episode needs a camera; name another source"
        )
    mistakes = []
    for needed, names in wanted.items():
        fitting = [name for name, kind in known.items() if kind == needed]
        for name in names:
            if name not in known:
                mistakes.append(
                    f"{where}: there is no {what} '{name}'{did_you_mean(name, [*known])}"
                )
            elif known[name] != needed:
                said = f"{what} '{name}' holds {known[name]}, and {needed} are needed"
                mistakes.append(f"{where}: {said}{did_you_mean(name, fitting)}")
    if mistakes:
        raise ConfigError(mistakes)


def join_columns(columns: Sequence[np.ndarray], length: int, where: str) -> np.ndarray:
    """Columns (n ...) -> (n D) float32; raises DataError where one has another length or holds no
    numbers.
    """
    for column in columns:
        if column.dtype.kind not in "uifb" or column.ndim < 1 or len(column) != length:
            raise DataError(
                f"{where}: {column.dtype} {column.shape}, expected numbers of {length} frames"
            )
    with np.errstate(over="ignore"):  # what becomes infinite is refused when it enters a store
        flat = [column.reshape(length, -1).astype(np.float32) for column in columns]
    return np.concatenate([np.empty((length, 0), np.float32), *flat], axis=1)


def dimension_names(names_and_widths: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Names of joined columns: the name itself where it is one number wide, else name_0, name_1 ...

    Raises DataError where a column has no numbers, or more than any robot.
    """
    for name, width in names_and_widths:
        if not 1 <= width <= WIDEST:
            raise DataError(
                f"'{name}' holds {width:,} numbers a frame, expected 1 to {WIDEST:,}; name another"
            )
    return tuple(
        name if width == 1 else f"{name}_{i}"
        for name, width in names_and_widths
        for i in range(width)
    )


def flat_width(shape: Sequence[int]) -> int:
    """Numbers a frame in an array (n ...)."""
    return prod(int(length) for length in shape[1:])
