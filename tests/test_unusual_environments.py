"""An environment as unlike the others as the contract allows goes through every command."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from core import run
from core.cli import main
from core.demonstrations.expert import demonstrate
from core.environments.environment import Environment, Observation, StepResult, Task
from core.episodes.episode import ActionConvention, Camera, StoreInfo
from core.registry.catalogue import load_plugins
from core.registry.components import Component, Plugin
from core.rollout.actor import load_actor
from core.store.store import EpisodeStore
from tests.core.testing.failing import failures
from tests.toy_policy import RECIPE

JOINTS, STEPS = 14, 6


@dataclass(frozen=True)
class WalkerConfig:
    falls: bool = False
    """whether the walker falls in its second step."""


class Walker(Environment):
    """14 torques without a gripper, images without proprioception, rewards, and no success."""

    def __init__(self, config: WalkerConfig) -> None:
        self.config = config
        names = tuple(f"hip_{i}" if i % 2 else f"knee_{i}" for i in range(JOINTS))
        action = ActionConvention(
            names, "delta", "joint", "none", (2.0,) * JOINTS, 5.0, units=("N m",) * JOINTS
        )
        self.info = StoreInfo(5.0, {"side": Camera(16, 16)}, action, origin="a walker")
        self.tasks = {"walk": Task("walk", ("walk on",), STEPS, has_success=False)}
        self.versions: dict[str, str] = {}

    def reset(self, task: str, seed: int) -> None:
        self.walked, self.step_count = float(np.random.default_rng(seed).random()), 0

    def step(self, action: np.ndarray) -> StepResult:
        self.step_count += 1
        effort = float(np.clip(action, -1, 1).mean())
        self.walked += effort
        return StepResult(ended=self.config.falls and self.step_count == 2, score=effort)

    def observe(self) -> Observation:
        image = np.full((16, 16, 3), int(40 * self.walked) % 256, np.uint8)
        return Observation({"side": image}, np.zeros(0, np.float32))

    def expert(self) -> np.ndarray:
        return np.linspace(0.4, 0.6, JOINTS, dtype=np.float32)


@pytest.fixture(scope="module")
def walker_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on demonstrations of the walker and evaluated in it."""
    plugin = Plugin("tests.test_unusual_environments", "tests", "1")
    component = Component("environment", "walker", WalkerConfig, Walker, plugin)
    load_plugins()["environment"].add(component)
    folder = tmp_path_factory.mktemp("walker")
    recipe = RECIPE.replace('name = "toy"', 'name = "walker"').replace("proprio = true\n", "")
    (folder / "walker.toml").write_text(recipe + "[evaluate]\nepisodes = 3\nnum_envs = 2\n")
    assert run.main([str(folder / "walker.toml"), "--output", str(folder / "run")]) == 0
    return folder / "run"


def test_demonstrations_of_a_task_without_success_are_whole(walker_run):
    store = EpisodeStore(walker_run.parent / "toy.zarr")
    assert store.length.tolist() == [STEPS] * 3
    assert (store.info.action.dim, store.info.action.grippers, store.info.proprio) == (14, (), ())
    assert store.info.action.units == ("N m",) * JOINTS
    assert demonstrate(Walker(WalkerConfig(falls=True)), "walk", 0, noise=0) is None


def test_the_units_reach_the_policy(walker_run):
    info = load_actor(walker_run).info
    assert info == replace(Walker(WalkerConfig()).info, origin=info.origin)


def test_attempts_last_all_steps_and_are_scored(walker_run):
    results = json.loads((walker_run / "evaluation" / "results.json").read_text())
    assert [episode["steps"] for episode in results["episodes"]] == [STEPS] * 3
    assert "never done, so that only scores tell how good the policy is: walk" in results["hints"]
    summary = results["summary"]["standard"]
    assert summary["ends"] == {"success": 0, "ended": 0, "max_steps": 3, "failure": 0}
    assert summary["scores"]["sum"]["all"]["mean"] == pytest.approx(
        STEPS * summary["scores"]["mean"]["all"]["mean"]
    )


def test_an_end_before_the_last_step_counts_as_such(walker_run):
    falls = ["environment.falls=true", "--output", str(walker_run / "falls")]
    assert main(["evaluate", str(walker_run), *falls]) == 0
    results = json.loads((walker_run / "falls" / "results.json").read_text())
    assert [episode["steps"] for episode in results["episodes"]] == [2] * 3
    assert results["summary"]["standard"]["ends"]["ended"] == 3


def test_store_report_and_comparison_show_it(walker_run, tmp_path, capsys):
    assert main(["show", str(walker_run.parent / "toy.zarr")]) == 0
    shown = capsys.readouterr().out
    assert "1 hip_1: 1.0 is 2 N m" in shown
    assert "proprioception: none" in shown
    report = (walker_run / "report.html").read_text(encoding="utf-8")
    assert "<h3>Scores</h3>" in report
    assert "before success" not in report
    other = shutil.copytree(walker_run, tmp_path / "other")
    page = tmp_path / "compare.html"
    assert main(["compare", str(walker_run), str(other), "--output", str(page)]) == 0
    assert "<h3>Scores</h3>" in page.read_text(encoding="utf-8")


def test_the_contract_tests_pass():
    assert not failures("environment", Walker, WalkerConfig())
