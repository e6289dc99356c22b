import numpy as np
import pytest

from core.environments import Environment, Task
from core.errors import DataError
from tests.toy_environment import ToyConfig, ToyEnvironment

TASK = Task("reach", ("reach it", "go there", "move to it"), max_steps=9, held_out=("touch it",))


class Minimal(Environment):
    """An environment with the required methods alone."""

    def reset(self, task: str, seed: int) -> None:
        pass

    def step(self, action: np.ndarray) -> bool:
        return False

    def observe(self):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def test_demonstrations_take_the_phrasings_in_turns() -> None:
    instructions = [TASK.instruction("demonstration", seed) for seed in range(4)]
    assert instructions == ["reach it", "go there", "move to it", "reach it"]


def test_evaluation_uses_held_out_phrasings_if_there_are_any() -> None:
    assert {TASK.instruction("evaluation", seed) for seed in range(4)} == {"touch it"}
    without = Task("reach", TASK.instructions, max_steps=9)
    assert without.instruction("evaluation", 1) == "go there"


def test_methods_that_an_environment_does_not_offer_say_what_to_do_instead() -> None:
    environment = Minimal()
    with pytest.raises(DataError, match=r"^Minimal has no chains of tasks; leave out evaluate"):
        environment.begin_chain(0)
    with pytest.raises(DataError, match=r"^Minimal cannot go on with 'reach' in the same scene"):
        environment.proceed("reach")
    with pytest.raises(DataError, match=r"^Minimal has no expert .*; import demonstrations$"):
        environment.expert()
    environment.close()


def test_an_episode_depends_on_task_seed_and_actions_alone() -> None:
    """What a test of any environment should check: here for the toy that the tests use."""
    used, fresh = ToyEnvironment(ToyConfig()), ToyEnvironment(ToyConfig())
    used.reset("reach_blue", 5)
    used.step(np.ones(3))
    for environment in (used, fresh):
        environment.reset("reach_red", 3)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 3)):
        assert used.step(action) == fresh.step(action)
        np.testing.assert_array_equal(
            used.observe().images["front"], fresh.observe().images["front"]
        )
