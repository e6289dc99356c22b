"""A run in two stages: the autoencoder alone, then all but the autoencoder."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from core.weights.checkpoint import checkpoint_folder
from tests.core.training.conftest import RECIPE
from tests.core.training.runs import metrics, run_two_processes, train
from tests.factories import make_store

AUTOENCODER, CODEBOOKS = "policy_head.autoencoder.", "policy_head.autoencoder.codebooks."
STAGES = """
[policy_head]
name = "vqbet"
hidden_size = 8
code_width = 4
codes = 4
[[train.stages]]
steps = 3
parts = ["policy_head.autoencoder"]
[[train.stages]]
steps = 3
parts = ["vision_encoder", "text_encoder", "backbone", "action_tokens", "policy_head"]
freeze = ["policy_head.autoencoder"]
"""
SETTINGS = (
    "train.accumulation=2",
    "train.ema=0.5",
    "train.weight_decay=0.5",
    "train.checkpoint_every=1",
    "train.keep_last=9",
)


@pytest.fixture
def recipe(tmp_path):
    make_store(tmp_path / "episodes.zarr")
    path = tmp_path / "staged.toml"
    path.write_text(RECIPE.partition("[policy_head]")[0] + STAGES)
    return path


def changed(folder, before, after):
    early, late = (
        load_file(checkpoint_folder(folder, step) / "model.safetensors") for step in (before, after)
    )
    return {name for name in early if not torch.equal(early[name], late[name])}


def test_the_autoencoder_trains_first_and_rests_then(recipe, tmp_path):
    folder = tmp_path / "run"
    assert train(recipe, folder, *SETTINGS) == 0
    first, then = changed(folder, 1, 3), changed(folder, 4, 6)
    assert all(name.startswith(AUTOENCODER) for name in first)
    assert any(name.startswith(CODEBOOKS) for name in first)
    assert not any(name.startswith(AUTOENCODER) for name in then)
    assert {name.partition(".")[0] for name in then} >= {"vision_encoder", "backbone"}
    assert {"policy_head.code_logits.0.weight", "policy_head.offsets.0.weight"} <= then
    losses = metrics(folder)
    assert {"reconstruction", "commitment"} <= losses[3].keys() - losses[4].keys()
    assert {"code", "offset"} <= losses[4].keys() - losses[3].keys()


@pytest.mark.parametrize("stop", [2, 4])
def test_a_resumed_run_is_the_undisturbed_one(recipe, tmp_path, stop, monkeypatch):
    from core.training import fit as fit_module

    assert train(recipe, tmp_path / "whole", *SETTINGS) == 0

    def stopped(run, step, original=fit_module.after_step):
        original(run, step)
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "after_step", stopped)
        assert train(recipe, tmp_path / "run", *SETTINGS) == 128 + signal.SIGTERM
    assert train(recipe, tmp_path / "run", *SETTINGS, resume=True) == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    for name in ("model", "training", "optimizer"):
        saved = [
            checkpoint_folder(tmp_path / folder, 6) / f"{name}.safetensors"
            for folder in ("run", "whole")
        ]
        assert saved[0].read_bytes() == saved[1].read_bytes()


def test_two_processes_have_the_codebooks_of_one(recipe, tmp_path):
    settings = ("train.checkpoint_every=3", "backbone.dropout=0.0", "data.window=1")
    assert train(recipe, tmp_path / "one", *settings, "action.horizon=1") == 0
    result = run_two_processes(recipe, tmp_path / "two", *settings, "action.horizon=1")
    assert result.returncode == 0, result.stderr
    for step in (3, 6):
        one, two = (
            load_file(checkpoint_folder(tmp_path / folder, step) / "model.safetensors")
            for folder in ("one", "two")
        )
        for name in (name for name in one if name.startswith(CODEBOOKS)):
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
