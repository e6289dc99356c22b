"""The longest sequence of the data is tried before the first step."""

import pytest

from core.loading.instructions import tokenize_instructions
from core.loading.opening import open_data
from core.training.trial import longest_batch
from plugins.text.sentencepiece import SentencePieceConfig, SentencePieceEncoder
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
