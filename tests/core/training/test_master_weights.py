"""Optimisers of bfloat16 weights: small updates add up, and a resumed run goes on with them."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from core.training.master_weights import MASTER, MasterWeights
from core.weights.checkpoint import checkpoints
from tests import lion
from tests.core.training.runs import metrics, needs_muon, train

HALF = "train.precision=bf16-true"


def groups_of(weights):
    return [{"params": list(weights), "lr": 1e-4, "weight_decay": 0.01}]


def bfloat16_weights():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(8, 8).bfloat16()), nn.Parameter(torch.ones(8).bfloat16())]


def steps(optimizer, weights, gradients):
    for gradient in gradients:
        for weight in weights:
            weight.grad = gradient[: weight.shape[0]].expand_as(weight).clone().to(weight.dtype)
        optimizer.step()
        optimizer.zero_grad()


def test_the_weights_are_those_of_training_in_float32_rounded():
    """The oracle is PyTorch's AdamW on float32 weights, with the same gradients."""
    weights = bfloat16_weights()
    expected = [nn.Parameter(weight.detach().float()) for weight in weights]
    gradients = [torch.randn(8).bfloat16() for _ in range(50)]
    steps(MasterWeights(torch.optim.AdamW, groups_of(weights)), weights, gradients)
    steps(torch.optim.AdamW(groups_of(expected)), expected, gradients)
    for weight, other in zip(weights, expected, strict=True):
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, other.bfloat16())


def test_small_updates_add_up():
    kept, lost = bfloat16_weights(), bfloat16_weights()
    gradients = [torch.ones(8)] * 100
    steps(MasterWeights(torch.optim.AdamW, groups_of(kept)), kept, gradients)
    steps(torch.optim.AdamW(groups_of(lost)), lost, gradients)
    before = bfloat16_weights()[1]
    assert torch.equal(lost[1], before), "an update of 1e-4 is too small for a bfloat16 1.0"
    assert (kept[1] < before).all()


def test_a_weight_without_gradient_stays_as_it_is():
    weights = bfloat16_weights()
    optimizer = MasterWeights(torch.optim.AdamW, groups_of(weights))
    steps(optimizer, weights[:1], [torch.ones(8)] * 3)
    assert torch.equal(weights[1], bfloat16_weights()[1])
    assert set(optimizer.state[weights[1]]) == {MASTER}


def test_a_closure_gives_the_gradients():
    (weight, _) = bfloat16_weights()
    optimizer = MasterWeights(torch.optim.SGD, [{"params": [weight], "lr": 1.0}])

    def closure():
        loss = (3 * weight).sum()
        loss.backward()
        return loss.item()

    before = weight.detach().clone()
    assert optimizer.step(closure) == pytest.approx(float((3 * before).sum()), rel=0.02)
    assert torch.equal(weight, (before.float() - 3).bfloat16())


@pytest.mark.parametrize("name", ["adamw", pytest.param("muon", marks=needs_muon), "sgd", "lion"])
def test_resuming_continues_bit_for_bit(recipe_file, tmp_path, monkeypatch, name):
    lion.install(monkeypatch)
    settings = [f"optimizer.name={name}", HALF, "train.learning_rate=1e-4", "train.steps=4"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(recipe_file, whole, *settings) == 0
    shutil.copytree(whole, halves)
    shutil.rmtree(checkpoints(halves)[-1].folder)
    assert train(recipe_file, halves, *settings, resume=True) == 0
    assert metrics(halves) == metrics(whole)
    last = [checkpoints(folder)[-1].folder for folder in (whole, halves)]
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (last[0] / file).read_bytes() == (last[1] / file).read_bytes()
    state, weights = (load_file(last[0] / f"{x}.safetensors") for x in ("optimizer", "model"))
    masters = {key.removesuffix("/master"): x for key, x in state.items() if "/master" in key}
    assert masters.keys() >= {"policy_head.lstm.weight_ih_l0", "backbone.norm.weight"}
    for key, master in masters.items():
        assert torch.equal(master.bfloat16(), weights[key]), "the weights are the copies, rounded"
        assert master.dtype == torch.float32


def test_a_run_whose_checkpoints_hold_no_copies_goes_on(recipe_file, tmp_path):
    settings = [HALF, "train.steps=4"]
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    first, last = (checkpoint.folder for checkpoint in checkpoints(tmp_path / "run")[-2:])
    shutil.rmtree(last)
    state = load_file(first / "optimizer.safetensors")
    save_file(
        {key: x.clone() for key, x in state.items() if not key.endswith("/master")},
        first / "optimizer.safetensors",
    )
    before = load_file(first / "model.safetensors")
    assert train(recipe_file, tmp_path / "run", *settings, resume=True) == 0
    after = load_file(last / "model.safetensors")
    near = (torch.allclose(after[key].float(), x.float(), atol=0.01) for key, x in before.items())
    assert all(near), "it goes on from the checkpoint's weights, not from initial ones"


def test_most_weights_of_a_run_change_at_a_usual_rate(recipe_file, tmp_path):
    settings = ["train.learning_rate=1e-4", "train.schedule=constant", "train.warmup_steps=0"]
    settings += [HALF, "train.steps=40", "train.checkpoint_every=1", "train.keep_last=99"]
    assert train(recipe_file, tmp_path / "run", *settings, "train.validate_every=40") == 0
    first, last = (
        load_file(checkpoints(tmp_path / "run")[number].folder / "model.safetensors")
        for number in (0, -1)
    )
    names = [name for name in first if name.startswith(("backbone.", "policy_head."))]
    changed = sum(int((first[name] != last[name]).sum()) for name in names)
    assert changed > 0.8 * sum(first[name].numel() for name in names)
