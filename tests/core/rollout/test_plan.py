from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from core.environments.environment import EVALUATION_SEEDS, Task
from core.recipe.sections import EvaluateConfig
from core.rollout.plan import (
    BLANK,
    SWAPPED,
    PlannedAttempt,
    PlannedChain,
    describe_protocol,
    plan_attempts,
    plan_rollouts,
    planned_rollout,
    recipe_mistakes,
    swap_words,
    task_names,
)
from core.rollout.results import STANDARD, ChainResult, EpisodeResult
from tests.core.rollout.factories import attempts
from tests.toy_environment import toy_tasks

TASKS = toy_tasks()
NAMES = list(TASKS)


def test_tasks_stand_side_by_side_and_seeds_are_those_of_evaluation():
    plan = plan_attempts(EvaluateConfig(episodes=2), TASKS, NAMES)
    assert [(planned.task, planned.seed - EVALUATION_SEEDS) for planned in plan] == [
        ("reach_red", 0),
        ("reach_blue", 0),
        ("reach_red", 1),
        ("reach_blue", 1),
    ]
    for planned in plan:
        assert planned.instruction in TASKS[planned.task].held_out
        assert planned.condition == STANDARD
    assert len({planned.instruction for planned in plan}) == 4


def test_other_first_seeds_give_other_scenes():
    settings = EvaluateConfig(episodes=2, chains=2, first_seed=EVALUATION_SEEDS + 500)
    plan = plan_rollouts(settings, TASKS, NAMES)
    assert [planned.seed - EVALUATION_SEEDS for planned in plan] == [500, 500, 501, 501, 500, 501]
    assert describe_protocol(settings, NAMES)["first_seed"] == EVALUATION_SEEDS + 500


def test_chains_stand_behind_all_attempts():
    plan = plan_rollouts(EvaluateConfig(episodes=1, chains=2), TASKS, NAMES)
    assert [type(planned) for planned in plan] == [PlannedAttempt] * 2 + [PlannedChain] * 2
    assert plan[2:] == [PlannedChain(EVALUATION_SEEDS), PlannedChain(EVALUATION_SEEDS + 1)]


def test_controls_follow_with_their_own_number_of_episodes():
    settings = EvaluateConfig(
        episodes=3,
        controls=("blank_images", "swapped_words"),
        swap=("red", "blue"),
        control_episodes=2,
    )
    conditions = [planned.condition for planned in plan_attempts(settings, TASKS, NAMES)]
    assert conditions == [STANDARD] * 6 + [BLANK] * 4 + [SWAPPED] * 4
    without_number = replace(settings, control_episodes=None)
    assert len(plan_attempts(without_number, TASKS, NAMES)) == 18


def test_tasks_whose_instruction_holds_none_of_the_words_are_left_out_of_the_swap():
    tasks = TASKS | {"rest": replace(TASKS["reach_red"], name="rest", held_out=("do nothing",))}
    settings = EvaluateConfig(episodes=1, controls=("swapped_words",), swap=("red", "blue"))
    plan = plan_attempts(settings, tasks, list(tasks))
    swapped = [planned for planned in plan if planned.condition == SWAPPED]
    assert [planned.task for planned in swapped] == ["reach_red", "reach_blue"]
    assert [planned.instruction for planned in swapped] == [
        "touch the blue disc",
        "touch the red disc",
    ]


def test_controls_draw_what_the_standard_attempt_draws():
    standard, blank = attempts(3), attempts(3, BLANK)
    assert [planned.policy_seed for planned in standard] == [
        planned.policy_seed for planned in blank
    ]
    assert len({planned.policy_seed for planned in standard}) == len(standard)


def test_policy_seeds_stay_those_of_earlier_versions():
    """Another seed would change the results of policies that sample."""
    assert PlannedAttempt(STANDARD, "reach_red", 1_000_000, "").policy_seed == 210348687
    assert PlannedChain(1_000_000).policy_seed(1, "reach_red") == 1065209471


def test_a_result_knows_its_place_in_the_plan():
    attempt = EpisodeResult(BLANK, "reach_red", 7, "touch the red disc", True, 3)
    planned = PlannedAttempt(BLANK, "reach_red", 7, "touch the red disc")
    assert planned_rollout(attempt) == planned
    assert planned_rollout(ChainResult(7, ("reach_red",), (), 0, 3)) == PlannedChain(7)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("stack red on blue", "stack green on red"),
        ("Red and RED", "green and green"),
        ("the redder block, bluered", "the redder block, bluered"),
        ("green.", "blue."),
    ],
)
def test_words_are_swapped_whole_at_once_and_whatever_their_case(instruction, expected):
    assert swap_words(instruction, ["red", "green", "blue"]) == expected


@given(st.lists(st.sampled_from(["red", "green", "blue", "push", "it"])))
def test_swapping_as_often_as_there_are_words_changes_nothing(words):
    instruction = swapped = " ".join(words)
    for _ in range(3):
        swapped = swap_words(swapped, ["red", "green", "blue"])
    assert swapped == instruction


def test_tasks_are_those_of_evaluate_or_of_demonstrations_or_all():
    assert task_names(["a"], ["b"], TASKS) == ["a"]
    assert task_names([], ["b"], TASKS) == ["b"]
    assert task_names([], [], TASKS) == NAMES
    named_only = {**TASKS, "hard": Task("hard", ("do it",), 9, by_default=False)}
    assert task_names([], [], named_only) == NAMES
    assert task_names(["hard"], [], named_only) == ["hard"]


def test_each_mistake_of_the_recipe_is_a_line():
    settings = EvaluateConfig(tasks=("reach_rd", "fly"))
    assert list(recipe_mistakes(settings, ["reach_blu"], TASKS)) == [
        "demonstrations.tasks: the environment has no task 'reach_blu'; did you mean 'reach_blue'?",
        "evaluate.tasks: the environment has no task 'reach_rd'; did you mean 'reach_red'?",
        "evaluate.tasks: the environment has no task 'fly'; known: reach_blue, reach_red",
    ]
    useless_swap = EvaluateConfig(controls=("swapped_words",), swap=("left", "right"))
    assert list(recipe_mistakes(useless_swap, [], TASKS)) == [
        "evaluate.swap: none of the instructions holds any of the words left, right"
    ]
    assert not list(recipe_mistakes(replace(useless_swap, swap=("red", "left")), [], TASKS))
