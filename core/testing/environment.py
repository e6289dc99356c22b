"""Contract tests of environments."""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from core.environments.attributes import attribute_mistakes
from core.environments.checked import chain_names, reset, step, step_result
from core.environments.environment import EVALUATION_SEEDS, Environment, StepResult
from core.environments.observations import copy_of
from core.environments.workers import EnvironmentSpec, Worker, describe
from core.episodes.episode import StoreInfo
from core.errors import DataError
from core.registry.hookspecs import Build
from core.testing.common import Check, attempt, expect, first_then
from core.testing.play import (
    World,
    differences,
    expect_fits,
    expect_same,
    first_and_last,
    global_generators,
    has_expert,
    play,
    startable_tasks,
)

SEEDS = (0, 1, 2)
TIMEOUT = 300.0  # seconds


def checks(build: Build, config: Any) -> list[Check]:
    """Return the checks of an environment."""

    def run(test: Callable[[World], None]) -> None:
        with closing(World(build, config)) as world:
            test(world)

    tests = (
        tasks_are_stable,
        runs_in_a_process_of_its_own,
        observations_are_what_info_says,
        observations_do_not_change_later,
        observing_changes_nothing,
        a_used_environment_equals_a_new_one,
        seeds_decide,
        step_says_whether_the_task_is_done,
        no_task_is_done_before_it_begins,
        expert_obeys_the_action_convention,
        expert_changes_nothing,
        expert_succeeds,
        chains_are_of_known_tasks,
        closes,
    )
    return first_then(
        Check("builds_and_plays", partial(run, builds_and_plays)),
        [Check(test.__name__, partial(run, test)) for test in tests],
    )


def builds_and_plays(world: World) -> None:
    """`build(config)` returns an Environment with its attributes, in which an episode can begin."""
    environment = attempt("build", "an Environment", world.make)
    received = type(environment).__name__
    expect(isinstance(environment, Environment), "build", "an Environment", f"a {received}")
    for name, kind in (("info", StoreInfo), ("tasks", Mapping), ("versions", Mapping)):
        value = getattr(environment, name, None)
        expect(isinstance(value, kind), f"self.{name}", f"a {kind.__name__}", repr(value)[:80])
    expect(bool(environment.tasks), "self.tasks", "at least one task", "none")
    task = attempt("reset", "no error", lambda: next(startable_tasks(environment), None))
    expect(task is not None, "reset", "a task with which an episode can begin", "DataError for all")
    assert task is not None
    attempt(f"an episode of '{task}'", "no error", partial(play, environment, task, 0))


def tasks_are_stable(world: World) -> None:
    """Attributes are what `Environment` says, and the same every time.

    Tasks are named as their keys, and have instructions and steps.
    """
    environment, other = world.make(), world.make()
    mistake = next(attribute_mistakes(environment), None)
    expect(mistake is None, "attributes", "those of an Environment", str(mistake))
    for what in ("info", "tasks", "versions"):
        first, again = getattr(environment, what), getattr(other, what)
        expect(again == first, f"{what} of an environment that is built again", "the same", "other")


def runs_in_a_process_of_its_own(world: World) -> None:
    """`build`, `config` and the attributes can be pickled, and another process builds the same."""
    environment = world.make()
    spec = EnvironmentSpec("under_test", world.build, world.config)
    worker = attempt("an environment in another process", "one", partial(Worker, spec, TIMEOUT))
    try:
        worker.submit(describe)
        description = attempt("an environment in another process", "one", worker.result)
    finally:
        worker.close()
    expect(description == describe(environment), "info, tasks, versions there", "as here", "others")


def observations_are_what_info_says(world: World) -> None:
    """Images, proprioception and features have the names, shapes and types of `info`."""
    environment = world.make()
    for task in first_and_last(environment):
        for number, observation in enumerate(play(environment, task, 0).observations):
            expect_fits(observation, environment.info, f"'{task}' after {number} steps")


def observations_do_not_change_later(world: World) -> None:
    """An observation is a copy: what happens after it does not change its arrays."""
    environment = world.make()
    task = next(startable_tasks(environment))
    environment.reset(task, 0)
    before = environment.observe()
    kept = copy_of(before)
    for action in play(world.make(), task, 0).actions:
        environment.step(action)
        environment.observe()
    environment.reset(task, 1)
    environment.observe()
    expect_same(before, kept, "an observation after later steps (return a copy)")


def observing_changes_nothing(world: World) -> None:
    """`observe` may be called any number of times, and gives the same every time."""
    environment, other = world.make(), world.make()
    for task in first_and_last(environment):
        once = play(environment, task, 0)
        other.reset(task, 0)
        for action in once.actions:
            other.observe()
            expect_same(other.observe(), other.observe(), "observe() called again")
            other.step(action)
        expect_same(
            other.observe(), once.observations[-1], f"'{task}', observed four times as often"
        )
        other.reset(task, 0)
        for action in once.actions:
            other.step(action)
        expect_same(other.observe(), once.observations[-1], f"'{task}', observed at the end alone")


def a_used_environment_equals_a_new_one(world: World) -> None:
    """(task, seed, actions) determine every observation, whatever was done or drawn before."""
    used = world.make()
    for seed in (0, EVALUATION_SEEDS):
        for task in first_and_last(used):
            for other in first_and_last(used):
                play(used, other, seed + 1)
            with global_generators(1):
                new = play(world.make(), task, seed)
            with global_generators(2):
                again = play(used, task, seed, new.actions)
            for number, (expected, received) in enumerate(
                zip(new.observations, again.observations, strict=True)
            ):
                where = f"'{task}', seed {seed}, after {number} steps"
                expect_same(received, expected, f"{where}, in a used environment")
            what, same = f"'{task}', seed {seed}: step", again.returned == new.returned
            expect(same, what, f"{new.returned}", "others")


def seeds_decide(world: World) -> None:
    """Not all seeds of a task give the same scene."""
    environment = world.make()
    for task in startable_tasks(environment):
        scenes = []
        for seed in SEEDS:
            environment.reset(task, seed)
            scenes.append(copy_of(environment.observe()))
        alike = all(not differences(scene, scenes[0]) for scene in scenes[1:])
        expect(not alike, f"'{task}' with the seeds {SEEDS}", "scenes that differ", "one scene")


def step_says_whether_the_task_is_done(world: World) -> None:
    """`step` returns a bool or a StepResult."""
    environment = world.make()
    for task in startable_tasks(environment):
        for returned in play(environment, task, 0).returned:
            check = partial(step_result, environment, returned)
            attempt("step", "True, False or a StepResult", check)


def no_task_is_done_before_it_begins(world: World) -> None:
    """After `reset`, the task is not done, and an action that commands nothing does not do it.

    An attempt at such a task would count as success whatever the policy does. Zeros command nothing
    in mode "delta" alone; a gripper is given its open value.
    """
    environment = world.make()
    convention = environment.info.action
    action = np.zeros(convention.dim, np.float32)
    for gripper in convention.grippers:
        action[gripper.dimension] = gripper.open
    for task in startable_tasks(environment):
        for seed in SEEDS:
            attempt(
                f"'{task}', seed {seed}", "a task to do", partial(reset, environment, task, seed)
            )
            if convention.mode == "delta":
                done = step(environment, action).success
                where = f"'{task}', seed {seed}, after a step that commands nothing"
                expect(not done, where, "no success", "success")


def expert_obeys_the_action_convention(world: World) -> None:
    """Actions of mode "delta" lie in [-1, 1], and those of grippers between closed and open.

    Core clips disturbed actions of mode "delta" to [-1, 1]. All experts' actions that are played in
    these tests must be finite and of shape (A).
    """
    environment = world.make()
    if not has_expert(environment):
        return
    convention = environment.info.action
    low = np.full(convention.dim, -1.0 if convention.mode == "delta" else -np.inf)
    high = -low
    for gripper in convention.grippers:
        ends = sorted((gripper.closed, gripper.open))
        low[gripper.dimension], high[gripper.dimension] = ends
    for task in startable_tasks(environment):
        for action in play(environment, task, 0).actions:
            outside = (action < low - 1e-6) | (action > high + 1e-6)
            names = [convention.names[d] for d in np.flatnonzero(outside)]
            expect(
                not names,
                f"expert of '{task}', {', '.join(names)}",
                f"{low[outside]} to {high[outside]}",
                f"{action[outside]}",
            )


def expert_changes_nothing(world: World) -> None:
    """The expert's action depends on the present state alone: asked again, it says the same."""
    environment = world.make()
    if not has_expert(environment):
        return
    for task in first_and_last(environment):
        played = play(environment, task, 0)
        environment.reset(task, 0)
        for number, action in enumerate(played.actions):
            for _ in range(2):
                again = np.array(environment.expert(), np.float32)
                where = f"expert of '{task}' at step {number}, asked again"
                expect(np.array_equal(again, action), where, f"{action}", f"{again}")
            environment.step(action)
        what = f"'{task}', if the expert is asked twice"
        expect_same(environment.observe(), played.observations[-1], what)


def expert_succeeds(world: World) -> None:
    """The expert does each task in at least one of three scenes, within the task's steps."""
    environment = world.make()
    if not has_expert(environment):
        return
    for name in startable_tasks(environment):
        expected = f"at least one success in {environment.tasks[name].max_steps} steps"
        succeeds = any(_expert_demonstrates(environment, name, seed) for seed in SEEDS)
        expect(succeeds, f"the expert at '{name}', with the seeds {SEEDS}", expected, "none")


def _expert_demonstrates(environment: Environment, task: str, seed: int) -> bool:
    environment.reset(task, seed)
    result = StepResult()
    for _ in range(environment.tasks[task].max_steps):
        result = step(environment, np.array(environment.expert(), np.float32))
        if result.done:
            break
    return environment.tasks[task].is_demonstrated(result)


def chains_are_of_known_tasks(world: World) -> None:
    """If there are chains, the seed decides on the tasks, and each task can be begun."""
    environment, other = world.make(), world.make()
    try:
        returned = environment.begin_chain(0)
    except DataError:
        return
    expected = "names of self.tasks"
    names = attempt("begin_chain(0)", expected, partial(chain_names, environment, returned))
    play(other, names[0], 1)
    again = list(other.begin_chain(0))
    expect(again == names, "begin_chain(0) in a used environment", f"{names}", f"{again}")
    for name in names[:1]:
        for each in (environment, other):
            attempt(f"proceed('{name}')", "no error", partial(each.proceed, name))
        received = copy_of(other.observe())
        expect_fits(received, environment.info, f"'{name}' in a chain")
        expect_same(received, environment.observe(), f"'{name}' in the chain of a used environment")


def closes(world: World) -> None:
    """`close` works in an environment that was never reset; in used ones it is always called."""
    world.make()
