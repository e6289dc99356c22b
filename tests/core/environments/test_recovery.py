import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from core.environments.environment import Environment, Observation, StepResult
from core.environments.recovery import (
    EnvironmentCall,
    RecoveringEnvironment,
    apply_actions,
    begin_chain,
    continue_chain,
    reset,
)
from core.environments.workers import EnvironmentFailed, EnvironmentSpec, Worker, open_workers
from core.errors import DataError
from tests.toy_environment import CHAIN_LENGTH, Fault, ToyConfig, ToyEnvironment

TIMEOUT = 60.0
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32)
RESET = EnvironmentCall(reset, ("reach_red", 7))
EPISODE = [RESET, *(EnvironmentCall(apply_actions, (ACTIONS[i : i + 1],)) for i in range(4))]


def process_id(environment: Environment) -> int:
    return os.getpid()


@contextmanager
def open_worker(*faults: Fault) -> Iterator[Worker]:
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig(faults=faults))
    with open_workers(spec, 1, TIMEOUT) as (worker,):
        yield worker


def run(environment: RecoveringEnvironment, call: EnvironmentCall) -> tuple[object, Observation]:
    environment.submit(call)
    return environment.result()


def expected_observations() -> list[Observation]:
    environment = ToyEnvironment(ToyConfig())
    environment.reset("reach_red", 7)
    observations = [environment.observe()]
    for action in ACTIONS:
        environment.step(action)
        observations.append(environment.observe())
    return observations


@pytest.mark.parametrize("kind", ["crash", "raise"])
@pytest.mark.parametrize("step", [0, 3])
def test_a_failure_is_not_noticed_by_the_caller(kind: str, step: int, tmp_path: Path) -> None:
    fault = Fault(kind, seed=7, step=step, marker=str(tmp_path / "once"))  # type: ignore[arg-type]
    with open_worker(fault) as worker:
        environment = RecoveringEnvironment(worker)
        for call, expected in zip(EPISODE, expected_observations(), strict=True):
            _, observation = run(environment, call)
            np.testing.assert_array_equal(observation.proprio, expected.proprio)
            np.testing.assert_array_equal(observation.images["front"], expected.images["front"])
    assert (tmp_path / "once").exists()


def test_a_second_failure_is_raised_and_leaves_a_fresh_environment() -> None:
    with open_worker(Fault("crash", seed=7, step=2)) as worker:
        environment = RecoveringEnvironment(worker)
        first_process = worker.pid
        for call in EPISODE[:3]:
            run(environment, call)
        with pytest.raises(EnvironmentFailed, match=r"^died \(exit code 3\)$"):
            run(environment, EPISODE[3])
        assert worker.pid != first_process
        other_seed = EnvironmentCall(reset, ("reach_red", 8))
        assert run(RecoveringEnvironment(worker), other_seed)[0] is None


def test_a_data_error_is_raised_at_once_and_the_process_stays() -> None:
    with open_worker() as worker:
        environment = RecoveringEnvironment(worker)
        first_process = worker.pid
        with pytest.raises(DataError, match="no task is called 'fly'"):
            run(environment, EnvironmentCall(reset, ("fly", 0)))
        assert run(environment, EnvironmentCall(process_id, ()))[0] == first_process


def test_actions_are_applied_until_the_task_is_done() -> None:
    environment = ToyEnvironment(ToyConfig())
    environment.reset("reach_red", 7)
    steps = 0
    while not environment.step(environment.expert()):
        steps += 1
    environment.reset("reach_red", 7)
    for _ in range(steps):
        environment.step(environment.expert())
    last = environment.expert()
    assert apply_actions(environment, np.stack([last, last, last])) == [StepResult(success=True)]


def test_a_task_that_is_not_done_takes_all_actions() -> None:
    environment = ToyEnvironment(ToyConfig())
    environment.reset("reach_red", 7)
    assert apply_actions(environment, np.zeros((3, 3), np.float32)) == 3 * [StepResult()]


def test_a_chain_is_begun_and_continued() -> None:
    environment = ToyEnvironment(ToyConfig())
    names = begin_chain(environment, 1)
    assert (len(names), names[0]) == (CHAIN_LENGTH, "reach_blue")
    before = environment.observe().proprio
    continue_chain(environment, "reach_red")
    np.testing.assert_array_equal(environment.observe().proprio, before)  # the scene stays


def test_what_is_not_replayable_is_never_given_its_actions_again(tmp_path: Path) -> None:
    fault = Fault("crash", seed=7, step=2, marker=str(tmp_path / "once"))
    with open_worker(fault) as worker:
        robot = RecoveringEnvironment(worker, replayable=False)
        for call in EPISODE[:3]:
            run(robot, call)
        first_process = worker.pid
        with pytest.raises(
            EnvironmentFailed,
            match=r"^died \(exit code 3\); the environment is not replayable, so its actions were",
        ):
            run(robot, EPISODE[3])
        assert worker.pid != first_process  # which has made no step yet
        reached, observation = run(RecoveringEnvironment(worker, replayable=False), RESET)
    assert reached is None
    np.testing.assert_array_equal(observation.proprio, expected_observations()[0].proprio)


class Forgetful(ToyEnvironment):
    """Every process begins every episode elsewhere, whatever the seed says."""

    def reset(self, task: str, seed: int) -> None:
        super().reset(task, seed)
        self._point = np.random.default_rng(os.getpid()).uniform(-0.8, 0.8, 2)


def test_an_attempt_is_not_continued_in_another_scene(tmp_path: Path) -> None:
    fault = Fault("crash", seed=7, step=2, marker=str(tmp_path / "once"))
    spec = EnvironmentSpec("toy", Forgetful, ToyConfig(faults=(fault,)))
    with open_workers(spec, 1, TIMEOUT) as (worker,):
        environment = RecoveringEnvironment(worker)
        for call in EPISODE[:3]:
            run(environment, call)
        with pytest.raises(
            EnvironmentFailed,
            match=r"^died \(exit code 3\); in a fresh process the same actions led to another "
            r"image 'front', proprio, so the attempt was not restored",
        ):
            run(environment, EPISODE[3])
