"""Finds pictures and numbers in the nested observations and infos of Gymnasium."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from core import DataError, did_you_mean
from plugins.environments.gymnasium.config import RENDER


def look_up(nested: Any, key: str, where: str, more: tuple[str, ...] = ()) -> Any:
    """Return the entry of a nested mapping that a key joined by dots leads to; "": all of it.

    where: the key of the recipe that says so, for the message.
    more: words that the recipe may say instead, for the message.

    Raises DataError with the keys that exist.
    """
    found = nested
    for name in key.split(".") if key else ():
        if not isinstance(found, Mapping) or name not in found:
            known = [*keys_of(nested), *more]
            what = f"{where}: there is no '{key}'{did_you_mean(key, known)}"
            raise DataError(what if known else f"{where}: there is no '{key}'; it has no keys")
        found = found[name]
    return found


def keys_of(nested: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of all entries that are no mappings themselves, joined by dots."""
    if not isinstance(nested, Mapping):
        return
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def picture_of(environment: Any, observed: Any, key: str, where: str) -> np.ndarray:
    """Return a copy of a picture (Y X 3) uint8: what is rendered, or an entry of an observation.

    Raises DataError if it is none; the message names the pictures that the observation has.
    """
    is_drawn = key == RENDER
    picture = np.array(
        environment.render() if is_drawn else look_up(observed, key, where, (RENDER,))
    )
    if not _is_picture(picture):
        pictures = [name for name in keys_of(observed) if _is_picture(look_up(observed, name, ""))]
        known = ", ".join(f"'{name}'" for name in (*pictures, *([] if is_drawn else [RENDER])))
        raise DataError(
            f"{where}: '{key}' is {picture.dtype} {picture.shape}, and no picture of rows, columns "
            f"and RGB in uint8; pictures: {known or 'none'}"
        )
    return picture


def numbers_of(observed: Any, key: str) -> np.ndarray:
    """Return an entry of an observation as a vector (n) float32; DataError if it is none."""
    where = "environment.proprio"
    numbers = np.asarray(look_up(observed, key, where))
    if numbers.dtype.kind not in "fiub" or numbers.ndim > 1:
        vectors = [name for name in keys_of(observed) if np.ndim(look_up(observed, name, "")) == 1]
        raise DataError(
            f"{where}: '{key}' is {numbers.dtype} {numbers.shape}, and no vector of numbers; "
            f"vectors: {', '.join(vectors) or 'none'}"
        )
    return np.array(numbers, np.float32).reshape(-1)


def number_of(outcome: Mapping[str, Any], key: str, where: str) -> float:
    """Return an entry of a step's outcome as a number; DataError if it is none."""
    value = np.asarray(look_up(outcome, key, where))
    if value.size != 1 or value.dtype.kind not in "fiub":
        known = [name for name in keys_of(outcome) if np.ndim(look_up(outcome, name, "")) == 0]
        raise DataError(
            f"{where}: '{key}' is {value.dtype} {value.shape}, and no number; numbers: "
            f"{', '.join(known)}"
        )
    return float(value.reshape(()))


def one_for_each(values: tuple[str, ...], count: int, where: str) -> tuple[str, ...]:
    """Return `count` values, given one for all, one for each, or none; DataError otherwise."""
    if len(values) not in (0, 1, count):
        raise DataError(f"{where}: {len(values)} for {count} numbers; give one for all or for each")
    return values * count if len(values) == 1 else values


def _is_picture(value: Any) -> bool:
    is_array = isinstance(value, np.ndarray) and value.ndim == 3
    return is_array and value.shape[2] == 3 and value.dtype == np.uint8
