from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from core.evaluation.evaluation import evaluate
from core.evaluation.recorder import RolloutRecorder, gripper_opening
from core.rollout.attempt import Attempt, FinishedRollout
from core.rollout.plan import PlannedAttempt
from core.rollout.results import STANDARD, EpisodeResult
from tests.toy_environment import CLOSED, OPEN, ToyConfig, ToyEnvironment, toy_info

PLAN = [
    PlannedAttempt(condition, "reach/red", seed, "touch it")
    for condition in (STANDARD, "blank_images")
    for seed in range(4)
]


def recorder(folder: Path, *results: EpisodeResult) -> RolloutRecorder:
    return RolloutRecorder(folder, PLAN, results, toy_info())


def result(seed: int, success: bool, condition: str = STANDARD, failure=None) -> EpisodeResult:
    return EpisodeResult(condition, "reach/red", seed, "touch it", success, 2, failure)


def finished(*arguments, **options) -> FinishedRollout:
    attempt = Attempt("touch it", seed=0, max_steps=9, recording=True)
    environment = ToyEnvironment(ToyConfig())
    attempt.frames = [environment.observe() for _ in range(3)]
    attempt.commands = [np.array([0, 0, OPEN])] * 2 + [np.array([0, 0, CLOSED])]
    return FinishedRollout(result(*arguments, **options), attempt)


def recorded_seeds(folder: Path) -> dict[str, int]:
    seeds = {}
    for path in folder.glob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            seeds[path.name] = arrays["seed"].item()
    return seeds


def test_the_first_of_the_plan_is_kept_whatever_ends_first(tmp_path):
    saved = recorder(tmp_path)
    for seed in (2, 3, 1):
        saved.save(finished(seed, True))
    assert recorded_seeds(tmp_path) == {"reach_red-success.npz": 1}
    saved.save(finished(3, False))
    assert recorded_seeds(tmp_path) == {"reach_red-success.npz": 1, "reach_red-failure.npz": 3}


def test_controls_and_failed_environments_are_not_recorded(tmp_path):
    saved = recorder(tmp_path)
    saved.save(finished(0, True, "blank_images"))
    saved.save(finished(1, False, failure="died (SIGKILL)"))
    assert recorded_seeds(tmp_path) == {}


def test_attempts_that_cannot_come_first_are_not_recorded(tmp_path):
    saved = recorder(tmp_path, result(1, True), result(2, False))
    should_record = [saved.should_record(planned) for planned in PLAN]
    # seed 1 itself may still turn out to be an earlier failure than that of seed 2
    assert should_record == [True, True, False, False] + [False] * 4
    saved.save(finished(3, True))
    assert recorded_seeds(tmp_path) == {}


def test_a_grippers_opening_is_between_closed_and_open():
    commands = np.array([[0, 0, CLOSED], [0, 0, 0.0], [0, 0, OPEN], [0, 0, 9.0]])
    np.testing.assert_allclose(gripper_opening(commands, toy_info().action), [0, 0.5, 1, 1])
    without = replace(toy_info().action, grippers=())
    assert np.isnan(gripper_opening(commands, without)).all()


@pytest.mark.parametrize("replan_steps", [1, 3])
def test_recordings_hold_what_the_policy_saw(trained, load, replan_steps):
    recipe = load(f"evaluate.replan_steps={replan_steps}")
    evaluation = evaluate(trained, recipe, Console(quiet=True))
    folder = trained / "evaluation" / "rollouts"
    first = {(e.task, e.success): e for e in reversed(evaluation.episodes)}
    names = {
        f"{task}-{'success' if success else 'failure'}.npz": episode
        for (task, success), episode in first.items()
    }
    assert {path.name for path in folder.iterdir()} == names.keys()
    for name, episode in names.items():
        with np.load(folder / name, allow_pickle=False) as arrays:
            frames, gripper = arrays["camera/front"], arrays["gripper"]
            facts = {key: arrays[key].item() for key in ("task", "instruction", "seed", "success")}
        assert frames.shape == (-(-episode.steps // replan_steps) + 1, 16, 16, 3)
        assert (frames.dtype, gripper.dtype) == (np.uint8, np.float32)
        assert gripper.shape == frames.shape[:1]
        assert set(gripper.tolist()) <= {0.0, 1.0}
        assert facts == {
            "task": episode.task,
            "instruction": episode.instruction,
            "seed": episode.seed,
            "success": episode.success,
        }
