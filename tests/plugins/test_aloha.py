"""ALOHA in simulation: what the experts reach, and the way through training and evaluation."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from core import run
from core.environments.checked import expert_action, observe, reset, step
from core.environments.environment import StepResult
from core.errors import DataError
from core.store.store import EpisodeStore
from plugins.environments.gymnasium import Gymnasium, GymnasiumConfig
from tests.toy_policy import RECIPE

pytestmark = [pytest.mark.simulator, pytest.mark.filterwarnings("ignore")]
CONFIG = GymnasiumConfig(
    id="gym_aloha/AlohaTransferCube-v0",
    instructions=("hand the cube over",),
    mode="absolute",
    module="gym_aloha",
    options={
        "obs_type": "pixels_agent_pos",
        "visualization_width": 32,
        "visualization_height": 24,
    },
    wrappers=("plugins.environments.gymnasium.aloha:drawing_on_demand",),
    cameras={"top": "render"},
    proprio=("agent_pos",),
    frame="joint",
    scaling="raw",
    max_steps=400,
)


def build(config: GymnasiumConfig) -> Gymnasium:
    try:
        return Gymnasium(config)
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def transfer() -> Iterator[Gymnasium]:
    transfer = build(CONFIG)
    yield transfer
    transfer.close()


def demonstrated(environment: Gymnasium, seed: int, push: float = 0.0) -> StepResult:
    """Let the expert act; once in a second, for a tenth of one, all joints are pushed aside."""
    task = next(iter(environment.tasks))
    reset(environment, task, seed)
    result = StepResult()
    for number in range(400):
        action = expert_action(environment)
        if number % 50 < 5:
            action = action + np.float32(push)
        if (result := step(environment, action)).done:
            break
    return result


@pytest.mark.parametrize("seed", [0, 1])
def test_the_expert_hands_the_cube_over(transfer, seed):
    result = demonstrated(transfer, seed)
    assert (result.success, result.score) == (True, 4.0)


def test_the_expert_finds_back_from_disturbances(transfer):
    assert demonstrated(transfer, 2, push=0.02).success


def test_the_expert_puts_the_peg_into_the_socket():
    insertion = build(replace(CONFIG, id="gym_aloha/AlohaInsertion-v0"))
    result = demonstrated(insertion, 0)
    insertion.close()
    assert (result.success, result.score) == (True, 4.0)


def test_a_seed_gives_the_same_scene_and_looking_changes_nothing(transfer):
    scenes = []
    for seed in (3, 4, 3):
        reset(transfer, "AlohaTransferCube", seed)
        scenes.append(observe(transfer))
        again = observe(transfer)
        np.testing.assert_array_equal(again.images["top"], scenes[-1].images["top"])
    assert scenes[0].images["top"].shape == (24, 32, 3)
    np.testing.assert_array_equal(scenes[0].images["top"], scenes[2].images["top"])
    assert (scenes[0].images["top"] != scenes[1].images["top"]).any()
    assert scenes[0].proprio.shape == (14,)


@pytest.mark.slow
def test_training_and_evaluation(transfer, tmp_path):
    """Actions of fourteen absolute dimensions without a gripper."""
    head, _, tail = RECIPE.partition('name = "toy"\n')
    settings = """name = "gymnasium"
id = "gym_aloha/AlohaTransferCube-v0"
module = "gym_aloha"
options = {obs_type = "pixels_agent_pos", visualization_width = 32, visualization_height = 24}
wrappers = ["plugins.environments.gymnasium.aloha:drawing_on_demand"]
instructions = ["hand the cube over"]
cameras = {top = "render"}
proprio = ["agent_pos"]
mode = "absolute"
frame = "joint"
scaling = "raw"
max_steps = 150
"""
    evaluate = "[evaluate]\nepisodes = 1\nnum_envs = 1\nreplan_steps = 3\n"
    recipe = f"{head}{settings}{tail}{evaluate}".replace("episodes = 3\n", "episodes = 1\n")
    recipe = recipe.replace("window = 2\n", "window = 2\nvalidation_episodes = 0\n")
    (tmp_path / "aloha.toml").write_text(recipe.replace("steps = 4\n", "steps = 2\n"))
    assert run.main([str(tmp_path / "aloha.toml"), "--output", str(tmp_path / "run")]) == 0
    info = EpisodeStore(tmp_path / "toy.zarr").info
    assert (info.action.dim, info.action.grippers, info.action.frame) == (14, (), "joint")
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    (episode,) = results["episodes"]
    assert episode["failure"] is None
    assert 0 <= episode["score_best"] <= 4
