import numpy as np
import pytest

from core.demonstrations.expert import PERSISTENCE, demonstrate, disturb, disturbances
from core.environments.environment import Observation
from tests.toy_environment import CLOSED, OPEN, RADIUS, ToyConfig, ToyEnvironment, toy_info

CONVENTION = toy_info().action


class RecordingToy(ToyEnvironment):
    """Remembers the actions that were executed, and those of its expert."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.executed: list[np.ndarray] = []
        self.expert_actions: list[np.ndarray] = []

    def step(self, action: np.ndarray) -> bool:
        self.executed.append(action)
        return super().step(action)

    def expert(self) -> np.ndarray:
        self.expert_actions.append(super().expert())
        return self.expert_actions[-1]


def test_the_experts_actions_are_recorded_and_disturbed_ones_are_executed() -> None:
    environment = RecordingToy(ToyConfig(cameras=2))
    episode = demonstrate(environment, "reach_blue", 3, noise=0.3)
    assert episode is not None
    np.testing.assert_array_equal(episode.actions, environment.expert_actions)
    added = disturbances(CONVENTION, "reach_blue", 3, 0.3, 40)[: len(episode)]
    np.testing.assert_array_equal(environment.executed, np.clip(episode.actions + added, -1, 1))
    assert np.abs(added[:, :2]).min() > 0
    for name in ("front", "wrist"):
        assert episode.images[name].shape == (len(episode), 16, 16, 3)


def test_each_frame_is_the_observation_before_its_action() -> None:
    environment = ToyEnvironment(ToyConfig())
    episode = demonstrate(environment, "reach_red", 5, noise=0.2)
    assert episode is not None
    environment.reset("reach_red", 5)
    added = disturbances(CONVENTION, "reach_red", 5, 0.2, len(episode))
    for t, disturbance in enumerate(added):
        observation = environment.observe()
        np.testing.assert_array_equal(episode.images["front"][t], observation.images["front"])
        np.testing.assert_array_equal(episode.proprio[t], observation.proprio)
        done = environment.step(disturb(episode.actions[t], disturbance, CONVENTION))
        assert done == (t == len(episode) - 1)


def test_an_end_that_is_no_success_is_a_failed_demonstration() -> None:
    assert demonstrate(ToyEnvironment(ToyConfig(ends_after=2)), "reach_red", 5, noise=0) is None
    successful = demonstrate(ToyEnvironment(ToyConfig(scored=True)), "reach_red", 5, noise=0)
    expected = demonstrate(ToyEnvironment(ToyConfig()), "reach_red", 5, noise=0)
    assert successful is not None
    assert expected is not None
    np.testing.assert_array_equal(successful.actions, expected.actions)


def test_an_episode_ends_with_the_gripper_that_completed_it() -> None:
    episode = demonstrate(ToyEnvironment(ToyConfig()), "reach_red", 5, noise=0.2)
    assert episode is not None
    assert episode.actions[0, 2] == OPEN
    assert episode.actions[-1, 2] == CLOSED


def test_instructions_vary_with_the_seed_and_never_use_those_held_out() -> None:
    environment = ToyEnvironment(ToyConfig())
    episodes = [demonstrate(environment, "reach_red", seed, 0.0) for seed in range(6)]
    instructions = {episode.instruction for episode in episodes if episode is not None}
    assert instructions == set(environment.tasks["reach_red"].instructions)


def test_an_expert_that_does_not_succeed_in_time_gives_nothing() -> None:
    environment = RecordingToy(ToyConfig(fails_every=1))
    assert demonstrate(environment, "reach_red", 0, noise=0.0) is None
    assert len(environment.executed) == environment.tasks["reach_red"].max_steps


def test_disturbances_are_a_function_of_task_and_seed() -> None:
    def of(task: str, seed: int) -> list[list[float]]:
        return disturbances(CONVENTION, task, seed, 0.2, 5).tolist()

    assert of("a", 1) == of("a", 1)
    assert of("a", 1) != of("a", 2)
    assert of("a", 1) != of("b", 1)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_disturbances_are_correlated_in_time_and_zero_for_the_gripper(noise: float) -> None:
    added = disturbances(CONVENTION, "a", 0, noise, 20_000)
    assert not added[:, 2].any()
    moved = added[:, :2]
    np.testing.assert_allclose(moved.mean(), 0, atol=0.1 * noise)
    np.testing.assert_allclose(moved.std(), noise, rtol=0.05)
    np.testing.assert_allclose((moved[1:] * moved[:-1]).mean() / noise**2, PERSISTENCE, rtol=0.05)


def test_without_noise_the_experts_actions_are_executed_even_out_of_range() -> None:
    action = np.array([3.0, -0.5, 1.0], np.float32)
    disturbance = disturbances(CONVENTION, "a", 0, 0.0, 1)[0]
    np.testing.assert_array_equal(disturb(action, disturbance, CONVENTION), action)


def test_noise_moves_the_point_away_from_the_experts_path() -> None:
    environment = ToyEnvironment(ToyConfig())
    without, noisy = (demonstrate(environment, "reach_red", 5, noise) for noise in (0.0, 0.5))
    assert without is not None
    assert noisy is not None
    assert np.linalg.norm(without.proprio[2] - noisy.proprio[2]) > RADIUS / 5


class ReusingToy(ToyEnvironment):
    """Draws every image into one array, and measures into another."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self._image, self._numbers = np.zeros((16, 16, 3), np.uint8), np.zeros(2, np.float32)

    def observe(self) -> Observation:
        observation = super().observe()
        self._image[:], self._numbers[:] = observation.images["front"], observation.proprio
        return Observation({"front": self._image}, self._numbers)


def test_frames_stay_when_the_environment_uses_its_arrays_again() -> None:
    received = demonstrate(ReusingToy(ToyConfig()), "reach_red", 5, noise=0.2)
    expected = demonstrate(ToyEnvironment(ToyConfig()), "reach_red", 5, noise=0.2)
    assert received is not None
    assert expected is not None
    np.testing.assert_array_equal(received.images["front"], expected.images["front"])
    np.testing.assert_array_equal(received.proprio, expected.proprio)
