"""The study of joint training: its recipes are valid, and its statistics are those of scipy."""

from dataclasses import replace

import pytest
import tomli_w
from scipy import stats

from core.recipe.recipe import PARTS, load_recipe
from core.registry.catalogue import load_plugins
from tests.benchmarks.joint_training.comparison import compare, estimate, holm
from tests.benchmarks.joint_training.conditions import (
    NEW_TASKS,
    OLD_TASKS,
    Condition,
    experiments,
    recipe_of,
)
from tests.benchmarks.joint_training.runs import plan_runs

CONDITIONS = [condition for experiment in experiments() for condition in experiment.conditions]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda each: f"{each.start}-{each.key}")
def test_every_condition_is_a_valid_recipe(condition: Condition, tmp_path):
    pretrained = tmp_path / "pretrained"
    table = recipe_of(condition, tmp_path / "data.zarr", seed=3, steps=40, pretrained=pretrained)
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(table))
    recipe = load_recipe(path, [], load_plugins())
    assert (recipe.train.seed, recipe.train.steps) == (3, 40)
    sources = {kind: part.settings.pretrained for kind, part in recipe.parts.items()}
    is_pretrained = condition.start == "pretrained"
    assert sources == dict.fromkeys(PARTS, str(pretrained) if is_pretrained else False)
    if condition.key.startswith("frozen_"):
        (stage,) = recipe.train.stages
        assert {*PARTS} - {*stage.parts} == {condition.key.removeprefix("frozen_")}


def test_the_tasks_that_are_adapted_to_are_new():
    assert not {*OLD_TASKS} & {*NEW_TASKS}


def test_a_cheaper_step_gets_more_steps_for_equal_compute(tmp_path):
    experiment = experiments()[0]
    cheap, dear = experiment.others[0].key, experiment.others[1].key
    costs = {condition.key: 1.0 for condition in experiment.conditions} | {cheap: 0.5, dear: 0.98}
    plans = plan_runs(tmp_path, experiment, costs, seeds=[1, 2])
    steps = {
        (plan.condition, plan.budget): plan.recipe["train"]["steps"]
        for plan in plans
        if plan.seed == 2
    }
    assert steps[cheap, "samples"] == experiment.steps
    assert steps[cheap, "compute"] == 2 * experiment.steps
    assert (dear, "compute") not in steps
    assert len({plan.folder for plan in plans}) == len(plans)


def test_comparisons_are_paired_t_tests():
    base, other = [0.8, 0.9, 0.7, 0.85, 0.9], [0.6, 0.8, 0.65, 0.6, 0.7]
    (comparison,) = compare(base, {"other": other})
    expected = stats.ttest_rel(other, base)
    assert comparison.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert comparison.difference.low == pytest.approx(interval.low)
    assert comparison.difference.high == pytest.approx(interval.high)
    assert comparison.verdict == "worse"
    assert replace(comparison, p=0.06).verdict == "no difference shown"


def test_seeds_without_spread_need_no_division_by_zero():
    same, lower = compare([0.5, 0.6], {"same": [0.5, 0.6], "lower": [0.25, 0.35]})
    assert (same.p, same.verdict) == (1.0, "no difference shown")
    assert lower.difference.mean == pytest.approx(-0.25)
    assert estimate([1.0, 1.0, 1.0]).low == 1.0


def test_holm():
    # the example of Holm's procedure: the smallest times 3, the next times 2, never falling
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
