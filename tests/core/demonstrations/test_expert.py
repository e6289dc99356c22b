import numpy as np
import pytest

from core.demonstrations.expert import PERSISTENCE, demonstrate, disturbances, executed
from tests.toy_environment import CLOSED, OPEN, RADIUS, ToyConfig, ToyEnvironment, toy_info

CONVENTION = toy_info().action


class Spy(ToyEnvironment):
    """Remembers what it was asked to do and what its expert wanted."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.done: list[np.ndarray] = []
        self.wanted: list[np.ndarray] = []

    def step(self, action: np.ndarray) -> bool:
        self.done.append(action)
        return super().step(action)

    def expert(self) -> np.ndarray:
        self.wanted.append(super().expert())
        return self.wanted[-1]


def test_the_labels_are_what_the_expert_wanted_and_the_steps_are_disturbed() -> None:
    spy = Spy(ToyConfig(cameras=2))
    episode = demonstrate(spy, "reach_blue", 3, noise=0.3)
    assert episode is not None
    np.testing.assert_array_equal(episode.actions, spy.wanted)
    pushed = disturbances(CONVENTION, "reach_blue", 3, 0.3, 40)[: len(episode)]
    np.testing.assert_array_equal(spy.done, np.clip(episode.actions + pushed, -1, 1))
    assert np.abs(pushed[:, :2]).min() > 0
    assert [episode.images[name].shape for name in ("front", "wrist")] == [
        (len(episode), 16, 16, 3)
    ] * 2


def test_each_frame_is_what_is_seen_before_its_action() -> None:
    environment = ToyEnvironment(ToyConfig())
    episode = demonstrate(environment, "reach_red", 5, noise=0.2)
    assert episode is not None
    environment.reset("reach_red", 5)
    for t, push in enumerate(disturbances(CONVENTION, "reach_red", 5, 0.2, len(episode))):
        seen = environment.observe()
        np.testing.assert_array_equal(episode.images["front"][t], seen.images["front"])
        np.testing.assert_array_equal(episode.proprio[t], seen.proprio)
        done = environment.step(executed(episode.actions[t], push, CONVENTION))
        assert done == (t == len(episode) - 1)


def test_an_episode_ends_with_the_gripper_that_completed_it() -> None:
    episode = demonstrate(ToyEnvironment(ToyConfig()), "reach_red", 5, noise=0.2)
    assert episode is not None
    assert episode.actions[0, 2] == OPEN
    assert episode.actions[-1, 2] == CLOSED


def test_instructions_vary_with_the_seed_and_never_use_those_held_out() -> None:
    environment = ToyEnvironment(ToyConfig())
    told = {demonstrate(environment, "reach_red", seed, 0.0).instruction for seed in range(6)}  # type: ignore[union-attr]
    assert told == set(environment.tasks["reach_red"].instructions)


def test_an_expert_that_does_not_succeed_in_time_gives_nothing() -> None:
    spy = Spy(ToyConfig(fails_every=1))
    assert demonstrate(spy, "reach_red", 0, noise=0.0) is None
    assert len(spy.done) == spy.tasks["reach_red"].max_steps


def test_disturbances_are_a_function_of_task_and_seed() -> None:
    def of(task: str, seed: int) -> list[list[float]]:
        return disturbances(CONVENTION, task, seed, 0.2, 5).tolist()

    assert of("a", 1) == of("a", 1)
    assert of("a", 1) != of("a", 2)
    assert of("a", 1) != of("b", 1)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_disturbances_last_for_some_steps_and_spare_the_gripper(noise: float) -> None:
    pushed = disturbances(CONVENTION, "a", 0, noise, 20_000)
    assert not pushed[:, 2].any()
    moved = pushed[:, :2]
    np.testing.assert_allclose(moved.mean(), 0, atol=0.1 * noise)
    np.testing.assert_allclose(moved.std(), noise, rtol=0.05)
    np.testing.assert_allclose((moved[1:] * moved[:-1]).mean() / noise**2, PERSISTENCE, rtol=0.05)


def test_without_noise_the_expert_acts_as_it_wants() -> None:
    wanted = np.array([3.0, -0.5, 1.0], np.float32)
    np.testing.assert_array_equal(
        executed(wanted, disturbances(CONVENTION, "a", 0, 0.0, 1)[0], CONVENTION), wanted
    )


def test_noise_takes_the_point_off_the_experts_way() -> None:
    environment = ToyEnvironment(ToyConfig())
    calm, shaken = (demonstrate(environment, "reach_red", 5, noise) for noise in (0.0, 0.5))
    assert calm is not None
    assert shaken is not None
    assert np.linalg.norm(calm.proprio[2] - shaken.proprio[2]) > RADIUS / 5
