"""Reads the files of a run's folder; a file may be missing, but a damaged file is an error.

This module imports neither torch nor plugins, so that it can also read runs of other machines and
of other versions of Joinery.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DataError
from core.evaluation.results_log import read_results
from core.formats.arrays import npz_names, read_npz
from core.recipe.former import rename_former_keys
from core.recipe.packages import read_origins
from core.report.run_metrics import Metrics, read_metrics
from core.rollout.results import Evaluation
from core.system.links import check_run
from core.training.continuations import Continuation, read_continuations

# Letters by which numpy denotes kinds of data types, such as "f" for floats.
TEXT, BOOLEAN, INTEGER, NUMBER = "U", "b", "iu", "biuf"
# files in the folder of an evaluation; each of them tells that it is one
RESULTS = ("results.json", "episodes.jsonl", "held_out.json", "predictions.npz")


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run's files except large arrays; a field is None if its file is missing.

    recipe: the text of recipe.toml.
    settings: the contents of recipe.toml, {section: {key: value}}; keys of earlier versions
        are given their present names. Empty if recipe.toml is missing.
    continuations: how the recipe has changed during the run; empty if it has not.
    components: {section: component, package and version}; empty for runs of earlier versions.
    results: folder of the evaluation, which need not exist.
    """

    folder: Path
    name: str
    recipe: str | None
    settings: Mapping[str, Any]
    components: Mapping[str, str]
    metrics: Metrics | None
    evaluation: Evaluation | None
    results: Path
    continuations: Sequence[Continuation] = ()


@dataclass(frozen=True)
class PredictedEpisode:
    """A held-out episode, with the action chunk that the policy predicts at each step.

    names: names of the action dimensions (A).
    true: the demonstrator's actions (n A).
    predicted: the action chunk that the policy predicts at each step (n H A).
    """

    task: str
    instruction: str
    names: tuple[str, ...]
    true: np.ndarray
    predicted: np.ndarray


def evaluation_folder(folder: Path) -> Path:
    """Return where the results of a run are, or `folder` itself if it holds results.

    `joinery evaluate` writes them to RUN/evaluation, or to any folder that --output names.
    """
    own = folder / "evaluation"
    holds_results = any((folder / name).is_file() for name in RESULTS)
    return folder if holds_results and not own.is_dir() else own


def read_run(folder: Path) -> RunRecord:
    """Read a run's recipe, metrics and results.

    folder: the folder of a run, or that of an evaluation. The recipe and the metrics of an
        evaluation are those of its run, if it lies in the run's folder.

    Raises DataError if one of the files is damaged, if all of them are missing, or if a link in the
    folder leads out of it.
    """
    check_run(folder)
    results = evaluation_folder(folder)
    evaluation = read_results(results)
    run = _run_of(folder, evaluation) if results == folder else folder
    recipe, metrics = (
        path if path.is_file() else None for path in (run / "recipe.toml", run / "metrics.jsonl")
    )
    if not (recipe or metrics or any((results / name).is_file() for name in RESULTS)):
        raise DataError(
            f"{folder}: no run here, and no evaluation: no recipe.toml, metrics.jsonl or results; "
            "name the folder of a run, or the one that joinery evaluate --output named"
        )
    text, settings = _read_recipe(recipe) if recipe else (None, {})
    components = {name: str(origin) for name, origin in read_origins(run).items()}
    return RunRecord(
        folder=folder,
        name=folder.resolve().name,
        recipe=text,
        settings=settings,
        components=components or _components_of(evaluation),
        metrics=read_metrics(metrics) if metrics else None,
        evaluation=evaluation,
        results=results,
        continuations=read_continuations(run),
    )


def _run_of(folder: Path, evaluation: Evaluation | None) -> Path:
    """Return the folder of the run whose evaluation lies in `folder`; itself if that is unknown.

    Raises DataError if a link in the run's folder leads out of it.
    """
    above = folder.resolve().parent
    recipe = above / "recipe.toml"
    if evaluation is None or not recipe.is_file():
        return folder
    checksum = sha256(recipe.read_bytes()).hexdigest()
    if checksum != evaluation.policy.get("recipe_sha256"):
        return folder
    check_run(above)
    return above


def _components_of(evaluation: Evaluation | None) -> dict[str, str]:
    """Return the components that an evaluation has noted of its run."""
    noted = evaluation.policy.get("components") if evaluation else None
    return {str(key): str(value) for key, value in noted.items()} if isinstance(noted, dict) else {}


def read_predictions(folder: Path) -> list[PredictedEpisode]:
    """Read the predictions.npz of a run or an evaluation; return an empty list if it is missing.

    Raises DataError if it is damaged.
    """
    path = evaluation_folder(folder) / "predictions.npz"
    if not path.is_file():
        return []
    arrays = read_arrays(path)
    names = tuple(str(name) for name in get_array(path, arrays, "names", 1, TEXT))
    prefixes = {name.partition("/")[0] for name in arrays if "/" in name}
    episodes = []
    for number in sorted({int(prefix) for prefix in prefixes if prefix.isdecimal()}):
        true = get_array(path, arrays, f"{number}/true", 2, NUMBER)
        predicted = get_array(path, arrays, f"{number}/predicted", 3, NUMBER)
        if true.shape[1] != len(names) or predicted.shape[::2] != true.shape or not predicted.size:
            raise DataError(
                f"{path}: episode {number}: expected true (n A) and predicted (n H A) "
                f"with A = {len(names)}"
            )
        task = str(get_array(path, arrays, f"{number}/task", 0, TEXT))
        instruction = str(get_array(path, arrays, f"{number}/instruction", 0, TEXT))
        episodes.append(PredictedEpisode(task, instruction, names, true, predicted))
    return episodes


def _read_recipe(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of recipe.toml, and its contents with the present names of all keys."""
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not valid TOML: {error}; restore it from the recipe that was run"
        ) from None
    rename_former_keys(values)
    return text, values


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file; pickled arrays are refused, since they could run code.

    Raises DataError if the file is damaged.
    """
    arrays = read_npz(path, npz_names(path))
    try:
        for array in arrays.values():
            if array.dtype.kind == TEXT:
                # This fails for a lone surrogate: half a character, not valid in a page.
                np.char.encode(array, "utf-8")
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); evaluate the run again") from None
    return arrays


def get_array(
    path: Path, arrays: Mapping[str, np.ndarray], name: str, dimensions: int, kinds: str
) -> np.ndarray:
    """Return the named array; raises DataError if it is missing, or of a wrong rank or kind.

    kinds: letters by which numpy denotes kinds of data types.
    """
    array = arrays.get(name)
    if array is None or array.ndim != dimensions or array.dtype.kind not in kinds:
        actual = "it is missing" if array is None else f"got {array.ndim} of {array.dtype}"
        raise DataError(
            f"{path}: '{name}': expected an array of {dimensions} dimensions, {actual}; "
            "evaluate again"
        )
    return array
