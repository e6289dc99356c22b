"""Calls an environment's methods, and checks what goes in and what comes out.

Every call of an environment that core makes goes through this module. An environment may be
anybody's code, and a value of a wrong kind would otherwise be believed by its truth value: the five
values of Gymnasium's `step` as success. Errors name the line of the environment's own code. The
functions run in the environment's process and must not need torch.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from core.environments.environment import Environment, Observation, StepResult
from core.environments.observations import Fit, as_array, as_float32, describe, plain
from core.errors import DataError
from core.system.tracebacks import place_of

HIGHEST_SCORE = float(np.finfo(np.float32).max)
ALREADY_DONE = (
    "the task was done before the first step, so that there is nothing to attempt; leave this seed "
    "out of the task's scenes"
)


def reset(environment: Environment, task: str, seed: int) -> None:
    """Begin an episode; raises DataError if its task is done already."""
    _expect_nothing(environment.reset, task, seed)
    _raise_if_done(environment)


def begin_chain(environment: Environment, seed: int) -> list[str]:
    """Begin a chain and return the names of its tasks; raises what `chain_names` raises."""
    return chain_names(environment, environment.begin_chain(seed))


def chain_names(environment: Environment, names: Any) -> list[str]:
    """Return what `environment.begin_chain` returned; DataError if it names no known tasks."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        what = f"returned {_brief(names)}; it must return the names of the chain's tasks"
        raise _mistake(environment.begin_chain, what)
    tasks = environment.tasks
    if unknown := [name for name in names if not (isinstance(name, str) and name in tasks)]:
        what = f"returned a chain with {unknown[0]!r}, which is none of `tasks`; correct the name"
        raise _mistake(environment.begin_chain, what)
    return list(names)


def proceed(environment: Environment, task: str) -> None:
    """Begin the next task of a chain; raises DataError if the task is done already."""
    _expect_nothing(environment.proceed, task)
    _raise_if_done(environment)


def step(environment: Environment, action: np.ndarray) -> StepResult:
    """Apply an action (A); return what the step has come to.

    Raises DataError for an action of another shape and for one that is not finite, which never
    reach the environment; and if the environment says neither with a bool nor with a StepResult
    what the step has come to. None, which a method without `return` gives, would otherwise count as
    "not done" in every step, and the five values of Gymnasium as "done" in the first one.
    """
    environment.info.action.check(action)
    return step_result(environment, environment.step(action))


def step_result(environment: Environment, returned: Any) -> StepResult:
    """Return the StepResult that `environment.step` returned, or one made from its bool.

    A step that is both a success and an end is a success.

    Raises DataError if it is neither, if `success` or `ended` is no bool, if `score` is neither
    None nor a number that float32 can hold, or if `metrics` holds anything but such numbers.
    """
    if isinstance(returned, bool | np.bool_):
        return StepResult(success=bool(returned))
    if not isinstance(returned, StepResult):
        raise _mistake(environment.step, f"returned {_brief(returned)}; {_remedy(returned)}")
    for name in ("success", "ended"):
        if not isinstance(value := getattr(returned, name), bool | np.bool_):
            what = f"returned StepResult({name}={value!r}); give {name} as True or False"
            raise _mistake(environment.step, what)
    score: Any = returned.score
    if score is not None and not _is_finite_number(score):
        what = f"returned StepResult(score={score!r}); give one finite number, or None"
        raise _mistake(environment.step, what)
    return StepResult(
        success=bool(returned.success),
        ended=bool(returned.ended and not returned.success),
        score=None if score is None else float(score),
        metrics=_metrics(environment, returned.metrics),
    )


def _metrics(environment: Environment, metrics: Any) -> dict[str, float]:
    """Return the metrics of a step as plain numbers; DataError if they are none."""
    right = "give a dict {name: one finite number}"
    if not isinstance(metrics, Mapping):
        what = f"returned StepResult(metrics={metrics!r}); {right}"
        raise _mistake(environment.step, what)
    for name, value in metrics.items():
        if not isinstance(name, str) or not _is_finite_number(value):
            what = f"returned StepResult(metrics={{{name!r}: {value!r}}}); {right}"
            raise _mistake(environment.step, what)
    return {name: float(value) for name, value in metrics.items()}


def expert_action(environment: Environment) -> np.ndarray:
    """Return the expert's action (A) float32.

    Raises DataError if it is not one finite number for each dimension of the action.
    """
    returned: Any = environment.expert()
    names = environment.info.action.names
    right = f"it must return one finite number for each of {', '.join(names)}"
    array = as_array(returned)
    if returned is None or array is None or array.dtype.kind not in "fiu":
        raise _mistake(environment.expert, f"returned {_brief(returned)}; {right}")
    if array.shape != (len(names),):
        what = f"returned an action of shape {array.shape}"
        raise _mistake(environment.expert, f"{what} instead of ({len(names)},); {right}")
    action = np.array(as_float32(array))
    if not np.isfinite(action).all():
        raise _mistake(environment.expert, f"returned {action.tolist()}; {right}")
    return action


def observe(environment: Environment) -> Observation:
    """Return the current observation, with nothing but what `info` announces.

    Raises DataError if it is none, or differs from `info`: cameras, proprioception and features
    have exactly its names, shapes and dtypes, and numbers are finite.
    """
    observation: Any = environment.observe()
    fit = Fit(environment.info, "`info` announces", exact=True)
    if (difference := next(fit.differences(observation), None)) is not None:
        raise _mistake(environment.observe, f"returned what does not fit: {difference}")
    return plain(observation, environment.info)


def _raise_if_done(environment: Environment) -> None:
    done: Any = environment.is_done()
    if done is not None and not isinstance(done, bool | np.bool_):
        what = f"returned {_brief(done)}; it must return True, False, or None if it is unknown"
        raise _mistake(environment.is_done, what)
    if done:
        raise DataError(ALREADY_DONE)


def _expect_nothing(method: Callable[..., Any], *arguments: Any) -> None:
    """Call a method; raise DataError if it returns anything.

    Who returns an observation here expects it to be used; and a coroutine has done nothing yet.
    """
    if (returned := method(*arguments)) is not None:
        what = f"returned {_brief(returned)}; it must return nothing: observe() gives observations"
        raise _mistake(method, what)


def _remedy(returned: object) -> str:
    if isinstance(returned, tuple) and len(returned) == 5:
        return (
            "Gymnasium's observation, reward, terminated, truncated and info become "
            "StepResult(success=..., ended=terminated or truncated, score=reward)"
        )
    return "it must return True when the task is done, otherwise False, or a StepResult"


def _is_finite_number(value: Any) -> bool:
    """Whether a score is finite, and so small that sums and variances of many scores are, too."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and bool(abs(value) <= HIGHEST_SCORE)


def _brief(value: object) -> str:
    if value is None or isinstance(value, np.ndarray):
        return "None" if value is None else f"an array {describe(value)}"
    return f"a {type(value).__name__}"


def _mistake(method: Callable[..., Any], what: str) -> DataError:
    """Return an error of one line about what a method of an environment returned."""
    name = getattr(method, "__qualname__", type(method).__name__)
    return DataError(f"{name} {' '.join(what.split())[:500]}{place_of(method)}")
