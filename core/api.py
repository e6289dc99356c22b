"""The Python API, for notebooks and other people's programs.

docs/walkthrough.ipynb walks through it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.errors import ConfigError, TrainingError
from core.evaluation.evaluation import evaluate as evaluate_run
from core.evaluation.preparation import prepare
from core.loading.dataset import Dataset
from core.loading.mixture import Member, Mixture
from core.loading.opening import open_data
from core.loading.samples import Samples
from core.loading.view import StoreView
from core.loading.windows import Windows
from core.recipe.contents import Recipe
from core.recipe.places import find_places
from core.recipe.recipe import load_recipe as load_checked_recipe, load_recipe_of_run
from core.registry.catalogue import load_plugins
from core.rollout.actor import load_actor
from core.rollout.loaded_policy import LoadedPolicy
from core.rollout.results import Evaluation
from core.store.location import address
from core.store.store import EpisodeStore
from core.system.console import output as output_console
from core.training.train import train as train_recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check all of it.

    overrides: a list of "section.key=value", ["train.steps=100"] for example.

    Raises ConfigError with a line for every mistake.
    """
    _raise_if_text(overrides)
    return load_checked_recipe(Path(path), list(overrides), load_plugins())


def open_store(path: str | Path) -> EpisodeStore:
    """Open an episode store: a folder `name.zarr`, or its URL (s3://, gs://, https://).

    `len(store)` is the number of episodes, and `store[3]` is the episode with index 3.

    Raises DataError if there is no store at `path`, or if its metadata are damaged. Damaged frames
    raise DataError when they are read.
    """
    return EpisodeStore(address(path) if isinstance(path, str) else path)


def training_samples(
    source: Recipe | EpisodeStore,
    *,
    window: int | None = None,
    horizon: int | None = None,
    split: Literal["training", "validation"] = "training",
) -> Samples:
    """Return the samples that a policy is trained on: `training_samples(recipe)[17]` is one sample.

    source: a recipe or a store. A recipe sets cameras, conventions, normalisation, window and
        horizon. Without a recipe, the samples have the store's cameras and conventions. Their
        actions are then not normalised, except that a gripper with two states becomes 0 or 1.
    window: number of frames of history (T); only for a store; default: 1.
    horizon: number of actions in a chunk (H); only for a store; default: 1.
    split: "training" selects the episodes that the recipe trains on; "validation" selects the
        episodes that the recipe holds out. A store without a recipe has no held-out episodes.

    Raises DataError if the data are missing or damaged, and ConfigError if an argument does not
    apply to the source, or if the recipe and its stores disagree.
    """
    if split not in ("training", "validation"):
        raise ConfigError(f"split: expected 'training' or 'validation', got {split!r}")
    if isinstance(source, Recipe):
        if window is not None or horizon is not None:
            raise ConfigError("window, horizon: a recipe sets them; override data.window instead")
        data = open_data(source)
        if split == "validation" and not data.validation.window_count:
            raise ConfigError("split: the recipe holds nothing out; set data.validation_episodes")
        return Samples(data.training if split == "training" else data.validation)
    if split != "training":
        raise ConfigError("split: a store alone has no held-out episodes; give a recipe")
    view = StoreView.plain(source, features=tuple(source.info.features))
    statistics = view.statistics
    dataset = Dataset(
        view,
        Normalizer.fit(statistics["action"], view.info.action, "none"),
        ProprioNormalizer.fit(statistics["proprio"]),
    )
    windows = Windows(source, np.arange(len(source)), window or 1, horizon or 1)
    return Samples(Mixture([Member(dataset, windows)]))


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    resume: bool = False,
    with_changes: bool = False,
    moved: Mapping[str, str] | None = None,
) -> Path:
    """Train the policy of a recipe, and return the run's folder, `output`.

    If the store lacks demonstrations that the recipe asks for, they are recorded first. Training
    on several devices starts the calling program again for each further device (Fabric's "ddp"). A
    notebook cannot be started again, so override `train.devices=1` there. Environments run in
    separate processes, and each of these processes imports the calling script. So a script must
    call this function below `if __name__ == "__main__":`.

    resume: go on from the newest checkpoint in `output`, as if nothing had interrupted the run.
    with_changes: go on although the recipe or the data have changed; the run records what did.
    moved: {former place of a file or folder: its place now}, of those that the recipe of a run
        names: of this one, to resume it, or of one with whose weights it begins.

    Raises ConfigError, DataError, CheckpointError or TrainingError.
    """
    folder = Path(output)
    if resume:
        recipe = find_places(recipe, folder, moved or {})
    prepare(recipe, output_console())
    code = train_recipe(recipe, folder, resume=resume, with_changes=with_changes, moved=moved)
    if code != 0:
        raise TrainingError(f"{folder}: stopped by a signal; go on with resume=True")
    return folder


def load_policy(
    run: str | Path,
    checkpoint: Literal["last", "best"] | int = "last",
    store: str | None = None,
    *,
    moved: Mapping[str, str] | None = None,
) -> LoadedPolicy:
    """Load the policy of a run, ready to act.

    checkpoint: the newest ("last"), that with the lowest validation error ("best"), or the step
        after which it was saved, 2000 for example.
    store: for a policy that was trained on several stores, the name of one of them; the policy's
        actions are in that store's units. Default: the first store of the recipe.
    moved: {former place of a file or folder that the recipe names: its place now}, if the weights
        of a frozen part have moved. The data are not needed.

    Raises CheckpointError, or ConfigError if a plugin is missing or `store` is unknown.
    """
    return LoadedPolicy(load_actor(Path(run), checkpoint, store, moved=moved))


def evaluate(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    moved: Mapping[str, str] | None = None,
) -> Evaluation:
    """Let a run's policy act in the environment of its recipe, and count its successes.

    A second call with the same checkpoint and overrides returns the results of the first call.
    Environments run in separate processes, and each of these processes imports the calling script.
    So a script must call this function below `if __name__ == "__main__":`.

    overrides: changes to the recipe's [evaluate] and [environment], "evaluate.episodes=5" for
        example.
    output: folder of the results; default: RUN/evaluation.
    moved: {former place of a file or folder that the recipe names: its place now}.

    Raises ConfigError, DataError or CheckpointError.
    """
    _raise_if_text(overrides)
    recipe = load_recipe_of_run(Path(run), overrides, load_plugins(), moved=moved)
    folder = Path(output) if output else None
    return evaluate_run(Path(run), recipe, output_console(), folder, moved)


def _raise_if_text(overrides: Sequence[str]) -> None:
    """Raise ConfigError if `overrides` is one text instead of a list of texts."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides: expected a list, got a text; write [{overrides!r}]")
