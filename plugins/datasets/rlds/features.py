"""The features of an episode's steps, as features.json declares them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core import DataError, one_line
from core.formats import Column, file_size, parse_json

STEPS, EPISODE = "steps", "episode_metadata"
# the types that a feature of numbers may declare and that a store can hold
NUMBERS = ("bool", "uint8", "uint16", "int8", "int16", "int32", "int64", "float16", "float64")
# a store has no such types, and a record holds every integer as int64
WIDER = {"uint32": "int64", "uint64": "int64"}


def read_features(folder: Path) -> dict[str, Column]:
    """Return {name: feature} of a step; a name is a path such as "observation/image".

    Raises DataError if features.json is missing or does not describe steps.
    """
    path = folder / "features.json"
    if not path.exists():
        raise DataError(
            f"{path}: not there; name the folder of a dataset's version, with features.json in it"
        )
    file_size(path)
    try:
        tree = parse_json(path.read_text(encoding="utf-8"))
        steps = tree["featuresDict"]["features"][STEPS]["sequence"]["feature"]
        return dict(_leaves(steps, ""))
    except Exception as error:  # noqa: BLE001 - damaged JSON can say anything
        raise DataError(
            f"{path}: describes no episodes of steps ({one_line(error)}); copy the dataset again"
        ) from None


def _leaves(feature: Mapping[str, Any], name: str) -> Iterator[tuple[str, Column]]:
    """Yield the name and the feature of each readable leaf of a nested feature."""
    if "featuresDict" in feature:
        for child_name, child in feature["featuresDict"]["features"].items():
            yield from _leaves(child, f"{name}/{child_name}".lstrip("/"))
    elif "text" in feature:
        yield name, Column("text", (), "string")
    elif "image" in feature:
        shape = _shape(feature["image"])
        is_colour = len(shape) == 3 and shape[2] in (3, 4)
        if is_colour:
            yield name, Column("pictures", (*shape[:2], 3), "uint8")
        else:
            yield name, Column("depth", shape, str(feature["image"].get("dtype", "uint8")))
    elif "tensor" in feature and feature["tensor"].get("encoding", "none") in ("none", "NONE"):
        dtype = str(feature["tensor"].get("dtype"))
        if dtype in ("string", "object", "str"):
            yield name, Column("text", (), "string")
        else:
            dtype = WIDER.get(dtype, dtype if dtype in NUMBERS else "float32")
            yield name, Column("numbers", _shape(feature["tensor"]), dtype)


def _shape(declaration: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(length) for length in declaration.get("shape", {}).get("dimensions", ()))
