"""Before the first step, a policy predicts and acts once, so that a fault is found at once."""

import pytest
import torch

from core.training import fit as fit_module
from core.weights.checkpoint import checkpoints
from plugins.heads.lstm import LSTMHead
from tests.core.training.runs import metrics, train

FAULTS = {
    "one action for all": (
        "act",
        lambda result: (result[0][..., :1], result[1]),
        "act returned float32 (4, 2, 1); its contract asks for actions (B H A) = (4, 2, 4)",
    ),
    "act gives NaN": (
        "act",
        lambda result: (torch.full_like(result[0], torch.nan), result[1]),
        "act returned NaN or infinity before the first step",
    ),
    "forward gives NaN": (
        "forward",
        lambda actions: actions / 0,
        "forward returned NaN or infinity before the first step",
    ),
    "an error for the batch": (
        "validation_error",
        lambda _: torch.zeros(()),
        "validation_error returned float32 (); its contract asks for an error for each sample",
    ),
}


@pytest.mark.parametrize(("method", "change", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_acting_is_found_before_the_first_step(
    method, change, message, recipe_file, tmp_path, monkeypatch, capsys
):
    original = getattr(LSTMHead, method)

    def faulty(self, *arguments):
        result = original(self, *arguments)
        return result if torch.is_grad_enabled() else change(result)

    monkeypatch.setattr(LSTMHead, method, faulty)
    assert train(recipe_file, tmp_path / "run") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: policy_head 'lstm' of plugin 'plugins.heads.lstm' (joinery ")
    assert message in shown
    assert shown.count("\n") == 1
    assert not metrics(tmp_path / "run")
    assert not checkpoints(tmp_path / "run")


def test_it_changes_nothing(recipe_file, tmp_path, monkeypatch):
    assert train(recipe_file, tmp_path / "with") == 0
    monkeypatch.setattr(fit_module, "rehearse", lambda *_: None)
    assert train(recipe_file, tmp_path / "without") == 0
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
