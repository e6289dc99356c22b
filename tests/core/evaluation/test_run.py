"""What `python -m core.run` does before and after training, from one command to a report."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core import run
from core.evaluation import evaluation as evaluation_module, preparation
from core.report import run_report as report_module
from core.training import fit as fit_module
from core.weights.checkpoint import checkpoints
from tests.toy_command import install_toy
from tests.toy_policy import EVALUATE, RECIPE

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recipe_file(pristine_run, tmp_path):
    """A toy.toml with [evaluate], beside the demonstrations that it needs."""
    install_toy()
    shutil.copytree(pristine_run / "toy.zarr", tmp_path / "toy.zarr")
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE + EVALUATE.replace("episodes = 3", "episodes = 1"))
    return path


@pytest.fixture
def reports(monkeypatch):
    """The run folders for which a report was written; none is written for real."""
    written = []
    monkeypatch.setattr(
        report_module,
        "write_report",
        lambda folder: written.append(folder) or folder / "report.html",
    )
    return written


def start(recipe_file, folder, *overrides, resume=False):
    return run.main(
        [str(recipe_file), *overrides, "--output", str(folder), *(["--resume"] if resume else [])]
    )


def test_one_command_collects_trains_evaluates_and_reports(recipe_file, tmp_path, capsys):
    shutil.rmtree(tmp_path / "toy.zarr")
    assert start(recipe_file, tmp_path / "run") == 0
    shown = capsys.readouterr().out
    expected = [
        "6 episodes recorded",
        "joint training, step 1",
        "finished at step 4 of 4",
        "95 % interval",
        "report: ",
    ]
    positions = [" ".join(shown.split()).index(text) for text in expected]
    assert positions == sorted(positions)
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert len(results["episodes"]) == 2
    assert Path(shown.rpartition("report: ")[2].strip()).exists()


def test_an_interrupted_training_is_not_evaluated_and_a_resumed_one_is(
    recipe_file, tmp_path, monkeypatch, reports
):
    original, folder = fit_module.after_step, tmp_path / "run"

    def interrupted(state, done):
        original(state, done)
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fit_module, "after_step", interrupted)
    assert start(recipe_file, folder) == 128 + signal.SIGTERM
    assert not (folder / "evaluation").exists()
    assert reports == []
    monkeypatch.setattr(fit_module, "after_step", original)
    assert start(recipe_file, folder, resume=True) == 0
    assert (folder / "evaluation" / "results.json").exists()
    assert reports == [folder]


def test_a_finished_training_goes_straight_to_its_evaluation(
    recipe_file, tmp_path, monkeypatch, reports
):
    folder, evaluate = tmp_path / "run", evaluation_module.evaluate

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation_module, "evaluate", interrupted)
    assert start(recipe_file, folder) == 130
    before = [(c.step, c.folder.stat().st_mtime_ns) for c in checkpoints(folder)]
    monkeypatch.setattr(evaluation_module, "evaluate", evaluate)
    # the weights do not depend on this key, so it may change
    assert start(recipe_file, folder, "evaluate.episodes=2", resume=True) == 0
    assert [(c.step, c.folder.stat().st_mtime_ns) for c in checkpoints(folder)] == before
    assert len(json.loads((folder / "evaluation" / "results.json").read_text())["episodes"]) == 4
    assert reports == [folder]


def test_a_run_is_not_resumed_with_demonstrations_of_other_settings(
    recipe_file, tmp_path, capsys, reports, monkeypatch
):
    assert start(recipe_file, tmp_path / "run") == 0
    monkeypatch.setattr(preparation, "prepare", lambda recipe, console: None)
    assert start(recipe_file, tmp_path / "run", "environment.delay=0.001", resume=True) == 2
    assert capsys.readouterr().err.startswith("error: environment.delay: the run in")


def test_an_environment_without_demonstrations_may_change(recipe_file, tmp_path, capsys, reports):
    recipe_file.write_text(recipe_file.read_text().replace("[demonstrations]\nepisodes = 3\n", ""))
    assert start(recipe_file, tmp_path / "run", "evaluate.tasks=['reach_red']") == 0
    shutil.rmtree(tmp_path / "run" / "evaluation")
    assert start(recipe_file, tmp_path / "run", "environment.delay=0.001", resume=True) == 0


def test_a_recipe_without_evaluate_ends_with_training(recipe_file, tmp_path, reports):
    recipe_file.write_text(RECIPE)
    assert start(recipe_file, tmp_path / "run") == 0
    assert not (tmp_path / "run" / "evaluation").exists()
    assert reports == []


def test_unknown_tasks_are_an_error_before_training(recipe_file, tmp_path, capsys):
    assert start(recipe_file, tmp_path / "run", "evaluate.tasks=['reach_rd', 'fly']") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_only_one_of_two_processes_collects_and_evaluates(recipe_file, tmp_path):
    shutil.rmtree(tmp_path / "toy.zarr")
    settings = [
        "train.devices=2",
        "train.strategy=ddp",
        "train.accelerator=cpu",
        "--output",
        str(tmp_path / "run"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    finished = subprocess.run(
        [sys.executable, "-m", "tests.toy_command", "run", str(recipe_file), *settings],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("6 episodes recorded") == finished.stdout.count("report: ") == 1
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    command = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    threads = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    # those of a process that runs alone, not the share of one of two processes
    assert results["protocol"]["threads"] == int(threads.stdout)
