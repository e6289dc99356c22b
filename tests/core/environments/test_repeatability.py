import numpy as np
import pytest

from core.environments.recovery import EnvironmentCall, begin_chain, reset
from core.environments.repeatability import (
    in_words,
    is_another_scene,
    scene_differences,
    warning,
)
from core.environments.workers import EnvironmentSpec, Worker
from core.errors import DataError
from tests.strange import InProcessWorker
from tests.toy_environment import ToyConfig, ToyEnvironment

RESET, CHAIN = EnvironmentCall(reset, ("reach_red", 7)), EnvironmentCall(begin_chain, (7,))


class Ignorant(ToyEnvironment):
    """Ignores its seed."""

    def _arrange(self, kind: int, seed: int) -> None:
        super()._arrange(kind, np.random.default_rng().integers(1_000_000))


class Late(ToyEnvironment):
    """The second scene moves by a hair, as on a GPU."""

    resets = 0

    def reset(self, task: str, seed: int) -> None:
        super().reset(task, seed)
        self.resets += 1
        self._point = self._point + 0.001 * self.resets


class Failing(ToyEnvironment):
    """Fails in one of two ways, which the seed chooses."""

    def reset(self, task: str, seed: int) -> None:
        raise DataError("no such scene") if seed == 7 else RuntimeError("broke")


def worker_of(build: type) -> Worker:
    return InProcessWorker(EnvironmentSpec("toy", build, ToyConfig()), 60.0)


@pytest.mark.parametrize("call", [RESET, CHAIN])
def test_the_same_scene_twice_is_no_difference(call: EnvironmentCall) -> None:
    differences = scene_differences(worker_of(ToyEnvironment), call)
    assert (differences, in_words(differences)) == ({}, "yes")
    assert warning("toy", call, differences) is None


@pytest.mark.parametrize("call", [RESET, CHAIN])
def test_an_environment_that_ignores_its_seed_is_named_with_figures(call: EnvironmentCall) -> None:
    differences = scene_differences(worker_of(Ignorant), call)
    assert differences is not None
    assert set(differences) == {"image 'front'", "proprio"}
    assert in_words(differences).startswith("no: image 'front' differs by up to ")
    line = warning("environment 'toy'", call, differences)
    assert line is not None
    begins = "reset('reach_red', 7)" if call is RESET else "begin_chain(7)"
    assert line.startswith(f"environment 'toy': {begins} gave another scene when it was called aga")
    assert line.endswith("draw everything in a scene from the seed")


def test_a_small_difference_is_told_by_its_figure() -> None:
    words = in_words(scene_differences(worker_of(Late), RESET))
    assert words == "no: proprio differs by up to 0.001"
    assert is_another_scene(words)


def test_what_a_gpu_draws_otherwise_is_nearly_the_same_scene() -> None:
    differences = {"image 'front'": 2.0, "proprio": 1e-6}
    words = in_words(differences)
    assert words.startswith("nearly: image 'front' differs by up to 2, proprio")
    assert not any(map(is_another_scene, (words, "yes", "not tried", "")))
    line = warning("environment 'toy'", RESET, differences)
    assert line is not None
    assert "gave nearly the same scene" in line
    assert is_another_scene(in_words({**differences, "image 'front'": 40.0}))


@pytest.mark.parametrize("seed", [7, 8])
def test_an_environment_that_fails_is_left_to_the_attempts(seed: int) -> None:
    call = EnvironmentCall(reset, ("reach_red", seed))
    differences = scene_differences(worker_of(Failing), call)
    assert (differences, in_words(differences)) == (None, "not tried")


def test_a_robot_is_not_moved_for_a_look() -> None:
    worker = worker_of(ToyEnvironment)
    assert scene_differences(worker, RESET, replayable=False) is None
    worker.submit(process_has_not_begun)
    assert worker.result()


def process_has_not_begun(environment: ToyEnvironment) -> bool:
    return environment._seed == 0
