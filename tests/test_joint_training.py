"""The study of joint training: its recipes, its statistics, its runs and its page."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from core.errors import DataError, JoineryError
from core.recipe.contents import PARTS
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.rollout.results import EpisodeResult, Evaluation
from tests.benchmarks.joint_training import runs
from tests.benchmarks.joint_training.__main__ import costs_of, main
from tests.benchmarks.joint_training.conditions import (
    NEW_TASKS,
    OLD_TASKS,
    Condition,
    experiments,
    recipe_of,
)
from tests.benchmarks.joint_training.runs import (
    Result,
    plan_runs,
    pretraining_plan,
    run_all,
)
from tests.benchmarks.joint_training.summary import draw_curves, summarise, write_page

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
    # projections between parts of different widths would rest in every stage, for none names them
    configs = {kind: part.config for kind, part in recipe.parts.items()}
    widths = {configs[kind].width for kind in ("vision_encoder", "text_encoder", "backbone")}
    assert len(widths) == 1


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


def evaluation(success: Sequence[bool]) -> Evaluation:
    """Return an evaluation with these attempts."""
    attempts = [
        EpisodeResult("standard", "push_red_left", seed, "push the red cube left", done, steps=9)
        for seed, done in enumerate(success)
    ]
    environment = {"name": "tabletop", "config": {}, "versions": {"joinery": "0.1.0"}}
    return Evaluation({}, environment, {}, {}, attempts, [], {})


class FakeRun:
    """Stands in for the processes of runs: notes their commands, and leaves what a run leaves."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, *words: str) -> None:
        self.commands.append(words)
        folder = Path(words[words.index("--output") + 1])
        (folder / "evaluation").mkdir(exist_ok=True)
        line = '{"step": 20, "validation/error": 0.5}\n'
        (folder / "metrics.jsonl").write_text('{"step": 20, "loss": 1.0}\n' + line)
        results = evaluation([True, False]).to_json()
        (folder / "evaluation" / "results.json").write_text(json.dumps(results))


@pytest.fixture
def fake_run(monkeypatch) -> FakeRun:
    fake = FakeRun()
    monkeypatch.setattr(runs, "_python", fake)
    return fake


def test_a_finished_run_is_read_and_an_interrupted_one_resumes(fake_run, tmp_path):
    plans = [pretraining_plan(tmp_path, seed) for seed in (1, 2)]
    (plans[1].folder / "checkpoints").mkdir(parents=True)
    first = run_all(plans, jobs=1)
    assert [words[-1] == "--resume" for words in fake_run.commands] == [False, True]
    assert run_all(plans, jobs=1) == first
    assert len(fake_run.commands) == 2
    assert (first[0].success, first[0].curve) == (0.5, {20: 0.5})


def test_a_finished_run_of_another_recipe_is_refused(fake_run, tmp_path):
    plan = pretraining_plan(tmp_path / "old", 1)
    run_all([plan], jobs=1)
    (tmp_path / "old").rename(tmp_path / "new")
    run_all([pretraining_plan(tmp_path / "new", 1)], jobs=1)  # it was moved, and is the same
    assert len(fake_run.commands) == 1
    moved = pretraining_plan(tmp_path / "new", 1)
    longer = {**moved.recipe, "train": {**moved.recipe["train"], "steps": 500}}
    with pytest.raises(DataError, match=r"seed_1: .* differs in train: remove that folder"):
        run_all([replace(moved, recipe=longer)], jobs=1)


def test_a_command_that_fails_says_why():
    program = "print('begun'); raise SystemExit('error: no backbone')"
    with pytest.raises(JoineryError) as raised:
        runs._python("-c", program)
    command, *output, advice = str(raised.value).splitlines()
    assert command.startswith("exit code 1 of: ")
    assert output == ["begun", "error: no backbone"]
    assert "begin the study again" in advice


def test_costs_of_other_conditions_are_refused(tmp_path):
    experiment = experiments()[0]
    (tmp_path / "costs_from_random.json").write_text('{"joint": 1.0}')
    with pytest.raises(DataError, match=r"costs_from_random\.json: lacks .*alternating"):
        costs_of(experiment, tmp_path)


def test_one_seed_has_no_spread(capsys):
    with pytest.raises(SystemExit):
        main(["--seeds", "1"])
    assert "two seeds or more" in capsys.readouterr().err


def test_the_page_shows_every_comparison(tmp_path):
    # so many seeds that differences of the same size are significant
    studied, seeds = experiments(), tuple(range(1, 16))
    costs = {e.key: {c.key: 1.0 for c in e.conditions} for e in studied}
    costs["from_random"] |= {"alternating": 0.5, "one_after_another": 1.25}
    # of 20 attempts; the difference between two conditions is the same for each seed
    successes = {"frozen_backbone": 2, "alternating": 18}
    plans = [plan for e in studied for plan in plan_runs(tmp_path / "runs", e, costs[e.key], seeds)]
    results = [
        Result(
            plan,
            evaluation([k < successes.get(plan.condition, 10) + plan.seed % 2 for k in range(20)]),
            {20: 0.5, 40: 0.25},
        )
        for plan in plans
    ]
    before = [
        Result(pretraining_plan(tmp_path / "runs", seed), evaluation([True]), {}) for seed in seeds
    ]
    summary = summarise(studied, costs, results, before)
    write_page(summary, tmp_path / "page.md", "figures.json", "curves.svg")
    draw_curves(summary, tmp_path / "curves.svg")
    page = (tmp_path / "page.md").read_text()
    for experiment in studied:
        for condition in experiment.conditions:
            assert f"\n| {condition.title} |" in page
    dearer = "first the other parts, then the policy head | as much processor time | 160 | 1.25 |"
    assert dearer in page
    assert "backbone frozen | both | 200 | 1.00 | 13% (" in page
    assert "| -40 (-40 to -40) | < 0.001 | worse |" in page
    better = page.split("- Better than joint training: ")[1].splitlines()[0]
    assert better.count("alternating steps") == 2  # with both budgets
    assert better.endswith("points.")
    assert "- Better than joint training, from pretrained parts: none." in page
    assert "| vision encoder frozen | both | 200 | 1.00 | 53% (51% to 54%) | 0 (0 to 0) |" in page
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")


def test_the_page_shows_the_figures_in_its_json():
    docs = Path(__file__).parents[1] / "docs"
    summary = json.loads((docs / "joint_training.json").read_text())
    lines = (docs / "joint_training.md").read_text().splitlines()
    for experiment in summary["experiments"]:
        for row in experiment["comparisons"]:
            start, success = f"| {row['title']} |", f"| {row['success']['mean']:.0%} ("
            assert any(line.startswith(start) and success in line for line in lines), row
    assert len(summary["seeds"]) >= 5
