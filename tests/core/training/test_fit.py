"""The loop: every part trains, what it writes, how it stops, and what ends it."""

import math
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.errors import PolicyError
from core.training import fit as fit_module, train as train_module
from core.weights.checkpoint import checkpoints, choose_checkpoint
from tests.core.training.runs import metrics, run_two_processes, train

PARTS = (
    "vision_encoder",
    "text_encoder",
    "projections",
    "backbone",
    "action_tokens",
    "policy_head",
)


def test_a_run_writes_metrics_checkpoints_and_its_recipe(recipe_file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(recipe_file, folder) == 0
    steps = metrics(folder)
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
    assert all(
        math.isfinite(values["loss"]) and values["gradient_norm"] > 0 for values in steps.values()
    )
    assert [c.step for c in checkpoints(folder)][-2:] == [4, 6]
    assert {"validation/error", "validation/constant", "validation/error/push"} <= steps[6].keys()
    assert list((folder / "tensorboard").iterdir())
    shown = capsys.readouterr().out
    assert "joint training, step 1" in shown
    assert "best constant action per task" in shown


def test_all_five_parts_move_in_the_first_step(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run") == 0
    first = metrics(tmp_path / "run")[1]
    for part in PARTS:
        assert first[f"joint/{part}/gradient_norm"] > 0, part
        assert first[f"joint/{part}/update"] > 0, part


@pytest.mark.parametrize("sampling", ["windows", "episodes"])
def test_accumulated_micro_batches_equal_one_large_batch(recipe_file, tmp_path, sampling):
    """The windows at the ends of episodes have fewer actions, and count as much less."""
    settings = ["train.steps=2", "backbone.dropout=0.0", f"data.sampling={sampling}"]
    settings += ["action.horizon=6", "train.batch_size=8"]
    settings += ["policy_head.memory=episode"] if sampling == "episodes" else []
    assert train(recipe_file, tmp_path / "whole", *settings) == 0
    assert train(recipe_file, tmp_path / "parts", *settings, "train.accumulation=4") == 0
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "parts")
    for step in (1, 2):
        for name in ("loss", "pose", "gripper", "gradient_norm"):
            np.testing.assert_allclose(parts[step][name], whole[step][name], rtol=1e-4)


def test_a_frozen_part_does_not_change(recipe_file, tmp_path):
    settings = ("backbone.train=false", "backbone.pretrained=false", "train.keep_last=9")
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    early, late = (
        load_file(c.folder / "model.safetensors")
        for c in (checkpoints(tmp_path / "run")[i] for i in (0, -1))
    )
    changed = {name.partition(".")[0] for name in early if not torch.equal(early[name], late[name])}
    assert changed == {*PARTS} - {"backbone"}


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_trains(recipe_file, tmp_path, precision):
    settings = [
        "train.accelerator=cpu",
        "train.steps=4",
        "backbone.dropout=0.0",
        "augmentation.crop=0.99",
    ]
    assert train(recipe_file, tmp_path / "full", *settings) == 0
    assert train(recipe_file, tmp_path / "half", *settings, f"train.precision={precision}") == 0
    full, half = metrics(tmp_path / "full"), metrics(tmp_path / "half")
    np.testing.assert_allclose(half[1]["loss"], full[1]["loss"], rtol=0.03)
    np.testing.assert_allclose(half[4]["validation/error"], full[4]["validation/error"], rtol=0.05)
    assert half[1]["loss"] != full[1]["loss"]  # it did compute in half precision
    # and it left the targets as they were
    assert half[4]["validation/constant"] == full[4]["validation/constant"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(recipe_file, tmp_path, monkeypatch, number):
    original = fit_module.after_step

    def interrupted(run, step):
        original(run, step)
        if step == 3:
            os.kill(os.getpid(), number)

    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert train(recipe_file, whole) == 0
    monkeypatch.setattr(fit_module, "after_step", interrupted)
    assert train(recipe_file, folder) == 128 + number
    assert checkpoints(folder)[-1].step == 3
    monkeypatch.setattr(fit_module, "after_step", original)
    assert train(recipe_file, folder, resume=True) == 0
    assert metrics(folder) == metrics(whole)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_culprits(
    recipe_file, tmp_path, monkeypatch, capsys
):
    from plugins.heads.lstm import LSTMHead

    original, calls = LSTMHead.loss, []

    def poisoned(self, context, batch, generator):
        # the trial before training is a call, and the joint-training table two in steps 1 and 3
        calls.append(1)
        terms = original(self, context, batch, generator)
        return {name: term * (math.nan if len(calls) == 10 else 1) for name, term in terms.items()}

    monkeypatch.setattr(LSTMHead, "loss", poisoned)
    assert train(recipe_file, tmp_path / "run") == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "step 5: not finite: total = nan" in shown
    assert "reach/" in shown
    assert "step_00000004" in shown
    assert checkpoints(tmp_path / "run")[-1].step == 4


def test_a_validation_error_that_is_not_finite_costs_no_checkpoint(
    recipe_file, tmp_path, monkeypatch
):
    def validate(*arguments):
        return replace(original(*arguments), error=math.nan)

    original = fit_module.validate
    monkeypatch.setattr(fit_module, "validate", validate)
    assert train(recipe_file, tmp_path / "run") == 0
    assert {checkpoint.error for checkpoint in checkpoints(tmp_path / "run")} == {math.inf}


def test_weights_that_are_not_finite_are_never_saved(recipe_file, tmp_path, capsys, monkeypatch):
    original = fit_module.JointTable.measure

    @contextmanager
    def overflowing(table, step):
        with original(table, step):
            yield
        # as a far too large step would leave it
        next(table.modules["backbone"].parameters()).data[0] = math.inf

    monkeypatch.setattr(fit_module.JointTable, "measure", overflowing)
    assert train(recipe_file, tmp_path / "run", "train.steps=1") == 1
    assert "weights are not finite" in capsys.readouterr().err
    assert checkpoints(tmp_path / "run") == []


def frame_file(store):
    return max(store.glob("parts/*/cam/*/data/c/0"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_damaged_frames_stop_the_run_in_a_line(recipe_file, tmp_path, capsys, damage):
    path = frame_file(tmp_path / "episodes.zarr")
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    if damage == "missing":
        path.unlink()
    else:
        content[::50] ^= 1
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    assert train(recipe_file, tmp_path / "run") == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert str(path.relative_to(tmp_path)).split("/cam/")[0] in shown


def test_a_process_without_validation_batches_waits_for_the_others(recipe_file, tmp_path):
    settings = ["train.accelerator=cpu", "train.steps=1", "train.batch_size=32"]
    finished = run_two_processes(recipe_file, tmp_path / "two", *settings)
    assert finished.returncode == 0, finished.stderr
    assert train(recipe_file, tmp_path / "one", *settings) == 0
    assert (
        metrics(tmp_path / "two")[1]["validation/constant"]
        == metrics(tmp_path / "one")[1]["validation/constant"]
    )


def test_two_processes_train_as_one_does(recipe_file, tmp_path):
    """Each process has half of the windows; gradients are averaged, so the losses agree."""
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ["train.accelerator=cpu", "backbone.dropout=0.0", "train.steps=4"]
    assert train(recipe_file, one, *settings) == 0
    finished = run_two_processes(recipe_file, two, *settings)
    assert finished.returncode == 0, finished.stderr
    alone, together = metrics(one), metrics(two)
    assert sorted(alone) == sorted(together)
    for name in ("loss", "pose", "gripper", "gradient_norm"):
        np.testing.assert_allclose(together[1][name], alone[1][name], rtol=1e-4)
    np.testing.assert_allclose(
        together[4]["validation/error"], alone[4]["validation/error"], rtol=1e-3
    )


def test_a_validation_that_is_not_finite_costs_no_weights_and_is_never_the_best(
    recipe_file, tmp_path, monkeypatch, capsys
):
    from plugins.heads.lstm import LSTMHead

    original, calls = LSTMHead.forward, []

    def poisoned(self, context, generator):
        actions = original(self, context, generator)
        if not torch.is_grad_enabled():
            calls.append(1)
        return actions * (math.nan if len(calls) > 3 else 1)

    monkeypatch.setattr(LSTMHead, "forward", poisoned)
    monkeypatch.setattr(train_module, "try_policy", lambda *_: None)
    folder = tmp_path / "run"
    settings = ["train.validate_every=2", "data.validation_episodes=1"]
    assert train(recipe_file, folder, *settings) == 0
    errors = {c.step: c.state["validation_error"] for c in checkpoints(folder)}
    assert errors[6] is None
    assert errors[2] is not None
    assert choose_checkpoint(folder, "last").step == 6
    assert choose_checkpoint(folder, "best").step == 2
    assert metrics(folder)[6]["validation/error"] is None
    assert "NaN" not in (folder / "metrics.jsonl").read_text()
    shown = capsys.readouterr().out
    assert "step 6: validation error nan" in shown
    assert "never the best: look at policy_head 'lstm' of plugin" in shown
    assert "nan%" not in shown


def test_a_validation_that_fails_costs_no_weights(recipe_file, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise PolicyError("a fault in validation")

    monkeypatch.setattr(fit_module, "validate", fail)
    settings = ["train.checkpoint_every=6", "train.validate_every=3"]
    assert train(recipe_file, tmp_path / "run", *settings) == 1
    assert [c.step for c in checkpoints(tmp_path / "run")] == [3]
    assert capsys.readouterr().err == "error: a fault in validation\n"
