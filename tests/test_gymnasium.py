"""The wrapper of Gymnasium's environments in docs/environments.md, as it stands there."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from core import run
from core.cli import main
from core.environments.checked import step
from core.episodes.episode import Episode
from core.registry.catalogue import load_plugins
from core.registry.components import Component, Plugin
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.core.testing.failing import failures
from tests.toy_policy import RECIPE

pytest.importorskip("gymnasium", reason="needs gymnasium (pip install -e '.[metaworld]')")

PAGE = Path(__file__).parents[1] / "docs" / "environments.md"
MOST_LINES = 60
# a robot on a line that is to come near 0.8; it falls off beyond 1
TINY = """
import gymnasium
import numpy as np


class Tiny(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    observation_space = gymnasium.spaces.Dict()

    def __init__(self, render_mode=None, push=0.0):
        self.push = push

    def _observed(self):
        return {"place": np.array([self.x])}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(0, 0.3)
        return self._observed(), {}

    def step(self, action):
        self.x += 0.2 * float(np.clip(action[0], -1, 1)) + self.push
        fallen = self.x > 1
        success = bool(abs(self.x - 0.8) < 0.1)
        return self._observed(), 1 - abs(self.x - 0.8), fallen or success, False, {
            "is_success": success
        }

    def render(self):
        image = np.zeros((16, 16, 3), np.uint8)
        image[:, int(np.clip(self.x, 0, 1) * 15)] = 255
        return image


gymnasium.register("Tiny-v0", entry_point=Tiny, max_episode_steps=12)
"""
# what the wrapper lacks: an expert, so that there are demonstrations
SHOWN = """
import numpy as np
from gym_world import Gym


class Shown(Gym):
    def expert(self):
        return np.array([np.clip((0.8 - self.observed["place"][0]) / 0.2, -1, 1), 0], np.float32)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The page's module, registered as a plugin; worker processes import it, too."""
    folder = tmp_path_factory.mktemp("modules")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (block,) = [block for block in blocks if "\nclass Gym(" in block]
    assert len(block.splitlines()) <= MOST_LINES
    for name, text in {"gym_world": block, "tiny_gym": TINY, "shown_gym": SHOWN}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import gym_world
        import shown_gym

        plugin = Plugin("gym_world", "tests", "1")
        for name, build in {"gym": gym_world.Gym, "shown_gym": shown_gym.Shown}.items():
            component = Component("environment", name, gym_world.GymConfig, build, plugin)
            load_plugins()["environment"].add(component)
        yield gym_world
        for name in ("gym_world", "tiny_gym", "shown_gym"):
            sys.modules.pop(name, None)


def recipe_of(environment: str, **settings: Any) -> str:
    """Return the toy's recipe with another environment."""
    head, _, tail = RECIPE.partition('[environment]\nname = "toy"\n')
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    return f'{head}[environment]\nname = "{environment}"\n{lines}{tail}'


TINY_SETTINGS = {"id": '"tiny_gym:Tiny-v0"', "instruction": '"go right"', "proprio": '"place"'}


def tiny_config(world: ModuleType) -> Any:
    return world.GymConfig("tiny_gym:Tiny-v0", "go right", proprio="place")


def test_the_wrapper_passes_the_contract_tests(world):
    assert not failures("environment", world.Gym, tiny_config(world), slow=True)


def test_success_ends_and_rewards_are_told_apart(world):
    tiny = world.Gym(tiny_config(world))
    tiny.reset("Tiny", 0)
    result = step(tiny, np.float32([1, 0]))
    while not result.done:
        assert abs(tiny.gym.unwrapped.x - 0.8) >= 0.1
        result = step(tiny, np.float32([1, 0]))
    assert (result.success, result.ended) == (True, False)
    pushed = world.Gym(world.GymConfig("tiny_gym:Tiny-v0", "go", options={"push": 2.0}))
    pushed.reset("Tiny", 0)
    result = step(pushed, np.zeros(2, np.float32))
    assert (result.success, result.ended) == (False, True)
    assert result.score == pytest.approx(1 - abs(pushed.gym.unwrapped.x - 0.8))
    assert len(pushed.observe().proprio) == 0  # a policy that sees the picture alone


def test_demonstrations_training_evaluation_report_and_comparison(world, tmp_path, capsys):
    """Actions of two dimensions without a gripper, and rewards."""
    recipe = recipe_of("shown_gym", **TINY_SETTINGS) + "[evaluate]\nepisodes = 3\nnum_envs = 2\n"
    (tmp_path / "tiny.toml").write_text(recipe)
    assert run.main([str(tmp_path / "tiny.toml"), "--output", str(tmp_path / "run")]) == 0
    store = EpisodeStore(tmp_path / "toy.zarr")
    assert (len(store), store.info.action.dim, store.info.action.grippers) == (3, 2, ())
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert len(results["episodes"]) == 3
    for episode in results["episodes"]:
        assert episode["failure"] is None
        assert episode["score_mean"] <= episode["score_best"] <= 1
    summary = results["summary"]["standard"]
    assert summary["scores"]["best"]["all"]["attempts"] == 3
    shown = capsys.readouterr().out
    assert "best score" in shown
    assert "<h3>Scores</h3>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    page = tmp_path / "compare.html"
    other = shutil.copytree(tmp_path / "run", tmp_path / "other")
    assert main(["compare", str(tmp_path / "run"), str(other), "--output", str(page)]) == 0
    assert "<h3>Scores</h3>" in page.read_text(encoding="utf-8")


def test_five_values_are_one_line_that_names_the_step_result(world):
    class FiveValues(world.Gym):
        def step(self, action):
            return self.gym.step(action)

    tiny = FiveValues(tiny_config(world))
    tiny.reset("Tiny", 0)
    with pytest.raises(Exception, match=r"FiveValues\.step .* StepResult\(success=.*") as caught:
        step(tiny, np.zeros(2, np.float32))
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------- PushT


@pytest.fixture
def pusht(world) -> Any:
    pytest.importorskip("gym_pusht", reason="needs gym-pusht (pip install gym-pusht)")
    options = {"obs_type": "pixels_agent_pos", "max_episode_steps": 6}
    config = world.GymConfig(
        "gym_pusht:gym_pusht/PushT-v0", "push the T", "pixels", "agent_pos", options
    )
    environment = world.Gym(config)
    yield environment
    environment.gym.close()


@pytest.mark.simulator
@pytest.mark.filterwarnings("ignore")
def test_the_score_of_pusht_is_the_covered_share_of_the_target(pusht):
    def score_at(x: float, y: float, angle: float) -> Any:
        pusht.reset("PushT", 0)
        simulator = pusht.gym.unwrapped
        simulator.agent.position = (30, 30)  # far from the block
        simulator.block.angle = angle  # turns the block about its centre, so it comes first
        simulator.block.position = (x, y)
        return step(pusht, np.float32([30, 30]))

    on_target = score_at(256, 256, np.pi / 4)
    assert (on_target.success, on_target.score) == (True, 1.0)
    half = score_at(281, 256, np.pi / 4)
    assert not half.success
    assert half.score == pytest.approx(pusht.gym.unwrapped._get_coverage() / 0.95)
    assert 0.2 < half.score < 0.9
    assert score_at(420, 100, 0).score == 0


@pytest.mark.simulator
@pytest.mark.filterwarnings("ignore")
def test_an_evaluation_reports_pushts_coverage(pusht, tmp_path, capsys):
    info = pusht.info
    random = np.random.default_rng(0)
    with StoreWriter(tmp_path / "toy.zarr", info) as writer:
        for number in range(4):
            pusht.reset("PushT", number)
            actions = random.uniform(0, 512, (6, 2)).astype(np.float32)
            seen = [(pusht.observe(), pusht.step(action))[0] for action in actions]
            images = {"front": np.stack([observation.images["front"] for observation in seen])}
            proprio = np.stack([observation.proprio for observation in seen])
            words = ("PushT", "push the T")
            writer.append(Episode(f"PushT/{number}", *words, images, actions, proprio))
    settings = {
        "id": '"gym_pusht:gym_pusht/PushT-v0"',
        "instruction": '"push the T"',
        "picture": '"pixels"',
        "proprio": '"agent_pos"',
        "options": '{obs_type = "pixels_agent_pos", max_episode_steps = 6}',
    }
    recipe = recipe_of("gym", **settings).partition("[demonstrations]")[0]
    recipe += "[evaluate]\nepisodes = 6\nnum_envs = 2\n"
    (tmp_path / "pusht.toml").write_text(recipe)
    assert run.main([str(tmp_path / "pusht.toml"), "--output", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    best = [episode["score_best"] for episode in results["episodes"]]
    assert all(0 <= score <= 1 for score in best)
    assert max(best) > 0  # some blocks begin on the target
    assert results["summary"]["standard"]["scores"]["best"]["all"]["mean"] == pytest.approx(
        np.mean(best)
    )
    assert "best score" in capsys.readouterr().out
