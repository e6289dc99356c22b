"""Weights that the loss does not reach: named, and no obstacle for several processes."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from core.policy import assembly
from core.training.unreached import describe_unreached, unreached_weights
from tests.core.training.run_with_idle_weights import add_idle_weights
from tests.core.training.runs import run_two_processes, train


def test_weights_without_a_path_to_the_loss_are_found():
    module = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("used", "idle", "frozen")})
    module["frozen"].requires_grad_(False)
    x = module["frozen"](torch.ones(2))
    loss = (
        checkpoint(module["used"], x, use_reentrant=False).sum() + module["idle"](x).detach().sum()
    )
    assert unreached_weights(module, loss) == ["idle.weight", "idle.bias"]
    assert unreached_weights(module, loss + module["idle"](x).sum()) == []


def test_long_lists_are_cut():
    (line,) = describe_unreached(list("abcdef"))
    assert line.startswith("6 weights do not train")
    assert line.endswith(": a, b, c, d and 2 more")
    assert list(describe_unreached([])) == []


def test_they_are_named_and_the_run_trains(recipe_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(assembly, "_join_parts", add_idle_weights)
    assert train(recipe_file, tmp_path / "run") == 0
    names = ", ".join(f"vision_encoder.idle.{name}" for name in ("weight", "bias", "scale"))
    assert f"the trial before training: {names}\n" in capsys.readouterr().out


def test_nothing_is_said_if_there_are_none(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run") == 0
    assert "do not train" not in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_though_weights_idle(recipe_file, tmp_path):
    module = "tests.core.training.run_with_idle_weights"
    finished = run_two_processes(recipe_file, tmp_path / "two", module=module)
    assert finished.returncode == 0, finished.stderr
    assert "3 weights do not train" in finished.stdout
