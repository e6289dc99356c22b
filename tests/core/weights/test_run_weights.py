"""Weights from a run: its newest checkpoint, what fits, and why something is not there."""

import json

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from core.weights.checkpoint import checkpoint_folder, save_checkpoint
from core.weights.run_weights import RunWeights, is_run


class Parts(nn.Module):
    """Two parts with names as in a policy; one has a buffer."""

    def __init__(self, seed: int, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
        self.backbone[1].running_mean += seed
        self.projections = nn.ModuleDict({"vision": nn.Linear(2, 3)})

    def load(self, weights: RunWeights) -> None:
        vision = self.projections["vision"]
        weights.load({"backbone": self.backbone, "projections.vision": vision})


def restore(run, checkpoint, averages):
    raise AssertionError("the checkpoint holds all weights itself")


def save(run, step, model, averages=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save_checkpoint(run, model, optimizer, {"step": step}, 9, averages=averages or {})


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints; the weights of each depend on its step."""
    for step in (1, 2):
        save(tmp_path / "run", step, Parts(seed=step))
    (tmp_path / "run" / "recipe.toml").touch()
    return tmp_path / "run"


def is_equal(left: nn.Module, right: nn.Module) -> bool:
    states = left.state_dict(), right.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_the_newest_checkpoint_fills_parameters_and_buffers(run):
    model = Parts(seed=0)
    model.load(RunWeights(run, restore))
    assert is_equal(model, Parts(seed=2))


def test_only_the_named_modules_are_filled(run):
    model = Parts(seed=0)
    RunWeights(run, restore).load({"backbone": model.backbone})
    assert is_equal(model.backbone, Parts(seed=2).backbone)
    assert is_equal(model.projections, Parts(seed=0).projections)


def test_all_parts_take_the_same_checkpoint_while_the_run_trains_on(run):
    weights, model = RunWeights(run, restore), Parts(seed=0)
    weights.load({"backbone": model.backbone})
    save(run, 3, Parts(seed=3))
    weights.load({"projections.vision": model.projections["vision"]})
    assert is_equal(model, Parts(seed=2))


def test_averages_are_taken_where_the_run_kept_them(run):
    average = torch.full((4, 3), 7.0)
    save(run, 3, Parts(seed=3), {"backbone.0.weight": average})
    model = Parts(seed=0)
    model.load(RunWeights(run, restore))
    assert torch.equal(model.backbone[0].weight, average)
    assert torch.equal(model.backbone[0].bias, Parts(seed=3).backbone[0].bias)


def test_what_does_not_fit_is_listed_and_nothing_is_filled(run):
    model, untouched = Parts(seed=0, width=5), Parts(seed=0, width=5)
    model.projections["vision"] = nn.Linear(2, 3, bias=False)
    with pytest.raises(ConfigError) as caught:
        model.load(RunWeights(run, restore))
    (line,) = caught.value.mistakes
    folder = checkpoint_folder(run, 2)
    assert line.startswith(f"pretrained: '{folder}' does not fit; unexpected: projections.vision.")
    assert "misshapen: backbone.0.weight (4, 3) instead of (5, 3), backbone.0.bias" in line
    assert is_equal(model.backbone, untouched.backbone)


@pytest.mark.parametrize(
    ("section", "left_out"),
    [
        ('train = "lora"\npretrained = true', 0),
        ("train = false\npretrained = true", 17),
        ('pretrained = true\nfreeze = ["0"]', 17),
    ],
)
def test_weights_that_the_checkpoint_does_not_hold_come_from_the_runs_policy(
    run, section, left_out
):
    (run / "recipe.toml").write_text(f"[backbone]\n{section}\n")
    state = checkpoint_folder(run, 2) / "state.json"
    state.write_text(json.dumps({"step": 2, "left_out": left_out}))
    restored, model = Parts(seed=9), Parts(seed=0)
    model.load(RunWeights(run, lambda *_: restored))
    assert is_equal(model.backbone, restored.backbone)
    assert is_equal(model.projections, Parts(seed=2).projections), "the checkpoint holds these"


def test_a_frozen_part_without_a_source_is_in_the_checkpoint(run):
    (run / "recipe.toml").write_text("[backbone]\ntrain = false\n")
    model = Parts(seed=0)
    model.load(RunWeights(run, restore))
    assert is_equal(model, Parts(seed=2))


def test_a_recipe_that_cannot_be_read_is_named(run):
    (run / "recipe.toml").write_text("[backbone]\ntrain = ")
    with pytest.raises(ConfigError, match=rf"cannot read '{run}/recipe.toml'"):
        Parts(seed=0).load(RunWeights(run, restore))


def test_the_checkpoint_is_that_of_a_step_or_the_best_or_of_a_folder(run):
    save(run, 3, Parts(seed=3))
    for source, which, seed in [
        (run, 1, 1),
        (checkpoint_folder(run, 2), "last", 2),
        (run, "last", 3),
    ]:
        model = Parts(seed=0)
        model.load(RunWeights(source, restore, which))
        assert is_equal(model, Parts(seed=seed))
    assert is_run(str(checkpoint_folder(run, 2)))


def test_the_weights_that_trained_are_taken_instead_of_averages(run):
    save(run, 3, Parts(seed=3), {"backbone.0.weight": torch.full((4, 3), 7.0)})
    model = Parts(seed=0)
    model.load(RunWeights(run, restore, averages=False))
    assert is_equal(model, Parts(seed=3))


def test_a_run_without_a_checkpoint_is_named(tmp_path):
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(ConfigError, match=rf"the run '{tmp_path}' has no checkpoint; let it train"):
        Parts(seed=0).load(RunWeights(tmp_path, restore))


def test_a_run_is_a_folder_with_a_recipe_and_no_weights_beside_it(run, monkeypatch):
    assert is_run(str(run))
    assert not is_run(str(run.parent))
    assert not is_run(str(run / "recipe.toml"))
    monkeypatch.chdir(run.parent)
    assert not is_run("run"), "it is a name on the hub"
    (run / "model.safetensors.index.json").touch()
    assert not is_run(str(run)), "these are published weights"
