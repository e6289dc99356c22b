"""The transformer against an explicit softmax in float64 with a dense mask made token by token."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from core import ActionSpec, ConfigError, TokenGroup, TokenKind, TokenSequence
from core.policy.recomputation import recompute_blocks
from core.testing import checks_for
from plugins.action_tokens.learned import LearnedConfig, LearnedTokens
from plugins.backbones.transformer import Transformer, TransformerConfig, rotary_angles, rotate
from tests.contexts import noise

SMALL = TransformerConfig(width=24, depth=2, heads=3, max_tokens=64)
ATTENTION = ["causal", "prefix", "bidirectional"]
CONFIGS = [
    SMALL,
    replace(SMALL, positions="learned"),
    replace(SMALL, norm="layer", activation="gelu"),
    replace(SMALL, norm_eps=1e-3, activation="gelu_tanh", bias=True, positions="none"),
    replace(SMALL, dropout=0.2),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, config in enumerate(CONFIGS)
    for check in checks_for("backbone", Transformer, config)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def sequence(formulation, layout, *, padded, attention="causal"):
    """A sequence of vision (2 3 2 24), text (2 4 24), proprioception and 2 action tokens.

    padded: the first sample's text has one token instead of four.
    """
    torch.manual_seed(1)
    config = LearnedConfig(
        count=2, formulation=formulation, layout=layout, attention=attention, proprio=True
    )
    window = 1 if formulation == "one_step" else 3
    tokens = LearnedTokens(
        config, width=24, action=ActionSpec(window, horizon=1, dim=1), proprio_dim=2
    )
    mask = torch.tensor([[True, False, False, False], [True] * 4]) if padded else None
    vision, text = (
        TokenGroup(torch.randn(2, window, 2, 24)),
        TokenGroup(torch.randn(2, 4, 24), mask),
    )
    with torch.no_grad():
        return tokens.layout(vision, text, torch.randn(2, window, 2), None, noise())


def visible(sequence, s):
    """Which token of sequence s sees which (L L), by the rule in one line of Python each."""
    length = sequence.tokens.shape[1]
    block = range(length) if sequence.block is None else sequence.block[s].tolist()
    frame = sequence.frame[s].tolist()
    real = [True] * length if sequence.mask is None else sequence.mask[s].tolist()
    return np.array(
        [
            [real[j] and frame[j] <= frame[i] and block[j] <= block[i] for j in range(length)]
            for i in range(length)
        ]
    )


def numpy_of(module):
    return {name: p.detach().double().numpy() for name, p in module.named_parameters()}


def rms(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + np.finfo(np.float32).eps) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def turn(x):
    """Rotary positions as complex numbers: x (L d)."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * 10_000.0 ** (-np.arange(half) / half)
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], -1)


def by_hand(model, x, seen):
    """One sequence x (L D) in float64; seen (L L)."""
    for block in model.blocks:
        w = numpy_of(block)
        q, k, v = np.split(rms(x, w["attention_norm.weight"]) @ w["attention.qkv.weight"].T, 3, -1)
        heads = []
        for h in range(3):
            part = slice(8 * h, 8 * h + 8)
            scores = np.where(seen, turn(q[:, part]) @ turn(k[:, part]).T / np.sqrt(8), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        x = x + np.concatenate(heads, -1) @ w["attention.output.weight"].T
        gate, value = np.split(rms(x, w["mlp_norm.weight"]) @ w["mlp.input.weight"].T, 2, -1)
        x = x + (silu(gate) * value) @ w["mlp.output.weight"].T
    return rms(x, model.norm.weight.detach().double().numpy())


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("layout", ["image_text_action", "text_image_action"])
@pytest.mark.parametrize("formulation", ["policy_head", "interleaved", "one_step"])
@pytest.mark.parametrize("attention", ATTENTION)
def test_hidden_states_equal_an_explicit_softmax(attention, formulation, layout, padded):
    torch.manual_seed(0)
    model = Transformer(SMALL).eval()
    # GPT-2's start is too near the identity to test the attention.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.2
    given = sequence(formulation, layout, padded=padded, attention=attention)
    hidden = model(given).detach().numpy()
    count, length = given.tokens.shape[:2]
    for s in range(count):
        seen = visible(given, s)
        real = np.ones(length, bool) if given.mask is None else given.mask[s].numpy()
        expected = by_hand(model, given.tokens[s].double().numpy(), seen | ~real[:, None])
        np.testing.assert_allclose(hidden[s][real], expected[real], atol=2e-5)


def test_no_mask_reaches_the_kernel_where_attention_is_causal(monkeypatch):
    masks = []
    real = nn.functional.scaled_dot_product_attention

    def spy(q, k, v, mask, dropout, is_causal):
        masks.append(mask)
        return real(q, k, v, mask, dropout, is_causal=is_causal)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    Transformer(SMALL)(sequence("policy_head", "image_text_action", padded=True))
    assert masks == [None, None]


def test_rotary_scores_depend_on_distance_alone():
    q, k = torch.randn(8), torch.randn(8)
    rotation = rotary_angles(torch.arange(40)[None], 8)
    queries, keys = (rotate(x.expand(1, 1, 40, 8), rotation)[0, 0] for x in (q, k))
    scores = queries @ keys.T
    for distance in (-7, 0, 1, 20):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=1e-4)
    assert (scores[0] - scores[0, 0]).abs()[1:].max() > 0.1
    torch.testing.assert_close(queries.norm(dim=-1), q.norm().expand(40))


def test_rotary_angles_are_float32_whatever_the_default_type():
    torch.set_default_dtype(torch.bfloat16)
    try:
        cosine, _ = rotary_angles(torch.arange(600)[None], 8)
    finally:
        torch.set_default_dtype(torch.float32)
    assert cosine.dtype == torch.float32
    assert torch.equal(cosine, rotary_angles(torch.arange(600)[None], 8)[0])


def test_rotary_positions_stay_apart_in_bfloat16():
    cosine, sine = rotary_angles(torch.arange(600)[None], 8)
    assert cosine.dtype == sine.dtype == torch.float32
    expected = np.arange(600)[:, None] * 10_000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(sine[0, 0].numpy(), np.sin(expected), atol=1e-4)
    x = torch.randn(1, 3, 600, 8).bfloat16()
    # rounded once, at the end
    expected = rotate(x.float(), (cosine, sine)).bfloat16()
    assert torch.equal(rotate(x, (cosine, sine)), expected)


def test_learned_positions_tell_tokens_apart_and_end():
    model = Transformer(replace(SMALL, positions="learned", max_tokens=9)).eval()
    given = sequence("policy_head", "image_text_action", padded=False, attention="bidirectional")
    assert given.tokens.shape[1] == 9
    alike = replace(given, tokens=torch.ones_like(given.tokens))
    assert (model(alike)[0, 0] - model(alike)[0, 1]).abs().max() > 1e-3
    with pytest.raises(ConfigError, match=r"backbone\.max_tokens.* position 18 .* 8"):
        model(sequence("interleaved", "image_text_action", padded=False))


def test_learned_positions_go_on_behind_the_past_and_private_tokens_share_them():
    model = Transformer(replace(SMALL, positions="learned", max_tokens=20)).eval()
    observed = sequence("interleaved", "image_text_action", padded=False)  # 19 tokens
    past = model.remember(observed)
    more = TokenSequence(
        tokens=torch.randn(2, 4, 24),
        mask=None,
        frame=torch.full((2, 4), 2),
        kind=torch.full((2, 4), int(TokenKind.ACTION)),
        readout=torch.zeros(0, dtype=torch.int64),
    )
    with pytest.raises(ConfigError, match=r"max_tokens.* position 22 .* 19"):
        model.remember(more, past)
    # private to their frames, they do not count for one another, and the last is at position 19
    frame = torch.tensor([0, 1, 1, 2]).expand(2, -1)
    private = replace(more, frame=frame, private=torch.ones(2, 4, dtype=torch.bool))
    assert model.remember(private, past).tokens.shape[1] == 23


def test_gradient_checkpointing_changes_no_gradient():
    given, gradients = sequence("interleaved", "image_text_action", padded=True), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = Transformer(replace(SMALL, dropout=0.2))
        if checkpointing:
            recompute_blocks(model, "backbone")
        torch.manual_seed(3)  # the same dropout
        model(given).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert len(gradients[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_dropout_acts_in_training_alone():
    model = Transformer(replace(SMALL, dropout=0.5))
    given = sequence("policy_head", "image_text_action", padded=False)
    assert not torch.equal(model(given), model(given))
    model.eval()
    assert torch.equal(model(given), model(given))


def test_swiglu_and_gelu_cost_the_same():
    sizes = [
        sum(p.numel() for p in Transformer(replace(SMALL, activation=activation)).parameters())
        for activation in ("swiglu", "gelu")
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"heads": 5}, "heads = 5 .* width = 24"), ({"width": 9}, 'odd.*"learned"')],
)
def test_widths_that_do_not_divide_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **keys)
