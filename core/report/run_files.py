"""What a report is made from: the files of a run's folder, each of which may be missing, none of
which may be damaged.

Read with numpy and the standard library alone, so that runs of other machines and versions can be
reported.
"""

import struct
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DataError
from core.report.run_metrics import Metrics, read_metrics
from core.rollout.results import Evaluation, read_evaluation

# what numpy and zipfile raise at an .npz that is truncated, overwritten or something else
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    RuntimeError,
)
TEXT, TRUTH, WHOLE, NUMBER = "U", "b", "iu", "biuf"  # kinds of numpy's types


@dataclass(frozen=True)
class RunRecord:
    """A run, without the large arrays. None: that file is missing.

    recipe: recipe.toml as written, and `settings` what it says, {section: {key: value}}.
    """

    folder: Path
    name: str
    recipe: str | None
    settings: Mapping[str, Any]
    metrics: Metrics | None
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Rollout:
    """One recorded attempt.

    images: {camera: (n Y X 3) uint8}. gripper: (n) float, from 0, closed, to 1, open.
    """

    task: str
    instruction: str
    seed: int
    success: bool
    images: Mapping[str, np.ndarray]
    gripper: np.ndarray


@dataclass(frozen=True)
class PredictedEpisode:
    """A validation episode beside what the policy would have done: true (n A), predicted (n H A)."""

    task: str
    instruction: str
    names: tuple[str, ...]  # A
    true: np.ndarray
    predicted: np.ndarray


def read_run(folder: Path) -> RunRecord:
    """Read recipe, metrics and results; raises DataError where a file is damaged or where there is
    nothing at all.
    """
    paths = [
        folder / "recipe.toml",
        folder / "metrics.jsonl",
        folder / "evaluation" / "results.json",
    ]
    recipe, metrics, results = (path if path.is_file() else None for path in paths)
    if not (recipe or metrics or results):
        raise DataError(
            f"{folder}: no run here: no recipe.toml, metrics.jsonl or evaluation; name the folder of a run"
        )
    text, settings = _read_recipe(recipe) if recipe else (None, {})
    return RunRecord(
        folder=folder,
        name=folder.resolve().name,
        recipe=text,
        settings=settings,
        metrics=read_metrics(metrics) if metrics else None,
        evaluation=read_evaluation(results) if results else None,
    )


def rollout_files(folder: Path) -> list[Path]:
    """The recorded attempts of a run, by name."""
    return sorted((folder / "evaluation" / "rollouts").glob("*.npz"))


def read_rollout(path: Path) -> Rollout:
    """Read one recorded attempt; raises DataError if it is damaged."""
    arrays = _read_arrays(path)
    images = {
        name.removeprefix("camera/"): x for name, x in arrays.items() if name.startswith("camera/")
    }
    gripper = _array(path, arrays, "gripper", 1, NUMBER)
    whole = all(
        x.ndim == 4 and x.shape[-1] == 3 and x.size and x.dtype == np.uint8 for x in images.values()
    )
    if not (images and whole and all(len(x) == len(gripper) for x in images.values())):
        raise DataError(
            f"{path}: expected camera/NAME (n Y X 3) uint8 and gripper (n); evaluate the run again"
        )
    return Rollout(
        task=str(_array(path, arrays, "task", 0, TEXT)),
        instruction=str(_array(path, arrays, "instruction", 0, TEXT)),
        seed=int(_array(path, arrays, "seed", 0, WHOLE)),
        success=bool(_array(path, arrays, "success", 0, TRUTH)),
        images=images,
        gripper=np.nan_to_num(gripper.astype(np.float64)).clip(0, 1),
    )


def read_predictions(folder: Path) -> list[PredictedEpisode]:
    """Read evaluation/predictions.npz; none where it is missing. Raises DataError if it is damaged."""
    path = folder / "evaluation" / "predictions.npz"
    if not path.is_file():
        return []
    arrays = _read_arrays(path)
    names = tuple(str(name) for name in _array(path, arrays, "names", 1, TEXT))
    episodes = []
    for number in sorted(
        {
            int(n)
            for n, slash, _ in (key.partition("/") for key in arrays)
            if slash and n.isdecimal()
        }
    ):
        true = _array(path, arrays, f"{number}/true", 2, NUMBER)
        predicted = _array(path, arrays, f"{number}/predicted", 3, NUMBER)
        if true.shape[1] != len(names) or predicted.shape[::2] != true.shape or not predicted.size:
            raise DataError(
                f"{path}: episode {number}: expected true (n A) and predicted (n H A) with A = {len(names)}"
            )
        task, instruction = (
            str(_array(path, arrays, f"{number}/{key}", 0, TEXT)) for key in ("task", "instruction")
        )
        episodes.append(PredictedEpisode(task, instruction, names, true, predicted))
    return episodes


def _read_recipe(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not valid TOML: {error}; restore it from the recipe that was run"
        ) from None


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of an .npz; pickled ones are refused, since loading them would run code."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        for array in arrays.values():
            if array.dtype.kind == TEXT:
                np.char.encode(
                    array, "utf-8"
                )  # an array can hold half a character, which no page can
        return arrays
    except DAMAGED as error:
        raise DataError(f"{path}: damaged ({error}); evaluate the run again") from None


def _array(
    path: Path, arrays: Mapping[str, np.ndarray], name: str, dimensions: int, kinds: str
) -> np.ndarray:
    array = arrays.get(name)
    if array is None or array.ndim != dimensions or array.dtype.kind not in kinds:
        found = "it is missing" if array is None else f"got {array.ndim} of {array.dtype}"
        raise DataError(
            f"{path}: '{name}': expected an array of {dimensions} dimensions, {found}; evaluate again"
        )
    return array
