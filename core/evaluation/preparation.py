"""Before training: record demonstrations; check that environment, recipe and data fit together."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from core.demonstrations.collect import collect
from core.demonstrations.progress import live_progress
from core.environments.environment import default_tasks
from core.environments.recovery import EnvironmentCall, begin_chain, reset
from core.environments.repeatability import scene_differences
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
from core.recipe.contents import Choice, Recipe
from core.recipe.sections import EvaluateConfig
from core.rollout.actor import disagreements, renaming_hint
from core.rollout.plan import recipe_mistakes, task_names
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
    _check_agreement(recipe, environment)


def check_only(recipe: Recipe, console: Console) -> bool:
    """Check what `prepare` checks; record nothing, but say what would be recorded.

    Return whether there are data to train on. Raises what `prepare` raises.
    """
    if not (recipe.demonstrations or recipe.evaluate):
        return True
    environment = describe_environment(recipe)
    if recipe.demonstrations:
        path = _path_of_demonstrations(recipe)
        missing = _missing_demonstrations(recipe, path, environment)
        if missing:
            listed = ", ".join(f"{count} of {task}" for task, count in missing.items())
            line = f"{path}: demonstrations would be recorded: {listed}"
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        if not (path / "zarr.json").exists():
            line = "without them there are no data to build the policy for, so this is all for now"
            console.print(line, soft_wrap=True)
            return False
    _check_agreement(recipe, environment)
    return True


def _missing_demonstrations(recipe: Recipe, path: Path, environment: Description) -> dict[str, int]:
    """Return {task: number of demonstrations that a store lacks}, for tasks that lack any."""
    config = recipe.demonstrations
    assert config is not None
    recorded: Counter[str] = Counter()
    if (path / "zarr.json").exists():
        store = EpisodeStore(path)
        recorded.update(store.task_name(episode) for episode in range(len(store)))
    names = config.tasks or default_tasks(environment.tasks)
    missing = {name: config.episodes - recorded[name] for name in names}
    return {name: count for name, count in missing.items() if count > 0}


def _check_agreement(recipe: Recipe, environment: Description) -> None:
    """Raise ConfigError if the environment does not fit the data."""
    paths = ", ".join(str(source.path) for source in recipe.data.store_configs)
    data_info = open_views(recipe)[0].info
    if mistakes := disagreements(data_info, environment.info, f"the data in {paths}"):
        raise ConfigError([*mistakes, *renaming_hint(data_info, environment.info)])


def describe_environment(recipe: Recipe, look: bool = False) -> Description:
    """Build the recipe's environment in a worker and return its attributes.

    look: whether to begin the first attempt twice, to see whether its scene is the same.

    Cameras and numbers have the names that the recipe gives them. Raises ConfigError if the recipe
    names tasks, chains, cameras, numbers or words to swap that the environment does not have, and
    DataError if the environment cannot be built.
    """
    settings = recipe.evaluate or EvaluateConfig()
    demonstrated = recipe.demonstrations.tasks if recipe.demonstrations else ()
    with open_workers(environment_spec(recipe), 1, settings.timeout) as (worker,):
        environment: Description = _call(worker, describe)
        mistakes = list(recipe_mistakes(settings, demonstrated, environment.tasks))
        try:
            environment = replace(environment, info=settings.new_names.rename(environment.info))
        except DataError as error:
            mistakes.append(f"evaluate.{error}")
        if settings.chains:
            try:
                _call(worker, begin_chain, settings.first_seed)
            except DataError as error:
                mistakes.append(f"evaluate.chains: {error}")
        if mistakes:
            raise ConfigError(mistakes)
        if look:
            call = first_call(settings, demonstrated, environment)
            differences = scene_differences(worker, call, environment.replayable)
            environment = replace(environment, scene_differences=differences)
    return environment


def first_call(
    settings: EvaluateConfig, demonstrated: Sequence[str], environment: Description
) -> EnvironmentCall:
    """Return the call that begins the first attempt, or the first chain if there are only chains.

    demonstrated: names of the tasks in [demonstrations].
    """
    if not settings.episodes:
        return EnvironmentCall(begin_chain, (settings.first_seed,))
    task = task_names(settings.tasks, demonstrated, environment.tasks)[0]
    return EnvironmentCall(reset, (task, settings.first_seed))


def environment_spec(recipe: Recipe) -> EnvironmentSpec:
    """Return how to build the recipe's environment; ConfigError if the recipe has none."""
    choice: Choice | None = recipe.environment
    if choice is None:
        raise ConfigError(
            "[environment]: the recipe has none to evaluate in; name one with --environment"
        )
    component = choice.component
    return EnvironmentSpec(component.name, component.build, choice.config, str(component.plugin))


def _record_missing_demonstrations(recipe: Recipe, console: Console) -> None:
    """Record the demonstrations that data.path lacks; quick if all are recorded already."""
    config, path = recipe.demonstrations, _path_of_demonstrations(recipe)
    assert config is not None
    with live_progress(config.episodes, console) as report:
        summary = collect(
            environment_spec(recipe),
            path,
            config.tasks,
            config.episodes,
            config.noise,
            progress=report,
        )
    for line in summary.warnings:
        console.print(f"warning: {line}", soft_wrap=True, markup=False, highlight=False)
    if summary.added:
        console.print(f"{path}: {summary}", soft_wrap=True, markup=False)
    if more := len(EpisodeStore(path)) - config.episodes * len(summary.tasks):
        console.print(
            f"{path}: {more} episodes more than [demonstrations] asks for; "
            "they are trained on, too",
            soft_wrap=True,
            markup=False,
        )


def _path_of_demonstrations(recipe: Recipe) -> Path:
    """Return the folder of the store of demonstrations; raises ConfigError for a URL."""
    path = recipe.data.path
    if not isinstance(path, Path):
        raise ConfigError(
            f"data.path: {path} is a URL, where no [demonstrations] are recorded; "
            "drop the one or the other"
        )
    return path


def _call(worker: Worker, function: Callable[..., Any], *arguments: Any) -> Any:
    worker.submit(function, *arguments)
    try:
        return worker.result()
    except EnvironmentFailed as error:
        raise DataError(f"{worker.spec} {error}") from None
