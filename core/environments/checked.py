"""Calls an environment's methods, and checks what they return; errors name the plugin's own line.

The functions run in the environment's process and must not need torch.
"""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from core.environments.environment import Environment, Observation, StepResult
from core.errors import DataError
from core.system.tracebacks import place_of

HIGHEST_SCORE = float(np.finfo(np.float32).max)


def step(environment: Environment, action: np.ndarray) -> StepResult:
    """Apply an action (A); return what the step has come to.

    Raises DataError if the environment says so neither with a bool nor with a StepResult. None,
    which a method without `return` gives, would otherwise count as "not done" in every step, and
    the five values of Gymnasium as "done" in the first one.
    """
    return step_result(environment, environment.step(action))


def step_result(environment: Environment, returned: Any) -> StepResult:
    """Return the StepResult that `environment.step` returned, or one made from its bool.

    A step that is both a success and an end is a success.

    Raises DataError if it is neither, if `success` or `ended` is no bool, or if `score` is neither
    None nor a number that float32 can hold.
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
    )


def _remedy(returned: object) -> str:
    if isinstance(returned, tuple) and len(returned) == 5:
        return (
            "Gymnasium's observation, reward, terminated, truncated and info become "
            "StepResult(success=..., ended=terminated or truncated, score=reward)"
        )
    return "it must return True when the task is done, otherwise False, or a StepResult"


def _is_finite_number(value: object) -> bool:
    """Whether a score is finite, and so small that sums and variances of many scores are, too."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= HIGHEST_SCORE


def expert_action(environment: Environment) -> np.ndarray:
    """Return the expert's action (A) float32.

    Raises DataError if it is not one finite number for each dimension of the action.
    """
    returned: Any = environment.expert()
    names = environment.info.action.names
    right = f"it must return one finite number for each of {', '.join(names)}"
    try:
        action = np.array(returned, np.float32)
    except (TypeError, ValueError):
        raise _mistake(environment.expert, f"returned {_brief(returned)}; {right}") from None
    if action.shape != (len(names),):
        what = f"returned an action of shape {action.shape}"
        raise _mistake(environment.expert, f"{what} instead of ({len(names)},); {right}")
    if not np.isfinite(action).all():
        raise _mistake(environment.expert, f"returned {action.tolist()}; {right}")
    return action


def observe(environment: Environment) -> Observation:
    """Return the current observation.

    Raises DataError if it is none, or lacks a camera or feature that the environment announces.
    """
    observation: Any = environment.observe()
    if not isinstance(observation, Observation):
        what = f"returned {_brief(observation)}; it must return an Observation"
        raise _mistake(environment.observe, what)
    info = environment.info
    for label, given, announced in (
        ("images", observation.images, info.cameras),
        ("features", observation.features, info.features),
    ):
        if missing := _missing(given, announced):
            raise _mistake(
                environment.observe,
                f"returned {label} of {_list(given)}, without {_list(missing)}, which `info` "
                "announces; give them equal names",
            )
    return observation


def _missing(given: Mapping[str, Any], announced: Mapping[str, Any]) -> list[str]:
    return [name for name in announced if name not in given]


def _list(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"


def _brief(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _mistake(method: Callable[..., Any], what: str) -> DataError:
    """Return an error about what a method of an environment returned."""
    return DataError(f"{method.__qualname__} {what}{place_of(method)}")
