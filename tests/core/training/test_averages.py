"""Moving averages of the weights: their numbers, what they cover, and what acts and resumes."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from core import import_library
from core.errors import ConfigError
from core.rollout.actor import load_actor
from core.training import fit as fit_module
from core.training.averages import WeightAverages
from core.weights.checkpoint import checkpoints
from tests.core.training.runs import metrics, run_two_processes, train


def warmed_up(decay, step):
    return min(decay, (1 + step) / (10 + step))


class Small(nn.Module):
    """A shared weight, a frozen weight and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("mean", torch.zeros(2))


def walk(model, steps):
    """Change all trainable parameters, at random but reproducibly, and yield the step."""
    generator = torch.Generator().manual_seed(0)
    for step in range(1, steps + 1):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape, generator=generator)
        yield step


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_averages_equal_those_of_float64(decay):
    model = Small()
    averages = WeightAverages(model, decay)
    expected = model.first.weight.detach().double().numpy().copy()
    for step in walk(model, 30):
        averages.update(step)
        d = warmed_up(decay, step)
        expected = d * expected + (1 - d) * model.first.weight.detach().double().numpy()
    np.testing.assert_allclose(averages.by_name()["first.weight"], expected, rtol=1e-5, atol=1e-6)


def test_the_average_of_a_frozen_weight_is_the_weight():
    model = Small()
    averages = WeightAverages(model, 0.9)
    for step in walk(model, 3):
        averages.update(step, frozen={model.first.bias})
    assert torch.equal(averages.by_name()["first.bias"], model.first.bias)
    assert not torch.allclose(averages.by_name()["first.weight"], model.first.weight, atol=1e-3)


def test_averages_equal_those_of_diffusers():
    reason = "needs diffusers (pip install diffusers)"
    pytest.importorskip("diffusers", reason=reason)
    training_utils = import_library("diffusers.training_utils")
    model = Small()
    averages = WeightAverages(model, 0.9)
    reference = training_utils.EMAModel(model.parameters(), decay=0.9)
    reference.optimization_step = 1  # diffusers copies the weights of the first step, and counts on
    for step in walk(model, 120):
        averages.update(step)
        reference.step(model.parameters())
    pairs = zip(reference.shadow_params, model.parameters(), strict=True)
    expected = [average for average, parameter in pairs if parameter.requires_grad]
    for average, other in zip(averages.averages, expected, strict=True):
        torch.testing.assert_close(average, other, rtol=1e-5, atol=1e-6)


def test_only_what_trains_is_averaged_under_all_its_names():
    averages = WeightAverages(Small(), 0.9).by_name()
    assert averages.keys() == {"first.weight", "first.bias", "second.weight"}
    assert averages["first.weight"] is averages["second.weight"]


def test_averages_of_half_precision_are_not_rounded_away():
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    averages = WeightAverages(model, 0.999)
    nn.init.constant_(model.weight, 1.0078125)  # the next number in bfloat16
    for step in range(10_000, 10_100):
        averages.update(step)
    (average,) = averages.by_name().values()
    assert float(average) == pytest.approx(1 + 0.0078125 * (1 - 0.999**100), abs=1e-6)
    with averages.in_place_of_weights():
        assert model.weight.dtype == torch.bfloat16
        assert float(model.weight.detach()) == 1.0  # rounded only here


def test_the_weights_come_back_even_after_an_error():
    model = Small()
    averages = WeightAverages(model, 0.9)
    for step in walk(model, 3):
        averages.update(step)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with averages.in_place_of_weights():
        assert torch.equal(model.second.weight, averages.by_name()["second.weight"])
    with pytest.raises(KeyError), averages.in_place_of_weights():
        raise KeyError
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


# --------------------------------------------------------------------------------------- whole runs


def test_a_run_averages_the_weights_of_every_step(recipe_file, tmp_path):
    """The weights of every step are in its checkpoint, so the averages can be computed again."""
    settings = ["train.ema=0.9", "train.checkpoint_every=1", "train.keep_last=9"]
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    plain = ["train.checkpoint_every=1", "train.keep_last=9"]
    assert train(recipe_file, tmp_path / "plain", *plain) == 0
    saved = [c.folder for c in checkpoints(tmp_path / "run")]
    expected = load_file(saved[0] / "model.safetensors")
    for step, folder in enumerate(saved[1:], start=2):
        weights = load_file(folder / "training.safetensors")
        d = warmed_up(0.9, step)
        for name, tensor in weights.items():
            expected[name] = d * expected[name].double() + (1 - d) * tensor.double()
    averaged = load_file(saved[-1] / "model.safetensors")
    for name, tensor in load_file(saved[-1] / "training.safetensors").items():
        np.testing.assert_allclose(averaged[name], expected[name], rtol=1e-4, atol=1e-6)
        # the averages change nothing about the training
        weights = load_file(checkpoints(tmp_path / "plain")[-1].folder / "model.safetensors")
        assert torch.equal(tensor, weights[name])
    assert not (checkpoints(tmp_path / "plain")[-1].folder / "training.safetensors").exists()


def test_the_averages_are_validated_and_act(recipe_file, tmp_path, monkeypatch):
    validated = {}

    def validate(fabric, policy, *arguments):
        validated.update({name: x.clone() for name, x in policy.state_dict().items()})
        return original(fabric, policy, *arguments)

    original = fit_module.validate
    monkeypatch.setattr(fit_module, "validate", validate)
    assert train(recipe_file, tmp_path / "run", "train.ema=0.9") == 0
    acting = load_actor(tmp_path / "run").policy.state_dict()
    assert acting.keys() == validated.keys()
    assert all(torch.equal(acting[name], validated[name]) for name in acting)
    weights = load_file(checkpoints(tmp_path / "run")[-1].folder / "training.safetensors")
    assert any(not torch.equal(acting[name], weights[name]) for name in weights)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_resumed_run_equals_a_whole_one(recipe_file, tmp_path, precision):
    settings = ["train.ema=0.9", f"train.precision={precision}", "train.accelerator=cpu"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(recipe_file, whole, *settings) == 0
    assert train(recipe_file, halves, *settings) == 0
    for checkpoint in checkpoints(halves)[1:]:
        shutil.rmtree(checkpoint.folder)
    assert train(recipe_file, halves, *settings, resume=True) == 0
    assert metrics(halves) == metrics(whole)
    last = [checkpoints(folder)[-1].folder for folder in (whole, halves)]
    for name in ("model.safetensors", "training.safetensors", "optimizer.safetensors"):
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()


def test_another_decay_is_another_run(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run", "train.steps=2") == 0
    changed = ("train.steps=2", "train.ema=0.9")
    assert train(recipe_file, tmp_path / "run", *changed, resume=True) == 2
    assert "train.ema: the run in" in capsys.readouterr().err


def test_a_decay_of_one_is_refused(load):
    with pytest.raises(ConfigError, match=r"train\.ema: expected less than 1"):
        load("train.ema=1.0")


def test_two_processes_hold_equal_averages(recipe_file, tmp_path):
    settings = ["train.accelerator=cpu", "train.steps=3", "train.ema=0.9"]
    finished = run_two_processes(
        recipe_file, tmp_path / "two", *settings, module="tests.core.training.run_with_averages"
    )
    assert finished.returncode == 0, finished.stderr
    first, second = (load_file(tmp_path / "two" / f"rank_{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
