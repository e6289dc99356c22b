"""Steps that are not finite: skipped if the recipe says so, counted, and never too many."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from torch import nn, tensor

from core.errors import TrainingError
from core.recipe.train_section import TrainConfig
from core.training import train as train_module
from core.training.skipping import Skipping
from core.weights.checkpoint import checkpoint_folder, checkpoints
from tests.core.training.poison import poison
from tests.core.training.runs import metrics, run_two_processes, train

SKIP = "train.not_finite=skip"


def weights(folder, step):
    return load_file(checkpoint_folder(folder, step) / "model.safetensors")


def test_the_advice_for_a_step_that_is_not_finite_works(recipe_file, tmp_path, monkeypatch, capsys):
    settings = ("train.checkpoint_every=1", "train.keep_last=9", "train.steps=4")
    poison(monkeypatch, 3)
    folder = tmp_path / "run"
    assert train(recipe_file, folder, *settings) == 1
    advice = capsys.readouterr().err
    assert "go on from there with --resume --with-changes and train.not_finite=skip" in advice
    rate = "train.learning_rate=1e-5"
    assert train(recipe_file, folder, *settings, rate, with_changes=True) == 1, "it fails again"
    assert train(recipe_file, folder, *settings, SKIP, with_changes=True) == 0
    shown = capsys.readouterr().out
    assert "step 3: skipped: total = nan" in shown
    assert "finished at step 4 of 4" in shown
    assert "1 of them were skipped" in shown
    steps = metrics(folder)
    assert steps[3]["skipped"] == 1.0
    assert "loss" not in steps[3]
    before, skipped, after = (weights(folder, step) for step in (2, 3, 4))
    assert all(torch.equal(skipped[name], x) for name, x in before.items())
    assert any(not torch.equal(after[name], x) for name, x in before.items())
    assert checkpoints(folder)[-1].state["skipped"] == {"total": 1, "in_a_row": 0}


def test_without_such_a_step_skipping_changes_nothing(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "stop", "train.steps=2") == 0
    assert train(recipe_file, tmp_path / "skip", "train.steps=2", SKIP) == 0
    assert metrics(tmp_path / "stop") == metrics(tmp_path / "skip")


def test_a_skipped_step_leaves_the_averages_as_they_are(recipe_file, tmp_path, monkeypatch):
    poison(monkeypatch, 3)
    settings = (SKIP, "train.ema=0.9", "train.checkpoint_every=1", "train.keep_last=9")
    assert train(recipe_file, tmp_path / "run", *settings, "train.steps=4") == 0
    before, skipped, after = (weights(tmp_path / "run", step) for step in (2, 3, 4))
    assert all(torch.equal(skipped[name], x) for name, x in before.items())
    assert any(not torch.equal(after[name], x) for name, x in before.items())


def test_too_many_steps_in_a_row_stop_the_run(recipe_file, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 3, 4, 5)
    settings = (SKIP, "train.max_skipped=2")
    assert train(recipe_file, tmp_path / "run", *settings) == 1
    assert "step 5: the last 3 steps were skipped" in capsys.readouterr().err
    assert checkpoints(tmp_path / "run")[-1].step == 4


def test_float16_that_skips_every_step_is_noticed(recipe_file, tmp_path, monkeypatch, capsys):
    def launch(recipe):
        fabric = original(recipe)
        fabric.strategy.precision = half_precision()  # which Fabric does not choose on a CPU
        return fabric

    original = train_module.launch
    monkeypatch.setattr(train_module, "launch", launch)
    poison(monkeypatch, 1, 2, 3, value=1e30)  # finite, but its gradient overflows at any scale
    assert train(recipe_file, tmp_path / "run", "train.steps=3", "train.accelerator=cpu") == 1
    shown = capsys.readouterr().err
    assert "step 3: the last 3 steps were skipped" in shown
    assert "bf16-mixed" in shown
    assert checkpoints(tmp_path / "run")[-1].step == 2, "of which no weight had moved"


def test_all_processes_skip_a_step_that_fails_in_one(recipe_file, tmp_path):
    settings = ("train.accelerator=cpu", "train.steps=3", SKIP)
    finished = run_two_processes(
        recipe_file, tmp_path / "run", *settings, module="tests.core.training.poison"
    )
    assert finished.returncode == 0, finished.stderr
    steps = metrics(tmp_path / "run")
    assert [step for step, values in steps.items() if "skipped" in values] == [2]
    assert math.isfinite(steps[3]["loss"])


class Stand(nn.Module):
    """A policy with running statistics and a head that carries a state."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.policy_head = SimpleNamespace(initial_state=lambda rows: {"h": torch.ones(rows, 2)})


def half_precision():
    precision = MixedPrecision("16-mixed", "cpu")
    precision.convert_input = lambda data: data
    return precision


def make_skipping(*, scales_loss=False, **settings):
    fabric = Fabric(accelerator="cpu", devices=1)
    if scales_loss:
        fabric.strategy.precision = half_precision()
    return Skipping(fabric, Stand(), TrainConfig(steps=100, **settings))


def test_what_the_forward_pass_left_is_undone():
    skipping = make_skipping(not_finite="skip")
    norm, before = skipping.policy.norm, skipping.policy.norm.running_mean.clone()
    skipping.begin_step()
    norm(torch.full((3, 2), math.nan))
    assert norm.running_mean.isnan().any()
    carried = [{"h": tensor([[2.0, 2.0], [math.nan, 2.0]])}, None]
    assert not skipping.allows_update([{"total": tensor(math.nan)}], tensor(1.0), carried)
    assert torch.equal(norm.running_mean, before)
    assert carried[0]["h"].tolist() == [[2.0, 2.0], [1.0, 1.0]]
    assert carried[1] is None
    assert skipping.allows_update([{"total": tensor(1.0)}], tensor(1.0), carried)
    assert not skipping.allows_update([{"total": tensor(1.0)}], tensor(math.inf), carried)


def test_loss_scaling_sees_every_step():
    skipping = make_skipping(not_finite="skip", scales_loss=True)
    assert not skipping.allows_update([{"total": tensor(math.nan)}], tensor(math.inf), [None])
    assert skipping.scales_loss  # so `fit` lets the optimiser's wrapper see the step all the same


@pytest.mark.parametrize(
    ("settings", "values", "skipped"),
    [
        ({}, {"total": math.nan, "gradient_norm": math.nan}, False),
        ({"scales_loss": True}, {"total": 1.0, "gradient_norm": math.inf}, True),
        ({"scales_loss": True}, {"total": math.nan, "gradient_norm": 1.0}, False),
        ({"not_finite": "skip"}, {"total": math.nan, "gradient_norm": 1.0}, True),
        ({"not_finite": "skip"}, {"total": 1.0}, False),
    ],
)
def test_which_steps_count_as_skipped(settings, values, skipped):
    assert make_skipping(**settings).is_skipped(values) == skipped


def test_the_count_in_a_row_begins_anew_after_a_step_that_was_made():
    skipping = make_skipping(not_finite="skip", max_skipped=2)
    for step, is_skipped in enumerate((True, True, False, True, True), 1):
        skipping.count(step, is_skipped)
    assert (skipping.total, skipping.in_a_row) == (4, 2)
    with pytest.raises(TrainingError, match="step 6: the last 3 steps were skipped"):
        skipping.count(6, is_skipped=True)
