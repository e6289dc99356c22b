"""The SentencePiece encoder and the tokenizer that ships with it."""

from pathlib import Path

import pytest
import torch

from core import DataError
from core.testing import checks_for
from plugins.text.sentencepiece import SHIPPED, SentencePieceConfig, SentencePieceEncoder
from plugins.text.tokenizer import read_instructions, train

CONFIGS = [
    SentencePieceConfig(width=16),
    SentencePieceConfig(width=16, layers=2, heads=2),
    SentencePieceConfig(width=16, layers=1, dropout=0.2),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, config in enumerate(CONFIGS)
    for check in checks_for("text_encoder", SentencePieceEncoder, config)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


@pytest.fixture
def encoder():
    return SentencePieceEncoder(SentencePieceConfig(width=8))


def test_the_shipped_model_is_what_its_instructions_train():
    instructions = read_instructions(SHIPPED.with_suffix(".txt"))
    assert 1_200 <= len(instructions) <= 1_500
    assert train(instructions, 1000) == SHIPPED.read_bytes()


@pytest.mark.parametrize(
    "instruction",
    [
        "pick up the red block and put it in the drawer",
        "push the green button from the side",
        "turn off the light bulb",
        "close the top drawer of the cabinet",
        "stack the pink block on the blue block",
    ],
)
def test_instructions_of_robots_are_few_tokens(encoder, instruction):
    assert len(encoder.tokenize(instruction)) <= 1.5 * len(instruction.split())
    assert encoder.processor.decode(list(encoder.tokenize(instruction))) == instruction


def test_case_does_not_matter_and_every_script_is_known(encoder):
    assert list(encoder.tokenize("Open The DRAWER")) == list(encoder.tokenize("open the drawer"))
    unknown = encoder.processor.unk_id()
    for instruction in ("빨간 블록을 집어", "ouvre le tiroir à gauche", "移动 45 °"):
        assert unknown not in encoder.tokenize(instruction)


@pytest.mark.parametrize("instruction", ["", "  \t\n", "\u200b"])
def test_an_empty_instruction_is_refused(encoder, instruction):
    with pytest.raises(DataError, match="empty"):
        encoder.tokenize(instruction)


def test_a_lone_surrogate_is_refused_in_one_line(encoder):
    with pytest.raises(DataError, match=r"'open \\ud800 it' is no valid Unicode"):
        encoder.tokenize("open \ud800 it")


def test_a_long_instruction_is_refused_in_one_line(encoder):
    instruction = "wipe the table\n" * 700
    with pytest.raises(DataError) as caught:
        encoder.tokenize(instruction)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    assert message.startswith("the instruction 'wipe the table wipe")
    assert "64" in message
    assert "max_tokens" in message


def test_max_tokens_is_the_limit_itself():
    count = len(SentencePieceEncoder(SentencePieceConfig(width=8)).tokenize("open the drawer"))
    assert SentencePieceEncoder(SentencePieceConfig(width=8, max_tokens=count)).tokenize(
        "open the drawer"
    )
    with pytest.raises(DataError):
        SentencePieceEncoder(SentencePieceConfig(width=8, max_tokens=count - 1)).tokenize(
            "open the drawer"
        )


def test_layers_see_the_order_of_words():
    torch.manual_seed(0)
    encoder = SentencePieceEncoder(SentencePieceConfig(width=16, layers=1)).eval()
    ids = torch.tensor([encoder.tokenize("push the red block onto the blue block")])
    forward, backward = encoder(ids, None).tokens, encoder(ids.flip(1), None).tokens
    assert (forward - backward.flip(1)).abs().max() > 1e-3


def test_a_model_of_ones_own_sets_the_table(tmp_path):
    path = tmp_path / "own.model"
    path.write_bytes(train(["open the drawer", "close the drawer", "push the button"], 300))
    encoder = SentencePieceEncoder(SentencePieceConfig(model=path, width=8))
    assert encoder.embedding.weight.shape == (300, 8)
    assert 0.01 < encoder.embedding.weight.std() < 0.03


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_an_unreadable_model_is_named(tmp_path, content):
    path = tmp_path / "some.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"some\.model.*joinery tokenizer train"):
        SentencePieceEncoder(SentencePieceConfig(model=path))


def test_heads_must_divide_the_width_of_layers():
    with pytest.raises(ValueError, match=r"heads = 5 .* width = 16"):
        SentencePieceConfig(width=16, layers=1, heads=5)
    assert SentencePieceConfig(width=6, model=Path("x")).layers == 0
