"""A cheap look before many attempts: does the same task and seed show the same scene twice?

If not, results cannot be repeated, and a store or an evaluation that is continued holds scenes that
its seeds do not give. An environment that ignores its seed differs by far, and one that draws or
computes on a GPU by very little: that is nearly the same scene. The figures are told in both cases,
and nothing is refused.
"""

from collections.abc import Mapping

from core.environments.environment import Environment
from core.environments.observations import changes, copy_of
from core.environments.recovery import EnvironmentCall, call_and_observe
from core.environments.workers import EnvironmentFailed, Worker
from core.errors import DataError

# {array: largest difference} between two scenes of one seed; None if nobody could look
Differences = Mapping[str, float] | None
# the largest differences, in grey levels of images and in units of numbers, of nearly equal scenes
FAINT_IMAGES, FAINT_NUMBERS = 8.0, 1e-4
ANOTHER = "no: "


def scene_differences(
    worker: Worker, call: EnvironmentCall, replayable: bool = True
) -> Differences:
    """Make a call that begins an episode or a chain twice; return how the scenes differ.

    replayable: False for a robot, which is not moved for a look.

    An environment that fails is left to the attempts, which say why; its worker is restarted.
    """
    if not replayable:
        return None
    try:
        worker.submit(begin_twice, call)
        differences: Mapping[str, float] = worker.result()
    except EnvironmentFailed:
        worker.restart()
        return None
    except DataError:
        return None
    return differences


def begin_twice(environment: Environment, call: EnvironmentCall) -> dict[str, float]:
    """Make a call twice, in the environment's process; return {array: largest difference}."""
    _, first = call_and_observe(environment, call.function, *call.arguments)
    kept = copy_of(first)
    _, second = call_and_observe(environment, call.function, *call.arguments)
    return changes(kept, second)


def in_words(differences: Differences) -> str:
    """Say whether two scenes of one seed were the same, for results and pages."""
    if differences is None:
        return "not tried"
    if not differences:
        return "yes"
    return f"{'nearly: ' if _is_faint(differences) else ANOTHER}{_figures(differences)}"


def is_another_scene(words: str) -> bool:
    """Return whether what `in_words` said means that a seed shows another scene each time."""
    return words.startswith(ANOTHER)


def warning(environment: str, call: EnvironmentCall, differences: Differences) -> str | None:
    """Return a line of text if two scenes of one seed were not the same."""
    if not differences:
        return None
    words = ", ".join(repr(argument) for argument in call.arguments)
    begin = f"{environment}: {call.function.__name__}({words})"
    if _is_faint(differences):
        return (
            f"{begin} gave nearly the same scene when it was called again: "
            f"{_figures(differences)}; results can be repeated as exactly as that"
        )
    return (
        f"{begin} gave another scene when it was called again: {_figures(differences)}; results "
        "cannot be repeated; draw everything in a scene from the seed"
    )


def _is_faint(differences: Mapping[str, float]) -> bool:
    return all(
        largest <= (FAINT_IMAGES if name.startswith("image ") else FAINT_NUMBERS)
        for name, largest in differences.items()
    )


def _figures(differences: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} differs by up to {largest:.3g}" for name, largest in differences.items()
    )
