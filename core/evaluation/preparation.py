"""Before training: does the environment offer what the recipe asks for, are the demonstrations
there, do they fit?
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from core.demonstrations.collect import collect
from core.demonstrations.progress import live_progress
from core.environments.environment import EVALUATION_SEEDS
from core.environments.recovery import begin_chain
from core.environments.workers import (
    Description,
    EnvironmentFailed,
    EnvironmentSpec,
    Worker,
    describe,
    open_workers,
)
from core.episodes.episode import StoreInfo
from core.errors import ConfigError, DataError
from core.loading.training_data import open_views
from core.recipe.recipe import Choice, Recipe
from core.recipe.sections import EvaluateConfig
from core.rollout import plan as protocol
from core.rollout.actor import disagreements
from core.store.store import EpisodeStore


def prepare(recipe: Recipe, console: Console) -> None:
    """Make sure that a recipe's data can be had and its evaluation can be done, and record missing
    demonstrations.

    Raises ConfigError with every mistake, one per line, or DataError.
    """
    if not (recipe.demonstrations or recipe.evaluate):
        return
    world = inspect(recipe)
    if recipe.demonstrations:
        _record(recipe, console)
    _check_data(recipe, world.info)


def _record(recipe: Recipe, console: Console) -> None:
    """Record the demonstrations that data.path lacks; costs next to nothing where it has them all."""
    wanted, path = recipe.demonstrations, recipe.data.path
    assert wanted is not None
    if not isinstance(path, Path):
        raise ConfigError(
            f"data.path: {path} is a URL, where no [demonstrations] are recorded; drop the one or the other"
        )
    with live_progress(wanted.episodes, console) as report:
        summary = collect(
            spec_of(recipe), path, wanted.tasks, wanted.episodes, wanted.noise, progress=report
        )
    if summary.added:
        console.print(f"{path}: {summary}", soft_wrap=True, markup=False)
    if more := len(EpisodeStore(path)) - wanted.episodes * len(summary.tasks):
        console.print(
            f"{path}: {more} episodes more than [demonstrations] asks for; they are trained on, too",
            soft_wrap=True,
            markup=False,
        )


def _check_data(recipe: Recipe, world: StoreInfo) -> None:
    """What is trained on and what is evaluated in must mean the same by an action, a camera and a
    number.
    """
    where = ", ".join(str(source.path) for source in recipe.data.store_configs)
    if mistakes := disagreements(open_views(recipe)[0].info, world, f"the data in {where}"):
        raise ConfigError(mistakes)


def inspect(recipe: Recipe) -> Description:
    """Ask the environment about itself; raises ConfigError where the recipe asks for what it does
    not offer.
    """
    settings = recipe.evaluate or EvaluateConfig()
    shown = recipe.demonstrations.tasks if recipe.demonstrations else ()
    with open_workers(spec_of(recipe), 1, settings.timeout) as (worker,):
        world: Description = _ask(worker, describe)
        mistakes = list(protocol.mistakes(settings, shown, world.tasks))
        if settings.chains:
            try:
                _ask(worker, begin_chain, EVALUATION_SEEDS)
            except DataError as error:
                mistakes.append(f"evaluate.chains: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    return world


def spec_of(recipe: Recipe) -> EnvironmentSpec:
    """Return the recipe's environment for a worker; raises ConfigError where it names none."""
    choice: Choice | None = recipe.environment
    if choice is None:
        raise ConfigError(
            "[environment]: the recipe has none to evaluate in; name one with --environment"
        )
    return EnvironmentSpec(choice.component.name, choice.component.build, choice.config)


def _ask(worker: Worker, function: Any, *arguments: Any) -> Any:
    worker.submit(function, *arguments)
    try:
        return worker.result()
    except EnvironmentFailed as error:
        raise DataError(f"environment '{worker.spec.name}' {error}") from None
