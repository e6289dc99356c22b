"""The learned action tokens: the drawn sequences, and readouts that do not depend on the batch."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from core import ActionSpec, RecipeError, TokenGroup
from core.testing import Given, checks_for
from plugins.action_tokens.learned import LearnedConfig, LearnedTokens
from plugins.backbones.transformer import Transformer, TransformerConfig
from plugins.text.sentencepiece import SentencePieceConfig, SentencePieceEncoder

LAYOUTS = ["image_text_action", "text_image_action"]
CONFIGS = [
    LearnedConfig(formulation=formulation, layout=layout, proprio=proprio, count=count)
    for formulation, layout, (proprio, count) in product(
        ["policy_head", "interleaved", "one_step"], LAYOUTS, [(False, 1), (True, 2)]
    )
]


def window_of(config):
    return 1 if config.formulation == "one_step" else 3


CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, config in enumerate(CONFIGS)
    for check in checks_for(
        "action_tokens", LearnedTokens, config, Given(action=ActionSpec(window=window_of(config), horizon=2, dim=2))
    )
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


DRAWN = {
    ("policy_head", "image_text_action"): ["i0 j0 x y p0 a0 b0", "i1 j1 x y p1 a1 b1", "i2 j2 x y p2 a2 b2"],
    ("policy_head", "text_image_action"): ["x y i0 j0 p0 a0 b0", "x y i1 j1 p1 a1 b1", "x y i2 j2 p2 a2 b2"],
    ("interleaved", "image_text_action"): ["i0 j0 x y p0 a0 b0 i1 j1 p1 a1 b1 i2 j2 p2 a2 b2"],
    ("interleaved", "text_image_action"): ["x y i0 j0 p0 a0 b0 i1 j1 p1 a1 b1 i2 j2 p2 a2 b2"],
    ("one_step", "image_text_action"): ["i0 j0 x y p0 a0 b0"],
    ("one_step", "text_image_action"): ["x y i0 j0 p0 a0 b0"],
}


def code(name, frame=0):
    """Each drawn token's number: its letter and its frame."""
    return float(100 * "ijxypab".index(name) + frame)


def names(sequence):
    """Write a sequence as the class docstring draws it."""
    written = []
    for row in sequence.tokens[..., 0].tolist():
        letters = [("ijxypab"[round(value) // 100], round(value) % 100) for value in row]
        written.append(" ".join(name if name in "xy" else f"{name}{frame}" for name, frame in letters))
    return written


@pytest.mark.parametrize(("formulation", "layout"), DRAWN)
def test_sequences_are_as_drawn(formulation, layout):
    window = 1 if formulation == "one_step" else 3
    config = LearnedConfig(count=2, formulation=formulation, layout=layout, proprio=True)
    tokens = LearnedTokens(config, width=1, window=window, proprio_dim=1)
    frames = torch.arange(window, dtype=torch.float32)
    vision = TokenGroup(torch.stack([frames + code("i"), frames + code("j")], dim=-1)[None, :, :, None])
    text = TokenGroup(torch.tensor([code("x"), code("y")])[None, :, None])
    with torch.no_grad():
        tokens.proprio.weight.fill_(1)
        tokens.proprio.bias.zero_()
        tokens.action.copy_(torch.tensor([[code("a")], [code("b")]]))
        sequence = tokens.layout(vision, text, (frames + code("p"))[None, :, None])
        # A learned token has no frame of its own: give it the one that the sequence says.
        frame = sequence.frame if formulation == "interleaved" else torch.arange(window)[:, None]
        shown = sequence.tokens + (sequence.is_action * frame)[..., None]
    assert names(replace(sequence, tokens=shown)) == DRAWN[formulation, layout]
    read = shown.flatten(0, 1)[sequence.readout][0, :, :, 0].tolist()
    assert read == [[code("a", t), code("b", t)] for t in range(window)]
    if formulation == "interleaved":
        assert sequence.frame[0].tolist() == [0] * 7 + [1] * 5 + [2] * 5
    else:
        assert not sequence.frame.any()


INSTRUCTIONS = ["open the drawer", "pick up the red block and put it into the blue bowl on the table", "stop"]


@pytest.mark.parametrize("attention", ["causal", "prefix", "bidirectional"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.formulation}-{c.layout}-{c.count}")
def test_readout_of_a_sample_alone_equals_that_in_a_padded_batch(config, attention):
    torch.manual_seed(0)
    text = SentencePieceEncoder(SentencePieceConfig(width=24, layers=1)).eval()
    backbone = Transformer(TransformerConfig(width=24, depth=2, heads=2, attention=attention)).eval()
    tokens = LearnedTokens(config, width=24, window=window_of(config), proprio_dim=2)
    ids = [torch.tensor(text.tokenize(instruction)) for instruction in INSTRUCTIONS]
    images, proprio = torch.randn(3, window_of(config), 5, 24), torch.randn(3, window_of(config), 2)

    def readout(words, images, proprio):
        sequence = tokens.layout(TokenGroup(images), words, proprio)
        return backbone.read(sequence)

    with torch.no_grad():
        padded = pad_sequence(ids, batch_first=True)
        mask = pad_sequence([torch.ones_like(row).bool() for row in ids], batch_first=True)
        together = readout(text(padded, mask), images, proprio)
        for i in range(3):
            alone = readout(text(ids[i][None], None), images[i : i + 1], proprio[i : i + 1])
            torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)


def test_image_masks_are_honoured():
    tokens = LearnedTokens(LearnedConfig(), width=4, window=2, proprio_dim=0)
    seen = torch.tensor([[[True, False, True], [True, True, True]]])
    sequence = tokens.layout(TokenGroup(torch.randn(1, 2, 3, 4), seen), TokenGroup(torch.randn(1, 2, 4)), None)
    assert sequence.mask.sum(1).tolist() == [5, 6]


@pytest.mark.parametrize(("formulation", "context"), [("policy_head", 1), ("interleaved", 3)])
def test_acting_keeps_as_many_frames_as_a_sequence_spans(formulation, context):
    config = LearnedConfig(formulation=formulation)
    assert LearnedTokens(config, width=4, window=3, proprio_dim=0).context == context


def test_initial_action_tokens():
    def make(std):
        return LearnedTokens(LearnedConfig(count=64, init_std=std), width=64, window=1, proprio_dim=0)

    assert not make(0.0).action.any()
    assert 0.015 < make(0.02).action.std() < 0.025


def test_one_step_refuses_a_window():
    with pytest.raises(RecipeError, match=r"action_tokens\.formulation.*data\.window is 8"):
        LearnedTokens(LearnedConfig(formulation="one_step"), width=4, window=8, proprio_dim=0)


def test_proprio_needs_data():
    with pytest.raises(RecipeError, match=r"action_tokens\.proprio"):
        LearnedTokens(LearnedConfig(proprio=True), width=4, window=1, proprio_dim=0)
    tokens = LearnedTokens(LearnedConfig(proprio=True), width=4, window=1, proprio_dim=3)
    with pytest.raises(ValueError, match=r"batch\.proprio is None"):
        tokens.layout(TokenGroup(torch.randn(1, 1, 2, 4)), TokenGroup(torch.randn(1, 2, 4)), None)
