"""What features.json says of an episode's steps."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from core import DataError, one_line
from core.formats import ArrayKind, file_size

STEPS = "steps"


@dataclass(frozen=True)
class Leaf:
    """A feature of every step: its kind, and the shape of one step's value."""

    kind: ArrayKind
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Numbers in a step."""
        return prod(self.shape)


def read_features(folder: Path) -> dict[str, Leaf]:
    """The features of a step by their names below "steps/", "observation/image" for example.

    Raises DataError where there is no features.json, or one of another layout.
    """
    path = folder / "features.json"
    if not path.exists():
        raise DataError(
            f"{path}: not there; name the folder of a dataset's version, with features.json in it"
        )
    file_size(path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        steps = tree["featuresDict"]["features"][STEPS]["sequence"]["feature"]
        return dict(_leaves(steps, ""))
    except Exception as error:  # noqa: BLE001 - damaged JSON can say anything
        raise DataError(
            f"{path}: describes no episodes of steps ({one_line(error)}); copy the dataset again"
        ) from None


def _leaves(feature: Mapping[str, Any], name: str) -> Iterator[tuple[str, Leaf]]:
    if "featuresDict" in feature:
        for child, below in feature["featuresDict"]["features"].items():
            yield from _leaves(below, f"{name}/{child}".lstrip("/"))
    elif "text" in feature:
        yield name, Leaf("text", ())
    elif "image" in feature:
        yield name, Leaf("pictures", _shape(feature["image"]))
    elif "tensor" in feature and feature["tensor"].get("encoding", "none") in ("none", "NONE"):
        text = feature["tensor"].get("dtype") in ("string", "object", "str")
        yield name, Leaf("text" if text else "numbers", _shape(feature["tensor"]))


def _shape(described: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(length) for length in described.get("shape", {}).get("dimensions", ()))
