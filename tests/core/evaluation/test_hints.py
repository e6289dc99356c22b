"""What an evaluation points out: other versions and other images than in the training data."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from core.environments.environment import Task
from core.environments.workers import EnvironmentSpec
from core.evaluation import evaluation as evaluation_module
from core.evaluation.display import show
from core.evaluation.evaluation import evaluate
from core.evaluation.first_images import environment_images
from core.evaluation.hints import other_versions, tasks_without_success
from core.evaluation.preparation import describe_environment
from core.rollout.plan import PlannedAttempt
from core.rollout.results import STANDARD, read_evaluation
from tests.toy_environment import ToyConfig, ToyEnvironment

ORIGIN = (
    "a toy; demonstrated by the expert of environment 'toy' with noise 0; settings {}; "
    "versions joinery 0.1.0, mujoco 3.3.0, two words 2"
)
DARK = "camera 'front': held against the training data, first images are black"


@pytest.mark.parametrize(
    ("origins", "present", "expected"),
    [
        ([ORIGIN], {"joinery": "0.1.0", "mujoco": "3.3.0", "numpy": "2"}, []),
        (
            [ORIGIN, ORIGIN],
            {"joinery": "0.1.0", "mujoco": "3.4.0", "two words": "3"},
            [
                "mujoco: the demonstrations were recorded with version 3.3.0, and the evaluation "
                "has 3.4.0",
                "two words: the demonstrations were recorded with version 2, and the evaluation "
                "has 3",
            ],
        ),
        (["BridgeData V2, CC BY 4.0", "", "; versions "], {"mujoco": "3.4.0"}, []),
    ],
)
def test_another_version_than_recorded_the_data_is_said(origins, present, expected):
    assert list(other_versions(origins, present)) == expected


def test_tasks_that_are_never_done_are_named_since_their_success_is_zero():
    tasks = {
        name: Task(name, ("go",), 9, has_success=name == "reach")
        for name in ("walk", "reach", "hop")
    }
    (line,) = tasks_without_success(tasks, {"walk", "reach", "hop"})
    assert line == "never done, so that only scores tell how good the policy is: walk, hop"
    assert list(tasks_without_success(tasks, {"reach"})) == []


def test_a_scene_that_varies_gives_no_hint_and_neither_does_a_control(trained, load):
    recipe = load("evaluate.controls=['blank_images']", "evaluate.control_episodes=1")
    assert list(evaluate(trained, recipe, Console(quiet=True)).hints) == []


def test_a_dark_environment_is_said_at_once_in_the_table_and_in_the_results(
    trained, load, monkeypatch
):
    console = Console(width=200, file=StringIO())
    evaluation = evaluate(trained, load("environment.dark=true", "evaluate.episodes=1"), console)
    assert console.file.getvalue().splitlines()[0] == f"hint: {DARK}"
    assert evaluation.hints == [DARK]
    table = Console(width=200, file=StringIO())
    show(read_evaluation(trained / "evaluation" / "results.json"), table)
    assert f"hint: {DARK}\n" in table.file.getvalue()
    # a second call reads the results, and looks at nothing
    monkeypatch.setattr(evaluation_module, "find_hints", None)
    again = evaluate(trained, load("environment.dark=true", "evaluate.episodes=1"), console)
    assert list(again.hints) == [DARK]


def test_without_the_data_nothing_is_said_of_images(trained, load):
    recipe = load("environment.dark=true", "data.path=/nowhere/toy.zarr", "evaluate.episodes=1")
    assert list(evaluate(trained, recipe, Console(quiet=True)).hints) == []


def test_a_robot_is_not_arranged_for_a_look_alone(trained, load, monkeypatch):
    def once_only(recipe, look):
        return replace(describe_environment(recipe, look), replayable=False)

    monkeypatch.setattr(evaluation_module, "describe_environment", once_only)
    recipe = load("environment.dark=true", "evaluate.episodes=1")
    assert list(evaluate(trained, recipe, Console(quiet=True)).hints) == []


class Broken(ToyEnvironment):
    """A toy that cannot arrange a scene."""

    def reset(self, task: str, seed: int) -> None:
        raise RuntimeError("no scene")


def test_an_environment_that_fails_is_the_business_of_the_evaluation():
    attempts = [PlannedAttempt(STANDARD, "reach_red", 1_000_000, "go")]
    spec = EnvironmentSpec("toy", Broken, ToyConfig())
    assert environment_images(spec, attempts, 60) == {}
    spec = replace(spec, build=ToyEnvironment)
    assert environment_images(spec, attempts, 60)["front"].shape == (1, 16, 16, 3)
