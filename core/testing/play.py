"""Episodes of an environment under test: how they are played, and how observations compare."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from core.environments.environment import Environment, Observation, StepResult
from core.environments.observations import Fit, arrays, copy_of
from core.episodes.episode import StoreInfo
from core.errors import DataError
from core.registry.hookspecs import Build
from core.testing.common import attempt, expect

# control steps of an episode in which observations are compared
STEPS = 8


@dataclass(frozen=True)
class World:
    """Builds environments for one check, and closes them after it.

    build, config: as the plugin registers them.
    """

    build: Build
    config: Any
    built: list[Environment] = field(default_factory=list)

    def make(self) -> Environment:
        """Build another environment."""
        environment: Environment = self.build(self.config)
        if isinstance(environment, Environment):
            self.built.append(environment)
        return environment

    def close(self) -> None:
        """Close all environments that were built."""
        for environment in self.built:
            attempt("close()", "no error", environment.close)


@dataclass(frozen=True)
class Play:
    """A few control steps: copies of all observations, the actions, and what `step` returned.

    returned: as the environment returned it, unchecked.
    """

    observations: list[Observation] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    returned: list[object] = field(default_factory=list)


def play(
    environment: Environment, task: str, seed: int, actions: Sequence[np.ndarray] | None = None
) -> Play:
    """Begin an episode and make a few control steps, until the episode is over.

    actions: those to take; default: the expert's, or random ones if there is no expert.
    """
    environment.reset(task, seed)
    played = Play([copy_of(environment.observe())])
    generator = np.random.default_rng(seed)
    for step in range(STEPS if actions is None else len(actions)):
        action = _natural_action(environment, generator) if actions is None else actions[step]
        played.actions.append(action)
        played.returned.append(environment.step(action))
        played.observations.append(copy_of(environment.observe()))
        if is_over(played.returned[-1]):
            break
    return played


def is_over(returned: object) -> bool:
    """Whether an episode is over after a step that returned this; an unfit value ends nothing."""
    if isinstance(returned, StepResult):
        return returned.done
    return isinstance(returned, bool | np.bool_) and bool(returned)


def _natural_action(environment: Environment, generator: np.random.Generator) -> np.ndarray:
    """Return the expert's action (A), or a random one if there is no expert."""
    convention = environment.info.action
    try:
        action = np.array(environment.expert(), np.float32)
    except DataError:
        return generator.uniform(-1, 1, convention.dim).astype(np.float32)
    attempt("the expert", "a valid action", partial(convention.check, action))
    return action


def has_expert(environment: Environment) -> bool:
    """Begin an episode; return whether the environment has an expert."""
    next(startable_tasks(environment))
    try:
        environment.expert()
    except DataError:
        return False
    return True


def startable_tasks(environment: Environment, names: Iterable[str] | None = None) -> Iterator[str]:
    """Yield the tasks with which an episode can begin; a chain alone may reach the others.

    Each task is begun just before it is yielded: a simulator may take long to load one.

    names: the tasks to try; default: all.
    """
    for name in environment.tasks if names is None else names:
        with suppress(DataError):
            environment.reset(name, 0)
            yield name


def first_and_last(environment: Environment) -> list[str]:
    """Return the first and the last of the tasks with which an episode can begin."""
    first = next(startable_tasks(environment))
    last = next(startable_tasks(environment, reversed(list(environment.tasks))))
    return [first] if first == last else [first, last]


def differences(first: Observation, second: Observation) -> list[str]:
    """Name the arrays in which two observations differ."""
    mine, others = arrays(first), arrays(second)
    return [
        name
        for name in {**mine, **others}
        if name not in mine
        or name not in others
        or not np.array_equal(mine[name], others[name], equal_nan=mine[name].dtype.kind == "f")
    ]


def expect_same(received: Observation, expected: Observation, what: str) -> None:
    """Check that two observations agree bit by bit."""
    names = differences(received, expected)
    expect(not names, what, "the same observation", f"another {', '.join(names)}")


def expect_fits(observation: Observation, info: StoreInfo, where: str) -> None:
    """Check names, shapes and types of an observation, and that its numbers are finite."""
    fit = Fit(info, "`info` announces", exact=True)
    difference = next(fit.differences(observation), None)
    expect(difference is None, f"observation of {where}", "what `info` says", str(difference))


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python and numpy in the block, and restore them after it."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
