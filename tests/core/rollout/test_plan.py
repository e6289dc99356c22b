from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from core.environments.environment import EVALUATION_SEEDS
from core.recipe.sections import EvaluateConfig
from core.rollout import plan as protocol
from core.rollout.plan import BLANK, SWAPPED
from core.rollout.results import STANDARD
from tests.toy_environment import toy_tasks

TASKS = toy_tasks()
NAMES = list(TASKS)


def test_tasks_stand_side_by_side_and_seeds_are_those_of_evaluation():
    planned = protocol.attempts(EvaluateConfig(episodes=2), TASKS, NAMES)
    assert [(a.task, a.seed - EVALUATION_SEEDS) for a in planned] == [
        ("reach_red", 0),
        ("reach_blue", 0),
        ("reach_red", 1),
        ("reach_blue", 1),
    ]
    assert all(a.instruction in TASKS[a.task].held_out and a.condition == STANDARD for a in planned)
    assert len({a.instruction for a in planned}) == 4


def test_controls_follow_with_their_own_number_of_episodes():
    settings = EvaluateConfig(
        episodes=3,
        controls=("blank_images", "swapped_words"),
        swap=("red", "blue"),
        control_episodes=2,
    )
    conditions = [a.condition for a in protocol.attempts(settings, TASKS, NAMES)]
    assert conditions == [STANDARD] * 6 + [BLANK] * 4 + [SWAPPED] * 4
    without_number = replace(settings, control_episodes=None)
    assert len(protocol.attempts(without_number, TASKS, NAMES)) == 18


def test_tasks_whose_instruction_holds_none_of_the_words_are_left_out_of_the_swap():
    tasks = TASKS | {"rest": replace(TASKS["reach_red"], name="rest", held_out=("do nothing",))}
    settings = EvaluateConfig(episodes=1, controls=("swapped_words",), swap=("red", "blue"))
    planned = protocol.attempts(settings, tasks, list(tasks))
    assert [a.task for a in planned if a.condition == SWAPPED] == ["reach_red", "reach_blue"]
    assert [a.instruction for a in planned if a.condition == SWAPPED] == [
        "touch the blue disc",
        "touch the red disc",
    ]


@pytest.mark.parametrize(
    ("told", "becomes"),
    [
        ("stack red on blue", "stack green on red"),
        ("Red and RED", "green and green"),
        ("the redder block, bluered", "the redder block, bluered"),
        ("green.", "blue."),
    ],
)
def test_words_are_swapped_whole_at_once_and_whatever_their_case(told, becomes):
    assert protocol.swap_words(told, ["red", "green", "blue"]) == becomes


@given(st.lists(st.sampled_from(["red", "green", "blue", "push", "it"])))
def test_swapping_as_often_as_there_are_words_changes_nothing(words):
    told = again = " ".join(words)
    for _ in range(3):
        again = protocol.swap_words(again, ["red", "green", "blue"])
    assert again == told


def test_tasks_are_those_of_evaluate_else_of_demonstrations_else_all():
    assert protocol.task_names(["a"], ["b"], TASKS) == ["a"]
    assert protocol.task_names([], ["b"], TASKS) == ["b"]
    assert protocol.task_names([], [], TASKS) == NAMES


def test_what_the_environment_cannot_do_is_said_in_a_line_each():
    settings = EvaluateConfig(tasks=("reach_rd", "fly"))
    assert list(protocol.mistakes(settings, ["reach_blu"], TASKS)) == [
        "demonstrations.tasks: the environment has no task 'reach_blu'; did you mean 'reach_blue'?",
        "evaluate.tasks: the environment has no task 'reach_rd'; did you mean 'reach_red'?",
        "evaluate.tasks: the environment has no task 'fly'; known: reach_blue, reach_red",
    ]
    strange = EvaluateConfig(controls=("swapped_words",), swap=("left", "right"))
    assert list(protocol.mistakes(strange, [], TASKS)) == [
        "evaluate.swap: none of the instructions holds any of the words left, right"
    ]
    assert not list(protocol.mistakes(replace(strange, swap=("red", "left")), [], TASKS))
