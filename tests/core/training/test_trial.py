"""Before the first step, a policy computes losses, predicts and acts once."""

import pytest
import torch

from core.loading.instructions import tokenize_instructions
from core.loading.opening import open_data
from core.training import train as train_module
from core.training.trial import longest_batch
from core.weights.checkpoint import checkpoints
from plugins.heads.lstm import LSTMHead
from plugins.text.sentencepiece import SentencePieceConfig, SentencePieceEncoder
from plugins.vision.timm_vit.encoder import TimmEncoder
from tests.core.training.runs import metrics, train


def test_the_longest_batch_has_the_instruction_with_most_tokens(load):
    data = open_data(load())
    tokens = tokenize_instructions(data.instructions, SentencePieceEncoder(SentencePieceConfig()))
    batch = longest_batch(data, tokens)
    assert len(tokens) > 1
    assert batch.text_ids.shape == (1, max(map(len, tokens.values())))
    assert batch.text_ids[0].tolist() == tokens[batch.instructions[0]]
    assert {name: tuple(x.shape) for name, x in batch.images.items()} == dict.fromkeys(
        data.info.cameras, (1, 3, 3, 32, 32)
    )
    assert all(x.float().std() > 50 for x in batch.images.values())
    again = longest_batch(data, tokens)
    assert all(torch.equal(again.images[name], x) for name, x in batch.images.items())
    assert not batch.actions.any()
    assert batch.action_mask.all()


def test_a_sequence_beyond_the_positions_is_refused_before_the_first_step(
    recipe_file, tmp_path, capsys
):
    settings = ["backbone.positions=learned", "backbone.max_tokens=12"]
    assert train(recipe_file, tmp_path / "run", *settings) == 2
    shown = capsys.readouterr().err
    assert "raise backbone.max_tokens" in shown
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()
    settings[-1] = "backbone.max_tokens=256"
    assert train(recipe_file, tmp_path / "run", *settings, "train.steps=3") == 0


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_it_computes_with_the_precision_of_training(recipe_file, tmp_path, precision):
    settings = [f"train.precision={precision}", "train.steps=1", "train.warmup_steps=0"]
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    assert metrics(tmp_path / "run")[1]["loss"] > 0


FAULTS = {
    "one action for all": (
        "act",
        lambda result: (result[0][..., :1], result[1]),
        "act returned float32 (1, 2, 1); its contract asks for actions (B H A) = (1, 2, 4)",
    ),
    "act gives NaN": (
        "act",
        lambda result: (torch.full_like(result[0], torch.nan), result[1]),
        "act returned NaN or infinity for random pixels, before the first step",
    ),
    "forward gives NaN": (
        "forward",
        lambda actions: actions / 0,
        "forward returned NaN or infinity for random pixels, before the first step",
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
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not checkpoints(tmp_path / "run")


def test_an_encoder_may_divide_by_the_deviation_of_the_pixels(recipe_file, tmp_path, monkeypatch):
    original = TimmEncoder.forward

    def standardised(self, images, text):
        standard = {}
        for name, pixels in ((name, x.float()) for name, x in images.items()):
            over = {"dim": (-3, -2, -1), "keepdim": True}
            standard[name] = (pixels - pixels.mean(**over)) / pixels.std(**over)
        return original(self, standard, text)

    monkeypatch.setattr(TimmEncoder, "forward", standardised)
    assert train(recipe_file, tmp_path / "run", "train.steps=1", "train.warmup_steps=0") == 0


def test_it_changes_nothing(recipe_file, tmp_path, monkeypatch):
    assert train(recipe_file, tmp_path / "with") == 0
    monkeypatch.setattr(train_module, "try_policy", lambda *_: None)
    assert train(recipe_file, tmp_path / "without") == 0
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
