"""Whole evaluations of a policy that was trained for a few steps: what they write, repeat, resume
and refuse.
"""

import json
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from core.cli import main
from core.environments.environment import EVALUATION_SEEDS
from core.errors import ConfigError, DataError
from core.evaluation import evaluation as evaluation_module
from core.evaluation.display import show
from core.evaluation.evaluation import evaluate
from core.rollout.actor import load_actor
from core.rollout.results import read_evaluation
from core.rollout.rows import roll_out
from core.store.store import EpisodeStore
from tests.toy_command import install_toy
from tests.toy_environment import LONGEST
from tests.toy_policy import Seer

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
    """results.json without the only numbers that vary."""
    written = json.loads((folder / "results.json").read_text())
    time = written.pop("time")
    assert set(time) == {"inference_ms", "policy_steps", "rows_busy", "steps_per_second", "seconds"}
    assert 0 < time["rows_busy"] <= 1 <= time["policy_steps"]
    return written


def test_one_policy_evaluated_twice_gives_the_same_numbers(trained, load):
    recipe = load(*EVERYTHING)
    found = evaluate(trained, recipe, QUIET)
    evaluate(trained, recipe, QUIET, trained / "again")
    assert outcome(trained / "evaluation") == outcome(trained / "again")
    assert read_evaluation(trained / "evaluation" / "results.json") == found
    assert found.conditions == ["standard", "blank_images", "swapped_words"]
    assert [len([e for e in found.episodes if e.condition == c]) for c in found.conditions] == [
        6,
        2,
        2,
    ]
    assert {e.seed - EVALUATION_SEEDS for e in found.episodes} == {0, 1, 2}
    assert len(found.chains) == 3
    assert found.tiers == {"reach_red": "warm", "reach_blue": "cold"}
    assert all(e.steps == LONGEST for e in found.episodes if not e.success)


def test_chains_alone_are_an_evaluation(trained, load):
    found = evaluate(trained, load("evaluate.episodes=0", "evaluate.chains=3"), QUIET)
    assert (len(found.episodes), len(found.chains)) == (0, 3)
    screen = StringIO()
    show(read_evaluation(trained / "evaluation" / "results.json"), Console(file=screen, width=100))
    assert screen.getvalue().startswith("chains: average length")


def test_everything_needed_to_repeat_it_is_written(trained, load):
    evaluate(trained, load("evaluate.replan_steps=2"), QUIET)
    written = outcome(trained / "evaluation")
    assert written["policy"]["checkpoint"] == "step_00000004"
    assert {len(written["policy"][key]) for key in ("recipe_sha256", "weights_sha256")} == {64}
    assert {"joinery", "torch", "numpy", "python", "toy"} == written["environment"][
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
    """Let an evaluation end as the user's Ctrl+C ends it, once so many results are kept."""

    def interrupted(*arguments):
        for number, pair in enumerate(roll_out(*arguments)):
            if number == count:
                raise KeyboardInterrupt
            yield pair

    monkeypatch.setattr(evaluation_module, "roll_out", interrupted)


@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_an_interrupted_evaluation_goes_on_to_the_same_numbers(trained, load, monkeypatch, count):
    recipe, journal = load(*EVERYTHING), trained / "evaluation" / "episodes.jsonl"
    evaluate(trained, recipe, QUIET, trained / "whole")
    interrupt_after(monkeypatch, count)
    with pytest.raises(KeyboardInterrupt):
        evaluate(trained, recipe, QUIET)
    assert not (trained / "evaluation" / "results.json").exists()
    kept = journal.read_text()
    assert kept.count("\n") == 1 + count
    with journal.open("a") as file:
        file.write('{"result": {"condi')
    monkeypatch.setattr(evaluation_module, "roll_out", roll_out)
    evaluate(trained, recipe, QUIET)
    assert journal.read_text().startswith(kept)
    assert journal.read_text().count("\n") == 1 + 13  # each attempt and chain once
    assert outcome(trained / "evaluation") == outcome(trained / "whole")
    assert rollouts(trained / "evaluation") == rollouts(trained / "whole")


def rollouts(folder: Path) -> dict[str, int]:
    """{file: the seed of its attempt}."""
    found = {}
    for path in (folder / "rollouts").iterdir():
        with np.load(path, allow_pickle=False) as arrays:
            found[path.name] = arrays["seed"].item()
    return found


@pytest.fixture
def seeing(trained, monkeypatch) -> Seer:
    """The policy of every evaluation from here on: one that succeeds, often, where the trained one
    always fails.
    """
    actor, seer = load_actor(trained), Seer(noise=0.8)
    for name in ("policy", "checkpoint", "device", "check"):
        setattr(seer, name, getattr(actor, name))
    monkeypatch.setattr(evaluation_module, "load_actor", lambda *_: seer)
    return seer


@pytest.mark.parametrize("count", [1, 7, 20])
def test_attempts_that_were_in_the_middle_are_made_again(trained, load, monkeypatch, seeing, count):
    recipe = load(*EVERYTHING, "evaluate.episodes=8")
    whole = evaluate(trained, recipe, QUIET, trained / "whole")
    assert {e.success for e in whole.episodes if e.condition == "standard"} == {True, False}
    interrupt_after(monkeypatch, count)
    with pytest.raises(KeyboardInterrupt):
        evaluate(trained, recipe, QUIET)
    monkeypatch.setattr(evaluation_module, "roll_out", roll_out)
    evaluate(trained, recipe, QUIET)
    assert outcome(trained / "evaluation") == outcome(trained / "whole")
    assert rollouts(trained / "evaluation") == rollouts(trained / "whole")


@pytest.mark.parametrize("lanes", [1, 16])
def test_neither_results_nor_rollouts_depend_on_the_number_of_rows(trained, load, seeing, lanes):
    settings = (*EVERYTHING, "evaluate.episodes=8")
    four = evaluate(trained, load(*settings), QUIET, trained / "four")
    found = evaluate(
        trained, load(*settings, f"evaluate.num_envs={lanes}"), QUIET, trained / "other"
    )
    assert (found.episodes, found.chains) == (four.episodes, four.chains)
    assert rollouts(trained / "other") == rollouts(trained / "four")
    first = {
        (e.task, e.success): e.seed for e in reversed(four.episodes) if e.condition == "standard"
    }
    names = {
        f"{task}-{'success' if done else 'failure'}.npz": seed
        for (task, done), seed in first.items()
    }
    assert rollouts(trained / "four") == names


def test_nearly_all_rows_work_and_the_last_lines_say_so(trained, load, seeing):
    settings = (
        "evaluate.episodes=150",
        "evaluate.controls=['blank_images']",
        "evaluate.control_episodes=20",
    )
    found = evaluate(trained, load(*settings, "evaluate.num_envs=16"), QUIET)
    assert found.time["rows_busy"] >= 0.95
    assert found.time["policy_steps"] == len([rows for rows in seeing.batches if rows == 16])
    console = Console(width=200, file=StringIO())
    show(found, console)
    assert (
        f"{100 * found.time['rows_busy']:.0f} % of the policy's rows busy"
        in console.file.getvalue()
    )


def test_a_finished_evaluation_is_read_and_not_done_again(trained, load, monkeypatch):
    found = evaluate(trained, load(), QUIET)
    monkeypatch.setattr(evaluation_module, "roll_out", None)
    assert evaluate(trained, load("evaluate.timeout=20"), QUIET).episodes == found.episodes


def test_another_protocol_in_the_folder_is_refused(trained, load):
    evaluate(trained, load(), QUIET)
    with pytest.raises(
        DataError,
        match=r"evaluation: holds another evaluation \(protocol.episodes 3 there, 4 now\)",
    ):
        evaluate(trained, load("evaluate.episodes=4"), QUIET)


def test_a_run_may_be_renamed(trained, load):
    recipe = load()
    found = evaluate(trained, recipe, QUIET)
    renamed = evaluate(trained.rename(trained.with_name("renamed")), recipe, QUIET)
    assert (renamed.episodes, renamed.policy["run"]) == (found.episodes, "renamed")


def test_results_that_are_not_those_of_the_plan_are_refused(trained, load):
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
    for strange in ([*results, chain], [*results, attempt], [other_chain], [other_attempt]):
        path.write_text("".join([first, *strange]))
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


def test_rollouts_hold_what_the_policy_saw(trained, load):
    found = evaluate(trained, load("evaluate.replan_steps=3"), QUIET)
    files = {path.name for path in (trained / "evaluation" / "rollouts").iterdir()}
    first = {(e.task, e.success): e for e in reversed(found.episodes)}
    assert files == {f"{task}-{'success' if done else 'failure'}.npz" for task, done in first}
    for (task, done), episode in first.items():
        name = f"{task}-{'success' if done else 'failure'}.npz"
        with np.load(trained / "evaluation" / "rollouts" / name, allow_pickle=False) as arrays:
            frames, gripper = arrays["camera/front"], arrays["gripper"]
            assert frames.shape == (-(-episode.steps // 3) + 1, 16, 16, 3)
            assert (frames.dtype, gripper.dtype, gripper.shape) == (
                np.uint8,
                np.float32,
                frames.shape[:1],
            )
            assert set(gripper.tolist()) <= {0.0, 1.0}
            said = {key: arrays[key].item() for key in ("task", "instruction", "seed", "success")}
        assert said == {
            "task": task,
            "instruction": episode.instruction,
            "seed": episode.seed,
            "success": done,
        }


def test_predictions_stand_beside_true_actions(trained, load):
    recipe = load()
    evaluate(trained, recipe, QUIET)
    store = EpisodeStore(recipe.data.path)
    with np.load(trained / "evaluation" / "predictions.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == ["x", "y", "gripper"]
        assert {arrays[f"{i}/task"].item() for i in range(2)} == {
            "reach_red",
            "reach_blue",
        }  # one is held out of each
        assert "2/task" not in arrays
        true, predicted = arrays["0/true"], arrays["0/predicted"]
    assert predicted.shape == (len(true), 3, 3)
    assert np.isfinite(predicted).all()
    assert any(
        np.array_equal(true, store.actions(e, 0, int(store.length[e]))) for e in range(len(store))
    )


def test_without_the_data_there_are_no_predictions_and_it_says_so(trained, load, capsys):
    evaluate(trained, load("data.path=/nowhere/toy.zarr"), Console(soft_wrap=True))
    assert not (trained / "evaluation" / "predictions.npz").exists()
    assert "no predictions on validation episodes: /nowhere/toy.zarr" in capsys.readouterr().out


def test_an_environment_that_is_not_what_the_policy_knows_is_refused(trained, load, monkeypatch):
    from tests import toy_environment

    monkeypatch.setattr(toy_environment, "SPEED", 0.1)
    from core.environments.workers import Description

    world = Description(toy_environment.toy_info(), toy_environment.toy_tasks(), {})
    monkeypatch.setattr(evaluation_module, "inspect", lambda recipe: world)
    with pytest.raises(
        ConfigError, match=r"^action.scale: the policy has \(0.2, 0.2, 1.0\), the environment \(0.1"
    ):
        evaluate(trained, load(), QUIET)
    assert not (trained / "evaluation").exists()


def test_a_failed_environment_is_counted_and_named(trained, load):
    fault = f"{{kind = 'crash', seed = {EVALUATION_SEEDS + 1}, step = 3}}"
    found = evaluate(trained, load(f"environment.faults=[{fault}]"), QUIET)
    failed = [e for e in found.episodes if e.failure]
    assert {(e.seed - EVALUATION_SEEDS, e.success) for e in failed} == {(1, False)}
    console = Console(width=200, file=StringIO())
    show(found, console)
    said = f"standard reach_red/{EVALUATION_SEEDS + 1}: died (exit code 3); counted as failed"
    assert said in console.file.getvalue().splitlines()


def test_the_table_has_intervals_controls_and_tiers(trained, load):
    found = evaluate(trained, load(*EVERYTHING), QUIET)
    console = Console(width=80, file=StringIO())
    show(found, console)
    shown = console.file.getvalue()
    for text in ("reach_red", "95 % interval", "blank", "swapped", "mean of warm", "mean of tasks"):
        assert text in shown
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
    """Until so many results are on disk."""
    journal = output / "episodes.jsonl"
    while not journal.exists() or journal.read_text().count("\n") < count + 1:
        time.sleep(0.01)


def children(process: int) -> list[int]:
    """Processes that were started, directly or not, by one."""
    found = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parent_of = {
        int(pid): int(parent) for pid, parent in (line.split() for line in found.splitlines())
    }
    below = [pid for pid, parent in parent_of.items() if parent == process]
    return below + [pid for child in below for pid in children(child)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "evaluation"])
def test_kill_9_changes_no_number(trained, load, victim):
    load()
    settings = ("evaluate.episodes=8", "evaluate.chains=4", "environment.delay=0.005")
    whole, killed = trained / "whole", trained / "killed"
    assert start_evaluation(trained, whole, *settings).wait() == 0, whole.with_suffix(
        ".log"
    ).read_text()
    process = start_evaluation(trained, killed, *settings)
    wait_for_results(killed, 6)
    if victim == "worker":
        os.kill(
            children(process.pid)[-1], signal.SIGKILL
        )  # the youngest of the youngest: an environment
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

    def run(*words: str, run: Path = trained) -> tuple[int, str, str]:
        code = main(["evaluate", str(run), *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_command_takes_options_and_overrides(command, trained):
    code, out, _ = command(
        "--tasks", "reach_blue", "--episodes", "1", "--chains", "1", "--checkpoint", "best", "evaluate.num_envs=2",
        "--output", str(trained / "elsewhere"),
    )  # fmt: skip
    assert code == 0
    assert "reach_blue" in out
    assert "chains: average length" in out
    protocol = outcome(trained / "elsewhere")["protocol"]
    assert (protocol["tasks"], protocol["episodes"], protocol["lanes"]) == (["reach_blue"], 1, 2)


def test_another_environment_takes_the_recipes_place(command, trained):
    """The toy for the toy: what the recipe says of its own environment stays, since the name is the
    same.
    """
    assert command("--environment", "toy", "--episodes", "1", "environment.cameras=2")[0] == 0
    assert outcome(trained / "evaluation")["environment"]["config"]["cameras"] == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
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
            ["--checkpoint", "first"],
            2,
            "recipe.toml: evaluate.checkpoint: expected 'last' or 'best', got 'first'",
        ),
        (
            ["evaluate.replan_steps=9"],
            2,
            "recipe.toml: evaluate.replan_steps: a chunk holds action.horizon = 3, got 9",
        ),
        (
            ["evaluate.controls=['swapped_words']"],
            2,
            'evaluate: controls names "swapped_words", and swap lists no two',
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
def test_a_mistake_is_one_line(command, words, code, said):
    found, _, err = command(*words)
    assert found == code
    assert said in err
    assert err.count("\n") == 1


def test_a_folder_that_is_no_run_is_one_line(command, tmp_path):
    code, _, err = command(run=tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "recipe.toml: cannot read the recipe" in err
