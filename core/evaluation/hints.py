"""What an evaluation points out at its beginning: tasks never done, other images or versions."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from core.demonstrations.collect import recorded_versions
from core.environments.environment import Task
from core.environments.workers import Description
from core.episodes.renaming import rename_keys
from core.errors import ConfigError, DataError
from core.evaluation.first_images import describe_images, environment_images, training_images
from core.evaluation.predictions import view_of_evaluated_store
from core.evaluation.preparation import environment_spec
from core.loading.view import StoreView
from core.recipe.contents import Recipe
from core.recipe.sections import EvaluateConfig
from core.rollout.actor import Actor
from core.rollout.plan import PlannedAttempt, PlannedRollout
from core.rollout.results import STANDARD


def find_hints(
    actor: Actor,
    recipe: Recipe,
    environment: Description,
    plan: Sequence[PlannedRollout],
    identity: Mapping[str, Any],
) -> list[str]:
    """Return a line for each thing that may be the reason for a low success rate.

    identity: what the results depend on; see core/evaluation/identity.py.
    """
    try:
        view, label = view_of_evaluated_store(recipe)
    except (DataError, ConfigError):
        view, label = None, ""  # there is nothing to look at
    versions, policy = identity["environment"]["versions"], identity["policy"]
    origins = policy.get("trained_on") or ({label: view.store.info.origin} if view else {})
    attempted = {planned.task for planned in plan if isinstance(planned, PlannedAttempt)}
    hints = list(tasks_without_success(environment.tasks, attempted))
    hints += other_versions(origins.values(), versions)
    if view is not None:
        hints += _other_images(actor, recipe, environment, plan, view)
    return hints


def tasks_without_success(tasks: Mapping[str, Task], attempted: Collection[str]) -> Iterator[str]:
    """Yield a line that names the attempted tasks which can never be done; none if there are none.

    Their success rate is zero, whatever the policy does.
    """
    names = [name for name, task in tasks.items() if name in attempted and not task.has_success]
    if names:
        yield f"never done, so that only scores tell how good the policy is: {', '.join(names)}"


def other_versions(origins: Iterable[str], present: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each library that recorded the data in another version than it has now.

    origins: where the data come from, as their stores say it.
    present: {library: version} of the evaluation.
    """
    recorded = [pair for origin in origins for pair in recorded_versions(origin).items()]
    for library, version in dict.fromkeys(recorded):
        if present.get(library, version) != version:
            yield (
                f"{library}: the demonstrations were recorded with version {version}, and the "
                f"evaluation has {present[library]}"
            )


def _other_images(
    actor: Actor,
    recipe: Recipe,
    environment: Description,
    plan: Sequence[PlannedRollout],
    view: StoreView,
) -> Iterator[str]:
    """Yield a line for each camera whose first images differ from those of the training data.

    A robot's scene is not arranged for this alone, so an environment that cannot be replayed is not
    looked at.
    """
    attempts = [p for p in plan if isinstance(p, PlannedAttempt) and p.condition == STANDARD]
    if not (attempts and environment.replayable):
        return
    try:
        training = training_images(view, actor.info)
    except DataError:
        return  # damaged data are the business of other commands
    settings = recipe.evaluate or EvaluateConfig()
    observed = environment_images(environment_spec(recipe), attempts, settings.timeout)
    observed = rename_keys(observed, settings.new_names.cameras)
    for camera, images in training.items():
        if camera in observed and (what := describe_images(images, observed[camera])):
            yield f"camera '{camera}': held against the training data, first images are {what}"
