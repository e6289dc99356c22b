"""PushT: its score, its expert, and the way through training and evaluation."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from core import run
from core.environments.checked import expert_action, reset, step
from core.errors import DataError
from plugins.environments.gymnasium import Gymnasium, GymnasiumConfig
from plugins.environments.gymnasium.pusht import REACH, Pushes, predict
from tests.core.testing.failing import failures
from tests.toy_policy import RECIPE

pytestmark = [pytest.mark.simulator, pytest.mark.filterwarnings("ignore")]
CONFIG = GymnasiumConfig(
    id="gym_pusht/PushT-v0",
    instructions=("push the T",),
    mode="absolute",
    module="gym_pusht",
    options={"obs_type": "pixels_agent_pos"},
    cameras={"top": "pixels"},
    proprio=("agent_pos",),
)


@pytest.fixture(scope="module")
def pusht() -> Iterator[Gymnasium]:
    try:
        pusht = Gymnasium(CONFIG)
    except DataError as error:
        pytest.skip(str(error))
    yield pusht
    pusht.close()


def place(pusht: Gymnasium, x: float, y: float, angle: float):
    """Put the T somewhere, with the disc far away; return the simulation."""
    reset(pusht, "PushT", 0)
    simulator = pusht._gym.unwrapped
    simulator.agent.position = (30, 30)
    simulator.block.angle = angle  # turns the block about its centre, so it comes first
    simulator.block.position = (x, y)
    return simulator


def test_the_score_is_the_covered_share_of_the_target(pusht):
    def score_at(x, y, angle):
        place(pusht, x, y, angle)
        return step(pusht, np.float32([30, 30]))

    on_target = score_at(256, 256, np.pi / 4)
    assert (on_target.success, on_target.score) == (True, 1.0)
    half = score_at(281, 256, np.pi / 4)
    assert not half.success
    assert half.score == pytest.approx(pusht._gym.unwrapped._get_coverage() / 0.95)
    assert 0.2 < half.score < 0.9
    assert score_at(420, 100, 0).score == 0


def test_the_contract_tests(pusht):
    assert not failures("environment", Gymnasium, replace(CONFIG, scaling="normalised"))


@pytest.mark.parametrize("seed", range(4))
def test_the_expert_does_the_task(pusht, seed):
    reset(pusht, "PushT", seed)
    for _ in range(150):
        if (result := step(pusht, expert_action(pusht))).done:
            break
    assert result.success


@pytest.mark.parametrize("offset", [-40.0, 0.0, 40.0], ids=str)
def test_a_push_brings_the_block_where_it_was_predicted(pusht, offset):
    """The disc comes from the left, against the long edge of a T that stands on its side."""
    block, agent = (simulator := place(pusht, 300, 256, -np.pi / 2)).block, simulator.agent
    start, gap = np.array([300 - 15 - 1.0, 256 + offset]), 1.0
    agent.position, agent.velocity = tuple(start), (0, 0)
    for _ in range(60):
        step(pusht, np.float32(agent.position) + np.float32([0.2 / REACH, 0]))
    pushed = agent.position[0] - start[0] - gap
    arrived = np.array([*block.position, block.angle])
    pushes = Pushes(start[None], np.array([gap]), np.array([[1.0, 0.0]]))
    before, left, depth = predict(place(pusht, 300, 256, -np.pi / 2).block, arrived, pushes)
    assert left < 0.2 * before
    assert depth == pytest.approx(pushed, rel=0.25)


@pytest.mark.slow
def test_training_and_evaluation(pusht, tmp_path, capsys):
    """Actions of two dimensions without a gripper, and the score that benchmarks report."""
    head, _, tail = RECIPE.partition('name = "toy"\n')
    settings = """name = "gymnasium"
id = "gym_pusht/PushT-v0"
module = "gym_pusht"
options = {obs_type = "pixels_agent_pos", observation_width = 32, observation_height = 32}
instructions = ["push the T"]
cameras = {top = "pixels"}
proprio = ["agent_pos"]
mode = "absolute"
scaling = "normalised"
metrics = ["coverage"]
"""
    evaluate = "[evaluate]\nepisodes = 1\nnum_envs = 1\n"
    recipe = f"{head}{settings}{tail}{evaluate}".replace("episodes = 3\n", "episodes = 1\n")
    recipe = recipe.replace("window = 2\n", "window = 2\nvalidation_episodes = 0\n")
    (tmp_path / "pusht.toml").write_text(recipe.replace("steps = 4\n", "steps = 2\n"))
    assert run.main([str(tmp_path / "pusht.toml"), "--output", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    (episode,) = results["episodes"]
    assert episode["failure"] is None
    assert 0 <= episode["score_best"] <= 1
    coverage = results["summary"]["standard"]["metrics"]["coverage"]["best"]["mean"]
    assert coverage == pytest.approx(0.95 * episode["score_best"], rel=0.06)  # above 0.95, 1
    assert "best score" in capsys.readouterr().out
