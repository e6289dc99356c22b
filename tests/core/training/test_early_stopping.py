"""Early stopping: when it is due, and that a run which it ended can be resumed or go on."""

import math
import shutil
from dataclasses import replace

import pytest

from core import run
from core.errors import ConfigError
from core.training import fit
from core.training.early_stopping import EarlyStopping
from core.weights.checkpoint import checkpoints
from tests.core.training.runs import metrics, train


def test_it_is_due_after_so_many_validations_without_a_lower_error():
    stopping = EarlyStopping(patience=2)
    for error in (3.0, 2.0, 2.5, math.nan):
        assert not stopping.is_due
        stopping.note(error)
    assert stopping.is_due
    assert stopping.best == 2.0
    stopping.note(1.0)
    assert not stopping.is_due


def test_without_patience_it_is_never_due():
    stopping = EarlyStopping(patience=0)
    for _ in range(9):
        stopping.note(1.0)
    assert not stopping.is_due


@pytest.fixture
def errors(monkeypatch):
    """{step: validation error}, in place of the errors that a run measures."""
    errors = {1: 3.0, 2: 2.0, 3: 2.5, 4: 2.4, 5: 1.0, 6: 1.0}
    original = fit._validate

    def validate(run, held_out, step):
        return replace(original(run, held_out, step), error=errors[step])

    monkeypatch.setattr(fit, "_validate", validate)
    return errors


EVERY_STEP = ("train.validate_every=1", "train.checkpoint_every=1", "train.keep_last=9")


def test_a_run_stops_early_resumes_and_goes_on(recipe_file, tmp_path, errors, capsys):
    folder, settings = tmp_path / "run", (*EVERY_STEP, "train.patience=2")
    assert train(recipe_file, folder, *settings) == 0
    shown = capsys.readouterr().out
    assert "stopped early at step 4 of 6" in shown
    assert "the last 2 validations brought no error below 2.0000" in shown
    assert "continue with the same command" not in shown
    whole = metrics(folder)
    assert whole[4]["stopped_early"] == 1.0
    for checkpoint in checkpoints(folder)[2:]:
        shutil.rmtree(checkpoint.folder)  # as if it had been killed before
    assert train(recipe_file, folder, *settings, resume=True) == 0
    assert metrics(folder) == whole
    assert train(recipe_file, folder, *settings, resume=True) == 0, "it stays where it stopped"
    assert checkpoints(folder)[-1].step == 4
    slower = (*settings, "train.learning_rate=1e-5")
    assert train(recipe_file, folder, *slower, with_changes=True) == 0
    assert "finished at step 6 of 6" in capsys.readouterr().out


def test_validations_that_are_not_finite_still_count_after_resuming(
    recipe_file, tmp_path, errors, monkeypatch
):
    monkeypatch.setattr(run, "_evaluate_offline", lambda *_: None)  # no checkpoint is the best
    errors.update({1: math.nan, 2: math.nan, 3: math.nan})
    folder, settings = tmp_path / "run", (*EVERY_STEP, "train.patience=3")
    assert train(recipe_file, folder, *settings) == 0
    for checkpoint in checkpoints(folder)[2:]:
        shutil.rmtree(checkpoint.folder)  # as if it had been killed before
    assert train(recipe_file, folder, *settings, resume=True) == 0
    assert checkpoints(folder)[-1].step == 3


def test_the_best_checkpoint_is_compared_with_the_held_out_episodes(
    recipe_file, tmp_path, errors, monkeypatch
):
    from core.evaluation import offline

    chosen = []

    def load_actor(run, checkpoint, **others):
        chosen.append(checkpoint)
        return original(run, checkpoint, **others)

    original = offline.load_actor
    monkeypatch.setattr(offline, "load_actor", load_actor)
    assert train(recipe_file, tmp_path / "run", *EVERY_STEP, "train.patience=2") == 0
    assert chosen == ["best"]


def test_it_needs_held_out_episodes_and_checkpoints_of_the_steps(recipe_file, tmp_path, capsys):
    settings = ("train.patience=2", "train.checkpoint_every=3")
    assert train(recipe_file, tmp_path / "run", *settings, "data.validation_episodes=0") == 2
    assert "train.patience: no episode is held out" in capsys.readouterr().err


def test_the_best_step_is_always_saved(load):
    with pytest.raises(ConfigError, match="validate_every 3 must be a multiple of checkpoint_"):
        load("train.patience=2")
