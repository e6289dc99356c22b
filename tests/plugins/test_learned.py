"""The learned action tokens: the drawn sequences, and readouts that do not depend on the batch."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from core import (
    ActionSpec,
    ConfigError,
    PastActions,
    TokenGroup,
    TokenKind,
    attention_mask,
)
from core.testing import Setup, checks_for
from plugins.action_tokens.learned import LearnedConfig, LearnedTokens
from plugins.backbones.transformer import Transformer, TransformerConfig
from plugins.text.sentencepiece import SentencePieceConfig, SentencePieceEncoder
from tests.contexts import noise

ATTENTION = ["causal", "prefix", "chunk", "bidirectional"]
LAYOUTS = ["image_text_action", "text_image_action"]
CONFIGS = [
    LearnedConfig(
        formulation=formulation, layout=layout, attention=attention, proprio=proprio, count=count
    )
    for formulation, layout, attention, (proprio, count) in product(
        ["policy_head", "interleaved", "one_step"], LAYOUTS, ATTENTION, [(False, 1), (True, 2)]
    )
]

READING = [
    LearnedConfig(proprio=True, proprio_dropout=0.5),
    LearnedConfig(past_action=True, past_action_dropout=0.5),
    LearnedConfig(formulation="interleaved", attention="prefix", proprio=True, past_action=True),
]


def make(config, width=4, window=1, proprio_dim=0):
    action = ActionSpec(window=window, horizon=2, dim=2)
    return LearnedTokens(config, width=width, action=action, proprio_dim=proprio_dim)


def lay_out(tokens, vision, text, proprio):
    return tokens.layout(vision, text, proprio, None, noise())


def window_of(config):
    return 1 if config.formulation == "one_step" else 3


CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, config in enumerate([*CONFIGS, *READING])
    for check in checks_for(
        "action_tokens",
        LearnedTokens,
        config,
        Setup(action=ActionSpec(window=window_of(config), horizon=2, dim=2)),
    )
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


DRAWN = {
    ("policy_head", "image_text_action"): [
        "i0 j0 x y p0 a0 b0",
        "i1 j1 x y p1 a1 b1",
        "i2 j2 x y p2 a2 b2",
    ],
    ("policy_head", "text_image_action"): [
        "x y i0 j0 p0 a0 b0",
        "x y i1 j1 p1 a1 b1",
        "x y i2 j2 p2 a2 b2",
    ],
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
        written.append(
            " ".join(name if name in "xy" else f"{name}{frame}" for name, frame in letters)
        )
    return written


@pytest.mark.parametrize(("formulation", "layout"), DRAWN)
def test_sequences_are_as_drawn(formulation, layout):
    window = 1 if formulation == "one_step" else 3
    config = LearnedConfig(count=2, formulation=formulation, layout=layout, proprio=True)
    tokens = make(config, width=1, window=window, proprio_dim=1)
    frames = torch.arange(window, dtype=torch.float32)
    vision = TokenGroup(
        torch.stack([frames + code("i"), frames + code("j")], dim=-1)[None, :, :, None]
    )
    text = TokenGroup(torch.tensor([code("x"), code("y")])[None, :, None])
    with torch.no_grad():
        tokens.proprio.weight.fill_(1)
        tokens.proprio.bias.zero_()
        tokens.action.copy_(torch.tensor([[code("a")], [code("b")]]))
        sequence = lay_out(tokens, vision, text, (frames + code("p"))[None, :, None])
        # A learned token has no frame of its own: give it the one that the sequence says.
        frame = sequence.frame if formulation == "interleaved" else torch.arange(window)[:, None]
        shown = sequence.tokens + ((sequence.kind == TokenKind.ACTION) * frame)[..., None]
    assert names(replace(sequence, tokens=shown)) == DRAWN[formulation, layout]
    read = shown.flatten(0, 1)[sequence.readout][0, :, :, 0].tolist()
    assert read == [[code("a", t), code("b", t)] for t in range(window)]
    if formulation == "interleaved":
        assert sequence.frame[0].tolist() == [0] * 7 + [1] * 5 + [2] * 5
    else:
        assert not sequence.frame.any()


INSTRUCTIONS = [
    "open the drawer",
    "pick up the red block and put it into the blue bowl on the table",
    "stop",
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: f"{c.formulation}-{c.layout}-{c.attention}-{c.count}"
)
def test_readout_of_a_sample_alone_equals_that_in_a_padded_batch(config):
    torch.manual_seed(0)
    text = SentencePieceEncoder(SentencePieceConfig(width=24, layers=1)).eval()
    backbone = Transformer(TransformerConfig(width=24, depth=2, heads=2)).eval()
    tokens = make(config, width=24, window=window_of(config), proprio_dim=2)
    ids = [torch.tensor(text.tokenize(instruction)) for instruction in INSTRUCTIONS]
    images, proprio = torch.randn(3, window_of(config), 5, 24), torch.randn(3, window_of(config), 2)

    def readout(words, images, proprio):
        return backbone.read(lay_out(tokens, TokenGroup(images), words, proprio))

    with torch.no_grad():
        padded = pad_sequence(ids, batch_first=True)
        mask = pad_sequence([torch.ones_like(row).bool() for row in ids], batch_first=True)
        together = readout(text(padded, mask), images, proprio)
        for i in range(3):
            alone = readout(text(ids[i][None], None), images[i : i + 1], proprio[i : i + 1])
            torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)


def test_image_masks_are_honoured():
    tokens = make(LearnedConfig(), window=2)
    seen = torch.tensor([[[True, False, True], [True, True, True]]])
    sequence = lay_out(
        tokens, TokenGroup(torch.randn(1, 2, 3, 4), seen), TokenGroup(torch.randn(1, 2, 4)), None
    )
    assert sequence.mask.sum(1).tolist() == [5, 6]


@pytest.mark.parametrize(("formulation", "context"), [("policy_head", 1), ("interleaved", 3)])
def test_acting_keeps_as_many_frames_as_a_sequence_spans(formulation, context):
    config = LearnedConfig(formulation=formulation)
    assert make(config, window=3).context == context


def test_initial_action_tokens():
    def tokens(std):
        return make(LearnedConfig(count=64, init_std=std), width=64).action

    assert not tokens(0.0).any()
    assert 0.015 < tokens(0.02).std() < 0.025


@pytest.mark.parametrize(("count", "expected"), [("horizon", 2), ("horizon_x_action", 4), (3, 3)])
def test_the_chunk_says_how_many_tokens_there_are(count, expected):
    tokens = make(LearnedConfig(count=count))
    assert tokens.count == len(tokens.action) == expected


def test_hidden_proprioception_is_that_of_whole_windows_in_training():
    config = LearnedConfig(proprio=True, proprio_dropout=0.5)
    tokens = make(config, window=3, proprio_dim=2)
    torch.nn.init.constant_(tokens.proprio.bias, 7.0)
    vision, text = TokenGroup(torch.randn(64, 3, 2, 4)), TokenGroup(torch.randn(64, 4, 4))
    proprio = torch.randn(64, 3, 2)

    def shown():
        sequence = lay_out(tokens, vision, text, proprio)
        of_frames = sequence.tokens[sequence.kind == TokenKind.PROPRIO].view(64, 3, 4)
        return (of_frames != 7).any(dim=-1)  # (B T)

    in_training = shown()
    assert torch.equal(in_training, in_training[:, :1].expand(-1, 3))
    assert 16 < in_training[:, 0].sum() < 48
    tokens.eval()
    assert shown().all()


@pytest.mark.parametrize("key", ["proprio_dropout", "past_action_dropout"])
def test_dropout_of_what_is_not_read_is_refused(key):
    with pytest.raises(ValueError, match=f"{key} has no effect"):
        LearnedConfig(**{key: 0.1})


def test_the_past_action_stands_between_proprioception_and_action():
    config = LearnedConfig(formulation="interleaved", proprio=True, past_action=True)
    tokens = make(config, window=2, proprio_dim=3)
    vision, text = TokenGroup(torch.randn(1, 2, 1, 4)), TokenGroup(torch.randn(1, 1, 4))
    past = PastActions(torch.randn(1, 2, 2), torch.tensor([[False, True]]))
    sequence = tokens.layout(vision, text, torch.randn(1, 2, 3), None, noise(), past)
    kinds = [TokenKind.VISION, TokenKind.PROPRIO, TokenKind.OTHER, TokenKind.ACTION]
    assert sequence.kind[0].tolist() == [kinds[0], TokenKind.TEXT, *kinds[1:], *kinds]
    first, second = sequence.tokens[sequence.kind == TokenKind.OTHER]
    assert torch.equal(first, tokens.no_past_action)
    torch.testing.assert_close(second, tokens.past_action(past.actions[0, 1]))


def test_hidden_past_actions_are_those_of_whole_windows_in_training():
    tokens = make(LearnedConfig(past_action=True, past_action_dropout=0.5), window=3)
    vision, text = TokenGroup(torch.randn(64, 3, 2, 4)), TokenGroup(torch.randn(64, 4, 4))
    past = PastActions(torch.randn(64, 3, 2), torch.ones(64, 3, dtype=torch.bool))

    def shown():
        sequence = tokens.layout(vision, text, None, None, noise(), past)
        of_frames = sequence.tokens[sequence.kind == TokenKind.OTHER].view(64, 3, 4)
        return (of_frames != tokens.no_past_action).any(dim=-1)  # (B T)

    in_training = shown()
    assert torch.equal(in_training, in_training[:, :1].expand(-1, 3))
    assert 16 < in_training[:, 0].sum() < 48
    tokens.eval()
    assert shown().all()


def test_one_step_refuses_a_window():
    with pytest.raises(ConfigError, match=r"action_tokens\.formulation.*data\.window is 8"):
        make(LearnedConfig(formulation="one_step"), window=8)


def test_proprio_needs_data():
    with pytest.raises(ConfigError, match=r"action_tokens\.proprio"):
        make(LearnedConfig(proprio=True))
    tokens = make(LearnedConfig(proprio=True), proprio_dim=3)
    with pytest.raises(ValueError, match=r"batch\.proprio is None"):
        lay_out(tokens, TokenGroup(torch.randn(1, 1, 2, 4)), TokenGroup(torch.randn(1, 2, 4)), None)


def allowed(sequence, attention, s, i, j):
    """Whether token i of sequence s may see token j, by the definition of the attention."""
    if sequence.mask is not None and not sequence.mask[s, j]:
        return i == j  # padding sees itself, so that no row of a softmax is empty
    if attention == "causal":
        return j <= i
    frame_i, frame_j = sequence.frame[s, i], sequence.frame[s, j]
    if attention == "bidirectional" or frame_i != frame_j:
        return bool(frame_j <= frame_i)
    if sequence.kind[s, j] != TokenKind.ACTION:
        return True
    is_action = bool(sequence.kind[s, i] == TokenKind.ACTION)
    return is_action and (attention == "chunk" or j <= i)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("formulation", ["policy_head", "interleaved", "one_step"])
@pytest.mark.parametrize("attention", ATTENTION)
def test_blocks_say_who_sees_whom(attention, formulation, layout, padded):
    config = LearnedConfig(
        count=2, formulation=formulation, layout=layout, attention=attention, proprio=True
    )
    window = window_of(config)
    mask = torch.tensor([[True, False, False, False], [True] * 4]) if padded else None
    vision, text = TokenGroup(torch.randn(2, window, 2, 4)), TokenGroup(torch.randn(2, 4, 4), mask)
    tokens = make(config, window=window, proprio_dim=2)
    sequence = lay_out(tokens, vision, text, torch.randn(2, window, 2))
    seen, length = attention_mask(sequence), sequence.tokens.shape[1]
    if attention == "causal":
        assert seen is None
        return
    for s in range(len(sequence.tokens)):
        real = torch.ones(length).bool() if sequence.mask is None else sequence.mask[s]
        expected = [
            [allowed(sequence, attention, s, i, j) for j in range(length)] for i in range(length)
        ]
        assert torch.equal(seen[s, 0][real], torch.tensor(expected)[real])
