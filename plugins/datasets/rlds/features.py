"""The features of an episode's steps, as features.json declares them."""

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
class StepFeature:
    """A feature that every step has: the kind and the shape of one step's value."""

    kind: ArrayKind
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of values per step."""
        return prod(self.shape)


def read_features(folder: Path) -> dict[str, StepFeature]:
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
        tree = json.loads(path.read_text(encoding="utf-8"))
        steps = tree["featuresDict"]["features"][STEPS]["sequence"]["feature"]
        return dict(_leaves(steps, ""))
    except Exception as error:  # noqa: BLE001 - damaged JSON can say anything
        raise DataError(
            f"{path}: describes no episodes of steps ({one_line(error)}); copy the dataset again"
        ) from None


def _leaves(feature: Mapping[str, Any], name: str) -> Iterator[tuple[str, StepFeature]]:
    """Yield the name and the feature of each readable leaf of a nested feature."""
    if "featuresDict" in feature:
        for child_name, child in feature["featuresDict"]["features"].items():
            yield from _leaves(child, f"{name}/{child_name}".lstrip("/"))
    elif "text" in feature:
        yield name, StepFeature("text", ())
    elif "image" in feature:
        yield name, StepFeature("pictures", _shape(feature["image"]))
    elif "tensor" in feature and feature["tensor"].get("encoding", "none") in ("none", "NONE"):
        is_text = feature["tensor"].get("dtype") in ("string", "object", "str")
        yield name, StepFeature("text" if is_text else "numbers", _shape(feature["tensor"]))


def _shape(declaration: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(length) for length in declaration.get("shape", {}).get("dimensions", ()))
