"""Before training: record demonstrations; check that environment, recipe and data fit together."""

from collections.abc import Callable
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
from core.errors import ConfigError, DataError
from core.loading.opening import open_views
from core.recipe.recipe import Choice, Recipe
from core.recipe.sections import EvaluateConfig
from core.rollout.actor import disagreements
from core.rollout.plan import recipe_mistakes
from core.store.store import EpisodeStore


def prepare(recipe: Recipe, console: Console) -> None:
    """Record missing demonstrations, and check that a recipe's data and environment fit together.

    Does nothing if the recipe has neither [demonstrations] nor [evaluate]. Raises DataError if the
    data cannot be used, or ConfigError with every mistake in the recipe, one mistake per line.
    """
    if not (recipe.demonstrations or recipe.evaluate):
        return
    environment = describe_environment(recipe)
    if recipe.demonstrations:
        _record_missing_demonstrations(recipe, console)
    paths = ", ".join(str(source.path) for source in recipe.data.store_configs)
    data_info = open_views(recipe)[0].info
    if mistakes := disagreements(data_info, environment.info, f"the data in {paths}"):
        raise ConfigError(mistakes)


def describe_environment(recipe: Recipe) -> Description:
    """Build the recipe's environment in a worker and return its attributes.

    Raises ConfigError if the recipe names tasks, chains or words to swap that the environment does
    not have, and DataError if the environment cannot be built.
    """
    settings = recipe.evaluate or EvaluateConfig()
    demonstrated = recipe.demonstrations.tasks if recipe.demonstrations else ()
    with open_workers(environment_spec(recipe), 1, settings.timeout) as (worker,):
        environment: Description = _call(worker, describe)
        mistakes = list(recipe_mistakes(settings, demonstrated, environment.tasks))
        if settings.chains:
            try:
                _call(worker, begin_chain, EVALUATION_SEEDS)
            except DataError as error:
                mistakes.append(f"evaluate.chains: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    return environment


def environment_spec(recipe: Recipe) -> EnvironmentSpec:
    """Return how to build the recipe's environment; ConfigError if the recipe has none."""
    choice: Choice | None = recipe.environment
    if choice is None:
        raise ConfigError(
            "[environment]: the recipe has none to evaluate in; name one with --environment"
        )
    return EnvironmentSpec(choice.component.name, choice.component.build, choice.config)


def _record_missing_demonstrations(recipe: Recipe, console: Console) -> None:
    """Record the demonstrations that data.path lacks; quick if all are recorded already."""
    config, path = recipe.demonstrations, recipe.data.path
    assert config is not None
    if not isinstance(path, Path):
        raise ConfigError(
            f"data.path: {path} is a URL, where no [demonstrations] are recorded; "
            "drop the one or the other"
        )
    with live_progress(config.episodes, console) as report:
        summary = collect(
            environment_spec(recipe),
            path,
            config.tasks,
            config.episodes,
            config.noise,
            progress=report,
        )
    if summary.added:
        console.print(f"{path}: {summary}", soft_wrap=True, markup=False)
    if more := len(EpisodeStore(path)) - config.episodes * len(summary.tasks):
        console.print(
            f"{path}: {more} episodes more than [demonstrations] asks for; "
            "they are trained on, too",
            soft_wrap=True,
            markup=False,
        )


def _call(worker: Worker, function: Callable[..., Any], *arguments: Any) -> Any:
    worker.submit(function, *arguments)
    try:
        return worker.result()
    except EnvironmentFailed as error:
        raise DataError(f"environment '{worker.spec.name}' {error}") from None
