"""Whole evaluations of a policy that was trained for a few steps."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from core.cli import main
from core.commands import evaluate as evaluate_command
from core.environments.environment import EVALUATION_SEEDS
from core.environments.workers import Description
from core.errors import ConfigError, DataError
from core.evaluation import evaluation as evaluation_module
from core.evaluation.display import show
from core.evaluation.evaluation import evaluate
from core.evaluation.film_files import read_film
from core.evaluation.preparation import describe_environment
from core.rollout.actor import load_actor
from core.rollout.results import read_evaluation
from core.rollout.runner import run_rollouts
from core.system.console import output
from tests import toy_environment
from tests.toy_command import install_toy
from tests.toy_environment import MAX_STEPS
from tests.toy_policy import ScriptedActor

ROOT = Path(__file__).parents[3]
QUIET = Console(quiet=True)
EVERYTHING = (
    "evaluate.chains=3",
    "evaluate.controls=['blank_images', 'swapped_words']",
    "evaluate.swap=['red', 'blue']",
    "evaluate.control_episodes=1",
    "evaluate.replan_steps=2",
)


def outcome(folder: Path):
    """Return results.json without the numbers that differ between evaluations."""
    written = json.loads((folder / "results.json").read_text())
    time = written.pop("time")
    of_log = {"inference_ms", "policy_steps", "rows_busy", "steps_per_second", "seconds"}
    assert set(time) == {*of_log, "latency_ms"}
    assert 0 < time["rows_busy"] <= 1 <= time["policy_steps"]
    assert time["latency_ms"] > 0
    return written


def test_one_policy_evaluated_twice_gives_the_same_numbers(trained, load):
    recipe = load(*EVERYTHING)
    evaluation = evaluate(trained, recipe, QUIET)
    evaluate(trained, recipe, QUIET, trained / "again")
    assert outcome(trained / "evaluation") == outcome(trained / "again")
    assert read_evaluation(trained / "evaluation" / "results.json") == evaluation
    assert evaluation.conditions == ["standard", "blank_images", "swapped_words"]
    counts = Counter(episode.condition for episode in evaluation.episodes)
    assert counts == {"standard": 6, "blank_images": 2, "swapped_words": 2}
    assert {e.seed - EVALUATION_SEEDS for e in evaluation.episodes} == {0, 1, 2}
    assert len(evaluation.chains) == 3
    assert evaluation.tiers == {"reach_red": "warm", "reach_blue": "cold"}
    assert all(e.steps == MAX_STEPS for e in evaluation.episodes if not e.success)


def test_an_environment_with_other_names_gives_the_same_results(trained, load, elsewhere):
    expected = evaluate(trained, load("evaluate.chains=1"), QUIET)
    cameras, proprio = {"front": "agentview"}, {"x": "east", "y": "north"}
    overrides = "evaluate.cameras={front='agentview'}", "evaluate.proprio={x='east', y='north'}"
    recipe = elsewhere(load("evaluate.chains=1", *overrides))
    evaluation = evaluate(trained, recipe, QUIET, trained / "elsewhere")
    assert (evaluation.episodes, evaluation.chains) == (expected.episodes, expected.chains)
    assert evaluation.protocol["names"] == {"cameras": cameras, "proprio": proprio}
    assert "names" not in expected.protocol


def test_chains_alone_are_an_evaluation(trained, load):
    evaluation = evaluate(trained, load("evaluate.episodes=0", "evaluate.chains=3"), QUIET)
    assert (len(evaluation.episodes), len(evaluation.chains)) == (0, 3)
    screen = StringIO()
    show(read_evaluation(trained / "evaluation" / "results.json"), Console(file=screen, width=100))
    assert screen.getvalue().startswith("chains: average length")


def test_everything_needed_to_repeat_it_is_written(trained, load):
    evaluate(trained, load("evaluate.replan_steps=2"), QUIET)
    written = outcome(trained / "evaluation")
    assert written["policy"]["checkpoint"] == "step_00000004"
    assert {len(written["policy"][key]) for key in ("recipe_sha256", "weights_sha256")} == {64}
    # "toy" is the environment's own entry, and "tests" the package of its plugin
    assert {"joinery", "torch", "numpy", "python", "toy", "tests"} == written["environment"][
        "versions"
    ].keys()
    assert written["environment"]["config"]["cameras"] == 1
    protocol = written["protocol"]
    assert (protocol["execute"], protocol["lanes"], protocol["first_seed"]) == (
        2,
        4,
        EVALUATION_SEEDS,
    )
    assert protocol["tasks"] == ["reach_red", "reach_blue"]
    assert (protocol["device"], protocol["threads"]) == ("cpu", 1)


def interrupt_after(monkeypatch, count: int) -> None:
    """Let an evaluation end as with Ctrl-C, after `count` results."""

    def interrupted(*arguments):
        for number, pair in enumerate(run_rollouts(*arguments)):
            if number == count:
                raise KeyboardInterrupt
            yield pair

    monkeypatch.setattr(evaluation_module, "run_rollouts", interrupted)


@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_an_interrupted_evaluation_goes_on_to_the_same_numbers(trained, load, monkeypatch, count):
    recipe, log = load(*EVERYTHING), trained / "evaluation" / "episodes.jsonl"
    evaluate(trained, recipe, QUIET, trained / "whole")
    interrupt_after(monkeypatch, count)
    with pytest.raises(KeyboardInterrupt):
        evaluate(trained, recipe, QUIET)
    assert not (trained / "evaluation" / "results.json").exists()
    logged = log.read_text()
    assert logged.count("\n") == 1 + count
    with log.open("a") as file:
        file.write('{"result": {"condi')
    monkeypatch.setattr(evaluation_module, "run_rollouts", run_rollouts)
    evaluate(trained, recipe, QUIET)
    assert log.read_text().startswith(logged)
    assert log.read_text().count("\n") == 1 + 13  # each attempt and chain once
    assert outcome(trained / "evaluation") == outcome(trained / "whole")
    assert rollouts(trained / "evaluation") == rollouts(trained / "whole")


def rollouts(folder: Path) -> dict[str, int]:
    """Return {file name: seed of its attempt}."""
    seeds = {}
    for path in (folder / "rollouts").iterdir():
        seeds[path.name] = read_film(path, range).facts.seed
    return seeds


@pytest.fixture
def scripted_policy(trained, monkeypatch) -> ScriptedActor:
    """The policy of every evaluation in this test: unlike the trained one it often succeeds."""
    trained_actor, scripted = load_actor(trained), ScriptedActor(noise=0.8)
    for name in ("policy", "checkpoint", "device", "check"):
        setattr(scripted, name, getattr(trained_actor, name))
    monkeypatch.setattr(evaluation_module, "load_actor", lambda *_, **__: scripted)
    return scripted


@pytest.mark.parametrize("count", [1, 7, 20])
def test_attempts_that_were_interrupted_are_made_again(
    trained, load, monkeypatch, scripted_policy, count
):
    recipe = load(*EVERYTHING, "evaluate.episodes=8")
    whole = evaluate(trained, recipe, QUIET, trained / "whole")
    assert {e.success for e in whole.episodes if e.condition == "standard"} == {True, False}
    interrupt_after(monkeypatch, count)
    with pytest.raises(KeyboardInterrupt):
        evaluate(trained, recipe, QUIET)
    monkeypatch.setattr(evaluation_module, "run_rollouts", run_rollouts)
    evaluate(trained, recipe, QUIET)
    assert outcome(trained / "evaluation") == outcome(trained / "whole")
    assert rollouts(trained / "evaluation") == rollouts(trained / "whole")


@pytest.mark.parametrize("num_rows", [1, 16])
def test_neither_results_nor_rollouts_depend_on_the_number_of_rows(
    trained, load, scripted_policy, num_rows
):
    settings = (*EVERYTHING, "evaluate.episodes=8")
    four = evaluate(trained, load(*settings), QUIET, trained / "four")
    evaluation = evaluate(
        trained, load(*settings, f"evaluate.num_envs={num_rows}"), QUIET, trained / "other"
    )
    assert (evaluation.episodes, evaluation.chains) == (four.episodes, four.chains)
    assert rollouts(trained / "other") == rollouts(trained / "four")
    first = {
        (e.task, e.success): e.seed for e in reversed(four.episodes) if e.condition == "standard"
    }
    names = {
        f"{task}-{'success' if success else 'failure'}.mp4": seed
        for (task, success), seed in first.items()
    }
    assert rollouts(trained / "four") == names


def test_nearly_all_rows_are_busy_and_the_last_lines_say_so(trained, load, scripted_policy):
    settings = (
        "evaluate.episodes=150",
        "evaluate.controls=['blank_images']",
        "evaluate.control_episodes=20",
    )
    evaluation = evaluate(trained, load(*settings, "evaluate.num_envs=16"), QUIET)
    assert evaluation.time["rows_busy"] >= 0.95
    assert evaluation.time["policy_steps"] == len(
        [rows for rows in scripted_policy.batch_sizes if rows == 16]
    )
    console = Console(width=200, file=StringIO())
    show(evaluation, console)
    assert (
        f"{100 * evaluation.time['rows_busy']:.0f} % of the policy's rows busy"
        in console.file.getvalue()
    )


def test_a_finished_evaluation_is_read_and_not_done_again(trained, load, monkeypatch):
    evaluation = evaluate(trained, load(), QUIET)
    monkeypatch.setattr(evaluation_module, "run_rollouts", None)
    assert evaluate(trained, load("evaluate.timeout=20"), QUIET).episodes == evaluation.episodes


def test_another_protocol_in_the_folder_is_refused(trained, load):
    evaluate(trained, load(), QUIET)
    with pytest.raises(
        DataError,
        match=r"evaluation: holds another evaluation \(protocol.episodes 3 there, 4 now\)",
    ):
        evaluate(trained, load("evaluate.episodes=4"), QUIET)


def test_a_run_may_be_renamed(trained, load):
    recipe = load()
    evaluation = evaluate(trained, recipe, QUIET)
    renamed = evaluate(trained.rename(trained.with_name("renamed")), recipe, QUIET)
    assert (renamed.episodes, renamed.policy["run"]) == (evaluation.episodes, "renamed")


def test_a_log_that_does_not_fit_the_plan_is_refused(trained, load):
    """Two evaluations that wrote into one folder, for example: every attempt twice."""
    recipe = load("evaluate.chains=5")
    evaluate(trained, recipe, QUIET)
    path = trained / "evaluation" / "episodes.jsonl"
    first, *results = path.read_text().splitlines(keepends=True)
    chain, attempt = results[0], results[-1]
    other_chain = chain.replace(f'"seed": {json.loads(chain)["result"]["seed"]}', '"seed": 7')
    other_attempt = attempt.replace(
        json.loads(attempt)["result"]["instruction"], "reach for the sky"
    )
    for lines in ([*results, chain], [*results, attempt], [other_chain], [other_attempt]):
        path.write_text("".join([first, *lines]))
        with pytest.raises(
            DataError, match=r"episodes.jsonl: holds other attempts than this evaluation makes"
        ):
            evaluate(trained, recipe, QUIET)


def test_results_may_be_missing_anywhere(trained, load):
    recipe = load("evaluate.chains=5")
    evaluate(trained, recipe, QUIET)
    before, path = outcome(trained / "evaluation"), trained / "evaluation" / "episodes.jsonl"
    first, *results = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, *results[1::3]]))
    evaluate(trained, recipe, QUIET)
    assert outcome(trained / "evaluation") == before


def test_without_the_data_a_line_says_that_there_are_no_predictions(trained, load, capsys):
    evaluate(trained, load("data.path=/nowhere/toy.zarr"), Console(soft_wrap=True))
    assert not (trained / "evaluation" / "predictions.npz").exists()
    assert (
        "no predictions on validation episodes: data.path: /nowhere/toy.zarr"
        in capsys.readouterr().out
    )


def test_a_url_of_the_recipe_is_not_asked_unless_the_run_was_trained_here(
    trained, load, capsys, monkeypatch
):
    def refuse(objects, url, cache):
        raise DataError(f"{url} was asked")

    monkeypatch.setattr("core.store.objects.Objects.__init__", refuse)
    recipe = load("data.path=https://stranger.example/toy.zarr")
    evaluate(trained, recipe, output())
    shown = capsys.readouterr().out
    assert "at https://stranger.example/toy.zarr, and only training reads a URL" in shown
    assert "was asked" not in shown
    evaluate(trained, recipe, output(), asks_urls=True)
    assert "https://stranger.example/toy.zarr was asked" in capsys.readouterr().out


def test_an_environment_that_differs_from_the_training_data_is_refused(trained, load, monkeypatch):
    monkeypatch.setattr(toy_environment, "SPEED", 0.1)
    slow_toy = Description(toy_environment.toy_info(), toy_environment.toy_tasks(), {})
    monkeypatch.setattr(evaluation_module, "describe_environment", lambda *_, **__: slow_toy)
    with pytest.raises(
        ConfigError, match=r"^action.scale: the policy has \(0.2, 0.2, 1.0\), the environment \(0.1"
    ):
        evaluate(trained, load(), QUIET)
    assert not (trained / "evaluation").exists()


def test_a_failed_environment_is_counted_and_named(trained, load):
    fault = f"{{kind = 'crash', seed = {EVALUATION_SEEDS + 1}, step = 3}}"
    evaluation = evaluate(trained, load(f"environment.faults=[{fault}]"), QUIET)
    failed = [e for e in evaluation.episodes if e.failure]
    assert {(e.seed - EVALUATION_SEEDS, e.success) for e in failed} == {(1, False)}
    console = Console(width=200, file=StringIO())
    show(evaluation, console)
    name = f"standard reach_red/{EVALUATION_SEEDS + 1}, after 3 steps, and 1 more"
    assert f"{name}: died (exit code 3); counted as failed" in console.file.getvalue().splitlines()


def test_an_environment_that_ignores_its_seed_is_named_with_figures(trained, load, monkeypatch):
    """And in the results, which say so of an environment that heeds it, too."""
    sound = evaluate(trained, load(), QUIET, trained / "sound")
    assert sound.environment["same_scene_twice"] == "yes"
    found = replace(describe_environment(load()), scene_differences={"proprio": 0.25})
    monkeypatch.setattr(evaluation_module, "describe_environment", lambda *_, **__: found)
    console = Console(width=300, file=StringIO())
    evaluation = evaluate(trained, load(), console, trained / "ignorant")
    assert evaluation.environment["same_scene_twice"] == "no: proprio differs by up to 0.25"
    assert (
        f"(tests 1): reset('reach_red', {EVALUATION_SEEDS}) gave another scene when it was called "
        "again: proprio differs by up to 0.25; results cannot be repeated; "
    ) in console.file.getvalue()


def test_an_evaluation_in_which_every_attempt_broke_has_failed(command, trained):
    faults = [f"{{kind = 'raise', seed = {EVALUATION_SEEDS + i}, step = 0}}" for i in range(2)]
    words = [f"environment.faults=[{', '.join(faults)}]", "--tasks", "reach_red", "--episodes"]
    assert command(*words, "3")[0] == 0  # the third attempt did not break
    code, out, err = command(*words, "2", "--output", str(trained / "broken"))
    assert code == 1
    assert "0/2" in out
    assert err.startswith("error: all 2 attempts broke, so nothing was measured; each time: raised")
    assert "each time: raised (RuntimeError: the toy broke" in err
    assert err.count("\n") == 1
    assert outcome(trained / "broken")["episodes"][0]["failure"]


def test_the_table_has_intervals_and_controls(trained, load):
    evaluation = evaluate(trained, load(*EVERYTHING), QUIET)
    console = Console(width=80, file=StringIO())
    show(evaluation, console)
    shown = console.file.getvalue()
    for text in ("reach_red", "95 % interval", "blank", "swapped", "mean of tasks"):
        assert text in shown
    assert "mean of warm" not in shown  # its only task has a row already
    assert "chains: average length 0." in shown


# ------------------------------------------------------------------------------------------ kill -9


def start_evaluation(run: Path, output: Path, *overrides: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "tests.toy_command",
        "evaluate",
        str(run),
        "--output",
        str(output),
        *overrides,
    ]
    with output.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_for_results(output: Path, count: int) -> None:
    """Wait until `count` results are on disk."""
    log = output / "episodes.jsonl"
    while not log.exists() or log.read_text().count("\n") < count + 1:
        time.sleep(0.01)


def children(process: int) -> list[int]:
    """Return the processes that a process has started, directly or through others."""
    command = ["ps", "-A", "-o", "pid=,ppid="]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in output.splitlines()]
    direct = [pid for pid, parent in pairs if parent == process]
    return direct + [pid for child in direct for pid in children(child)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "evaluation"])
def test_kill_9_changes_no_result(trained, load, victim):
    load()
    settings = ("evaluate.episodes=8", "evaluate.chains=4", "environment.delay=0.005")
    whole, killed = trained / "whole", trained / "killed"
    assert start_evaluation(trained, whole, *settings).wait() == 0, whole.with_suffix(
        ".log"
    ).read_text()
    process = start_evaluation(trained, killed, *settings)
    wait_for_results(killed, 6)
    if victim == "worker":
        # the last of all is the process of an environment
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        assert process.poll() is None, (
            "it ended before its worker was killed: the test proves nothing"
        )
    else:
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process = start_evaluation(trained, killed, *settings)
    assert process.wait() == 0, killed.with_suffix(".log").read_text()
    assert outcome(killed) == outcome(whole)
    assert all(episode["failure"] is None for episode in outcome(killed)["episodes"])


# -------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(trained, load, capsys):
    """Run `joinery evaluate` in this process; return its exit code and what it printed."""
    install_toy()
    load()

    def run(*arguments: str, run: Path = trained) -> tuple[int, str, str]:
        code = main(["evaluate", str(run), *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_command_takes_options_and_overrides(command, trained):
    options = ["--tasks", "reach_blue", "--episodes", "1", "--chains", "1", "--checkpoint", "best"]
    output = trained / "elsewhere"
    code, out, _ = command(*options, "evaluate.num_envs=2", "--output", str(output))
    assert code == 0
    assert "reach_blue" in out
    assert "chains: average length" in out
    protocol = outcome(output)["protocol"]
    assert (protocol["tasks"], protocol["episodes"], protocol["lanes"]) == (["reach_blue"], 1, 2)


def test_evaluations_of_one_run_anywhere_can_be_reported_and_compared(
    command, trained, tmp_path, capsys
):
    with (trained / "recipe.toml").open("a") as file:
        file.write('controls = ["blank_images"]\ncontrol_episodes = 1\n')
    few = ("--episodes", "1", "--tasks", "reach_red")
    assert command(*few)[0] == 0
    early = tmp_path / "results" / "early"
    words = ("--checkpoint", "2", "evaluate.controls=[]", "evaluate.replan_steps=3")
    assert command(*few, *words, "--output", str(early))[0] == 0
    assert outcome(early)["policy"]["step"] == 2
    assert {attempt["condition"] for attempt in outcome(early)["episodes"]} == {"standard"}
    report, comparison = tmp_path / "early.html", tmp_path / "both.html"
    assert main(["report", str(early), "--output", str(report)]) == 0
    assert main(["compare", str(trained), str(early), "--output", str(comparison)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(report), str(comparison)]
    assert "step 2" in report.read_text()
    page = comparison.read_text()
    for difference in (
        "actions executed of each chunk",
        "checkpoint",
        "attempts at each task under each control",
        "1 pair<small",
    ):
        assert difference in page


def test_another_environment_takes_the_recipes_place(command, trained):
    """Here it is the toy again, so that the recipe's other settings of the toy stay."""
    assert command("--environment", "toy", "--episodes", "1", "environment.cameras=2")[0] == 0
    assert outcome(trained / "evaluation")["environment"]["config"]["cameras"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["train.steps=3"],
            2,
            "error: override 'train.steps=3': only evaluate.* and environment.* may change now",
        ),
        (
            ["--tasks", "reach_rd"],
            2,
            "error: evaluate.tasks: the environment has no task 'reach_rd'; did you mean",
        ),
        (
            ["--episodes", "0"],
            2,
            "recipe.toml: evaluate: episodes = 0 and chains = 0 leave nothing to try",
        ),
        (
            ["evaluate.checkpoint=first"],
            2,
            "evaluate.checkpoint: expected 'last' or 'best' or int >= 0, got 'first'",
        ),
        (
            ["--checkpoint", "3"],
            1,
            "run has none of step 3; choose 'last', 'best', or one of the steps 2, 4",
        ),
        (
            ["evaluate.replan_steps=9"],
            2,
            "recipe.toml: evaluate.replan_steps: expected at most action.horizon = 3, got 9",
        ),
        (
            ["evaluate.controls=['swapped_words']"],
            2,
            'evaluate: controls names "swapped_words", but swap lists fewer than two',
        ),
        (
            ["--environment", "tyo"],
            2,
            "recipe.toml: environment.name: no environment is called 'tyo'; did you mean",
        ),
        (
            ["environment.camras=2"],
            2,
            "recipe.toml: environment.camras: unknown key; did you mean 'cameras'?",
        ),
    ],
)
def test_a_mistake_is_one_line(command, arguments, code, message):
    exit_code, _, err = command(*arguments)
    assert exit_code == code
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_that_is_no_run_is_one_line(command, tmp_path):
    code, _, err = command(run=tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "recipe.toml: cannot read the recipe" in err


def test_an_action_that_is_not_finite_fails_its_attempt_and_changes_no_other(
    trained, load, monkeypatch
):
    from plugins.heads.lstm import LSTMHead

    recipe = load()
    expected = evaluate(trained, recipe, QUIET, trained / "sound").episodes
    act, calls = LSTMHead.act, []

    def diverging(self, context, state, generator):
        actions, state = act(self, context, state, generator)
        calls.append(len(actions) == 4)  # the four rows of the evaluation
        if sum(calls) == 3:
            actions[1, 0, 2] = np.nan
            for x in state.values():
                if x.is_floating_point():
                    x[1] = np.nan
        return actions, state

    monkeypatch.setattr(LSTMHead, "act", diverging)
    received = evaluate(trained, recipe, QUIET, trained / "diverging").episodes
    ((before, failed),) = [
        pair for pair in zip(expected, received, strict=True) if pair[0] != pair[1]
    ]
    assert (failed.task, failed.seed) == (before.task, before.seed)
    assert (failed.success, failed.steps) == (False, 2)
    assert "act returned NaN or infinity, in 1 of 9 numbers for" in failed.failure


def test_a_policy_whose_weights_are_nan_is_one_line(trained, load, monkeypatch, capsys):
    from plugins.heads.lstm import LSTMHead

    load()  # adds [evaluate] to the run's recipe
    act = LSTMHead.act

    def broken(self, context, state, generator):
        actions, state = act(self, context, state, generator)
        return actions * np.nan, state

    monkeypatch.setattr(LSTMHead, "act", broken)
    assert evaluate_command.main([str(trained)]) == 1
    out, shown = capsys.readouterr()
    assert shown.startswith("error: all 6 attempts broke, so nothing was measured; ")
    assert "policy_head 'lstm' of plugin 'plugins.heads.lstm' (joinery " in shown
    assert "act returned NaN or infinity, in 9 of 9 numbers" in shown
    assert "no predictions on validation episodes: policy_head 'lstm'" in out
    assert shown.count("\n") == 1
