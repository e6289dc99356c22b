"""Gymnasium's environments, on a tiny one that needs nothing but Gymnasium."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from core import run
from core.cli import main
from core.environments.checked import expert_action, observe, reset, step
from core.errors import DataError
from core.recipe.checking import fill
from core.store.store import EpisodeStore
from plugins.environments.gymnasium import Gymnasium, GymnasiumConfig
from tests.core.testing.failing import failures
from tests.toy_policy import RECIPE

gymnasium = pytest.importorskip(
    "gymnasium", reason="needs gymnasium (pip install -e '.[gymnasium]')"
)

# a robot on a line that is to come near 0.8; it falls off beyond 1
TINY = """
import gymnasium
import numpy as np


class Tiny(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    action_space = gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, 8]))
    observation_space = gymnasium.spaces.Dict()

    def __init__(self, render_mode=None, push=0.0):
        self.push = push

    def _observed(self):
        return {"robot": {"place": np.array([self.x]), "speed": self.v}, "eye": self.render()}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v = self.np_random.uniform(0, 0.3), 0.0
        return self._observed(), {"near": {"goal": False}}

    def step(self, action):
        self.v = 0.2 * float(action[0]) + self.push
        self.x += self.v
        near = bool(abs(self.x - 0.8) < 0.1)
        info = {"near": {"goal": near}, "share": self.x, "taken": action}
        return self._observed(), 1 - abs(self.x - 0.8), near or self.x > 1, False, info

    def render(self):
        image = np.zeros((16, 16, 3), np.uint8)
        image[:, int(np.clip(self.x, 0, 1) * 15)] = 255
        return image


class Buttons(Tiny):
    action_space = gymnasium.spaces.Discrete(3)


class Parts(Tiny):
    action_space = gymnasium.spaces.Dict({"arm": Tiny.action_space})


class Endless(Tiny):
    metadata = {"render_modes": ["rgb_array"]}
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))


class Blind(Tiny):
    def _observed(self):
        return {"robot": {"place": np.array([self.x])}}

    def render(self):
        return None


class Press(gymnasium.ActionWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.action_space = Tiny.action_space

    def action(self, action):
        return action


def to_the_right(env):
    robot = env.unwrapped
    return lambda: np.array([(0.8 - robot.x) / 0.2, 8.0])


for world in (Tiny, Buttons, Parts, Blind):
    gymnasium.register(f"tiny/{world.__name__}-v0", entry_point=world, max_episode_steps=12)
gymnasium.register("tiny/Endless-v0", entry_point=Endless)
"""
CONFIG = GymnasiumConfig(
    id="tiny/Tiny-v0",
    instructions=("go right", "move to the right"),
    mode="absolute",
    module="tiny_worlds",
    cameras={"front": "eye", "side": "render"},
    proprio=("robot.place", "robot.speed"),
    proprio_units=("m", "m/s"),
    action_names=("x", "claw"),
    success="near.goal",
    expert="tiny_worlds:to_the_right",
)


@pytest.fixture(autouse=True, scope="module")
def _worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The module with tiny environments; worker processes import it, too."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tiny_worlds.py").write_text(TINY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    sys.modules.pop("tiny_worlds", None)


# -------------------------------------------------------------------------------------- conventions


@pytest.mark.parametrize("scaling", ["clipped", "normalised", "raw"])
def test_the_contract_tests(scaling):
    config = replace(CONFIG, scaling=scaling)
    assert not failures("environment", Gymnasium, config, slow=scaling == "normalised")


def test_pictures_numbers_and_actions_are_those_that_the_recipe_names():
    tiny = Gymnasium(CONFIG)
    assert [*tiny.info.cameras] == ["front", "side"]
    assert tiny.info.proprio == ("place_0", "speed_0")
    assert tiny.info.proprio_units == ("m", "m/s")
    assert (tiny.info.fps, tiny.info.action.names) == (5.0, ("x", "claw"))
    task = tiny.tasks["Tiny"]
    assert (task.instructions, task.max_steps) == (CONFIG.instructions, 12)
    assert tiny.versions["gymnasium"] == gymnasium.__version__
    reset(tiny, "Tiny", 0)
    step(tiny, np.float32([0.5, 0]))
    seen, robot = observe(tiny), tiny._gym.unwrapped
    np.testing.assert_allclose(seen.proprio, [robot.x, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(seen.images["front"], seen.images["side"])


@pytest.mark.parametrize(
    ("scaling", "given", "taken"),
    [
        ("clipped", [2.0, 9.0], [1.0, 8.0]),
        ("normalised", [0.5, 0.5], [0.5, 6.0]),
        ("normalised", [-3.0, 3.0], [-1.0, 8.0]),
        ("raw", [2.0, 9.0], [2.0, 9.0]),
    ],
)
def test_actions_reach_the_environment_as_scaling_says(scaling, given, taken):
    tiny = Gymnasium(replace(CONFIG, scaling=scaling, binary={"claw": (0.0, 1.0)}))
    reset(tiny, "Tiny", 0)
    step(tiny, np.float32(given))
    np.testing.assert_allclose(tiny._facts["taken"], taken)
    scale = (1.0, 4.0) if scaling == "normalised" else (1.0, 1.0)
    assert tiny.info.action.scale == scale
    (gripper,) = tiny.info.action.grippers
    assert (gripper.dimension, gripper.kind, gripper.closed, gripper.open) == (1, "binary", 0, 1)


def test_the_experts_actions_are_in_the_policys_numbers():
    tiny = Gymnasium(replace(CONFIG, scaling="normalised"))
    reset(tiny, "Tiny", 0)
    np.testing.assert_allclose(expert_action(tiny), [1.0, 1.0])  # clipped to the bounds
    raw = Gymnasium(replace(CONFIG, scaling="raw"))
    reset(raw, "Tiny", 0)
    np.testing.assert_allclose(
        expert_action(raw), [(0.8 - raw._gym.unwrapped.x) / 0.2, 8], rtol=1e-6
    )


# ---------------------------------------------------------------------------------- success and end


def outcomes(config, action):
    tiny = Gymnasium(config)
    reset(tiny, "Tiny", 0)
    results = [step(tiny, np.float32(action))]
    while not results[-1].done:
        results.append(step(tiny, np.float32(action)))
    return tiny, results


@pytest.mark.parametrize(
    "meaning",
    [
        {"success": "near.goal"},
        {"success": "reward", "threshold": 0.9},
        {"success": "share", "threshold": 0.7},
        {"success": "terminated"},
    ],
)
def test_success_is_where_the_recipe_says(meaning):
    tiny, results = outcomes(replace(CONFIG, **meaning), [1, 0])
    assert (results[-1].success, results[-1].ended) == (True, False)
    assert abs(tiny._gym.unwrapped.x - 0.8) < 0.1
    assert not any(result.success for result in results[:-1])


def test_an_end_is_no_success():
    _, fallen = outcomes(replace(CONFIG, options={"push": 2.0}), [0, 0])
    assert (len(fallen), fallen[-1].success, fallen[-1].ended) == (1, False, True)
    _, late = outcomes(replace(CONFIG, max_steps=4), [0, 0])
    assert (len(late), late[-1].success, late[-1].ended) == (4, False, True)


def test_a_task_without_success_has_scores_alone():
    tiny, results = outcomes(replace(CONFIG, success="", score="share"), [1, 0])
    assert not tiny.tasks["Tiny"].has_success
    assert results[-1].score == tiny._gym.unwrapped.x
    _, measured = outcomes(replace(CONFIG, metrics=("share", "terminated")), [1, 0])
    assert measured[-1].metrics == {"share": measured[-1].metrics["share"], "terminated": 1.0}
    assert measured[0].metrics["share"] < measured[-1].metrics["share"]
    _, silent = outcomes(replace(CONFIG, score=""), [1, 0])
    assert silent[-1].score is None


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "tiny/Tiny-v1"}, r"id: gymnasium has no 'tiny/Tiny-v1'; did you mean 'tiny/T"),
        ({"id": "other/W-v0", "module": ""}, r"id: .*; set environment\.module .*: \"other\"\?"),
        ({"module": "tiny_world"}, r"module: tiny_world cannot be imported \(No module .*; inst"),
        ({"options": {"puhs": 1}}, r"options: gymnasium\.make\('tiny/Tiny-v0'\) raised TypeErr"),
        ({"wrappers": ("tiny_worlds:Pres",)}, r"wrappers\[0\]: tiny_worlds has no 'Pres'; did you"),
        ({"expert": "to_the_right"}, r"expert: 'to_the_right' has no colon; write \"MODULE:NAME"),
        ({"cameras": {"a": "eyes"}}, r"cameras\.a: there is no 'eyes'; did you mean 'eye'\?"),
        (
            {"cameras": {"a": "robot.place"}},
            r"cameras\.a: 'robot\.place' is float64 \(1,\), .*'eye",
        ),
        (
            {"id": "tiny/Blind-v0", "cameras": {"a": "render"}, "proprio": ()},
            r"cameras\.a: 'render' is object \(\), and no picture .*; pictures: none$",
        ),
        ({"success": "taken"}, r"success: 'taken' is float32 \(2,\), and no number; numbers: rew"),
        ({"proprio": ("place",)}, r"proprio: there is no 'place'; did you mean 'robot\.place'"),
        ({"proprio": ("eye",)}, r"proprio: 'eye' is uint8 .*; vectors: robot\.place$"),
        ({"proprio_units": ("m",) * 3}, r"proprio_units: 3 for 2 numbers; give one for all or"),
        ({"success": "is_success"}, r"success: there is no 'is_success'; known: near\.goal, rew"),
        ({"score": "taken"}, r"score: 'taken' is float32 \(2,\), and no number; numbers: reward"),
        ({"action_names": ("x",)}, r"action_names: 1 names for the 2 numbers of Box"),
        ({"binary": {"clew": (0.0, 1.0)}}, r"binary: no action is called 'clew'; did you mean 'cl"),
        ({"id": "tiny/Buttons-v0"}, r"id: the action space is Discrete\(3\): .* environment\.wrap"),
        ({"id": "tiny/Parts-v0"}, r"id: the action space is Dict.*: its actions have parts: arm"),
        ({"id": "tiny/Endless-v0"}, r"fps: tiny/Endless-v0 does not say its rate; give it"),
        ({"id": "tiny/Endless-v0", "fps": 5.0}, r"max_steps: tiny/Endless-v0 has no largest numb"),
        (
            {"id": "tiny/Endless-v0", "fps": 5.0, "max_steps": 9, "scaling": "normalised"},
            r"scaling: \"normalised\" needs bounds.*; set scaling = \"raw\"",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key_and_a_way_out(changes, message):
    with pytest.raises(DataError, match=rf"^environment\.{message}") as caught:
        Gymnasium(replace(CONFIG, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"success": "reward"}, "threshold is not set"),
        ({"success": "terminated", "threshold": 1.0}, "threshold has no effect"),
        ({"instructions": []}, "instructions is empty"),
        ({"cameras": {}}, "cameras is empty"),
        ({"binary": {"claw": [1.0, 1.0]}}, "binary.claw: closed and open are both 1.0"),
        ({"scaling": "clip"}, "environment.scaling"),
        ({"threshhold": 1}, "did you mean 'threshold'"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused_before_anything_is_built(changes, message):
    values = {"id": "tiny/Tiny-v0", "instructions": ["go"], "mode": "delta", **changes}
    mistakes: list[str] = []
    fill(GymnasiumConfig, values, "environment", mistakes)
    assert len(mistakes) == 1
    assert message in mistakes[0]


def test_a_missing_library_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(DataError, match=r"pip install 'joinery\[gymnasium\]'$"):
        Gymnasium(CONFIG)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(DataError, match=r"pip install 'joinery\[pusht\]'$"):
        Gymnasium(replace(CONFIG, module="gym_pusht"))


def test_a_wrapper_makes_buttons_a_vector():
    wrapped = replace(CONFIG, id="tiny/Buttons-v0", wrappers=("tiny_worlds:Press",))
    assert Gymnasium(wrapped).info.action.dim == 2


def test_without_an_expert_there_are_no_demonstrations():
    tiny = Gymnasium(replace(CONFIG, expert="none"))
    reset(tiny, "Tiny", 0)
    with pytest.raises(DataError, match=r"no expert; name one in environment\.expert, or import"):
        tiny.expert()


# --------------------------------------------------------------------------------------- end to end


def test_demonstrations_training_evaluation_report_and_comparison(tmp_path, capsys):
    """Actions of two dimensions without a gripper, and rewards."""
    head, _, tail = RECIPE.partition('name = "toy"\n')
    settings = """name = "gymnasium"
id = "tiny/Tiny-v0"
module = "tiny_worlds"
instructions = ["go right"]
mode = "absolute"
scaling = "normalised"
cameras = {front = "eye"}
proprio = ["robot.place"]
success = "near.goal"
expert = "tiny_worlds:to_the_right"
"""
    recipe = f"{head}{settings}{tail}[evaluate]\nepisodes = 3\nnum_envs = 2\n"
    (tmp_path / "tiny.toml").write_text(recipe)
    assert run.main([str(tmp_path / "tiny.toml"), "--output", str(tmp_path / "run")]) == 0
    store = EpisodeStore(tmp_path / "toy.zarr")
    assert (len(store), store.info.action.dim, store.info.action.grippers) == (3, 2, ())
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert [episode["failure"] for episode in results["episodes"]] == [None] * 3
    assert results["summary"]["standard"]["scores"]["best"]["all"]["attempts"] == 3
    assert "best score" in capsys.readouterr().out
    assert "<h3>Scores</h3>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    other, page = shutil.copytree(tmp_path / "run", tmp_path / "other"), tmp_path / "compare.html"
    assert main(["compare", str(tmp_path / "run"), str(other), "--output", str(page)]) == 0
    assert "<h3>Scores</h3>" in page.read_text(encoding="utf-8")
