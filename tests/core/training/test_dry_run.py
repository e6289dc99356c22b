"""`--dry-run`: the steps of a training, what they cost, and no trace of them."""

import re

import pytest

from core import run
from core.training import fit as fit_module
from core.training.dry_run import _duration
from tests.core.training.runs import metrics, train


def dry(recipe_file, folder, *words):
    return run.main([str(recipe_file), "--output", str(folder), "--dry-run", *words])


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_dry_run_says_what_training_costs_and_writes_nothing(recipe_file, tmp_path, capsys):
    before = files(tmp_path)
    more = ["train.ema=0.9", "policy_head.memory=episode", "data.sampling=episodes"]
    assert dry(recipe_file, tmp_path / "run", "train.keep_last=4", *more) == 0
    assert files(tmp_path) == before
    shown = capsys.readouterr().out
    assert "vision encoder      91,584  yes" in shown
    assert "dry run: 3 steps are done, and nothing is written\n" in shown
    assert re.search(r"\nmemory: at most \d+\.\d\d GB\n", shown)
    assert re.search(
        r"\ntime: [\d.]+ s per step, the first .* s; 6 steps take about \d+ s, ", shown
    )
    (size,) = re.findall(r"\ndisk: ([\d.]+) MB for each checkpoint, and up to 5 are kept", shown)
    assert train(recipe_file, tmp_path / "run", *more) == 0
    last = tmp_path / "run" / "checkpoints" / "step_00000006"
    tensors = sum(f.stat().st_size for f in last.glob("*.safetensors"))
    assert float(size) == pytest.approx(tensors / 1e6, rel=0.05)


def test_a_recipe_of_fewer_steps(recipe_file, tmp_path, capsys):
    assert dry(recipe_file, tmp_path / "run", "train.steps=1") == 0
    assert "dry run: 1 steps are done" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_going_on_leaves_the_run_alone(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run") == 0
    before, figures = files(tmp_path), metrics(tmp_path / "run")
    assert dry(recipe_file, tmp_path / "run") == 1
    assert "holds a run already" in capsys.readouterr().err
    more = ["--resume", "--with-changes", "train.steps=9"]
    assert dry(recipe_file, tmp_path / "run", *more) == 0
    assert (files(tmp_path), metrics(tmp_path / "run")) == (before, figures)


def test_of_a_complete_run_nothing_is_left_to_do(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run") == 0
    before = files(tmp_path)
    assert dry(recipe_file, tmp_path / "run", "--resume") == 0
    assert files(tmp_path) == before
    assert capsys.readouterr().out.endswith(
        "dry run: nothing is left to do: the run is complete at step 6\n"
    )


def test_a_dry_run_of_resuming_nothing_says_so(recipe_file, tmp_path, capsys):
    assert dry(recipe_file, tmp_path / "none", "--resume") == 1
    assert "none: no run to resume: leave out --resume" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_time_of_a_step_is_without_validation(recipe_file, tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(fit_module, "validate", fail)
    assert dry(recipe_file, tmp_path / "run", "train.validate_every=1", "train.steps=2") == 0


def test_what_would_stop_training_stops_a_dry_run(recipe_file, tmp_path, capsys):
    assert dry(recipe_file, tmp_path / "run", "data.path=elsewhere.zarr") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "elsewhere.zarr" in line


def test_durations_have_two_units():
    assert [_duration(s) for s in (12.4, 75, 7_500, 200_000)] == [
        "12 s",
        "1 min 15 s",
        "2 h 5 min",
        "2 d 7 h",
    ]
