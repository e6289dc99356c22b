"""The backbone and the action tokens: their contracts, and what is particular to them."""

from dataclasses import replace

import pytest
import torch

from core import ActionSpec, ConfigError, TokenGroup, TokenKind, attention_mask, token_positions
from core.testing import Setup, checks_for
from core.testing.backbone import sequence
from plugins.policies.vqbet.action_tokens import VQBeTTokens, VQBeTTokensConfig
from plugins.policies.vqbet.backbone import MinGPT, MinGPTConfig
from tests.contexts import noise

SMALL = MinGPTConfig(width=32, hidden_size=24, depth=2, heads=4, max_tokens=64)
TOKENS = VQBeTTokensConfig()
CHECKS = [
    *checks_for("backbone", MinGPT, SMALL),
    *checks_for("action_tokens", VQBeTTokens, TOKENS),
    *checks_for("action_tokens", VQBeTTokens, VQBeTTokensConfig(queries=1, proprio=False), Setup()),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_contract(check):
    check()


def test_a_sequence_beyond_the_last_position_is_refused():
    backbone = MinGPT(replace(SMALL, max_tokens=3))
    with pytest.raises(ConfigError, match=r"backbone\.max_tokens: .* positions end at 2; raise it"):
        backbone(sequence(32, 1, padded=False, causal=True))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads = 5 does not divide hidden_size = 24"):
        replace(SMALL, heads=5)


def lay_out(config=TOKENS, words=2):
    action = ActionSpec(window=2, horizon=7, dim=2)
    strategy = VQBeTTokens(config, width=8, action=action, proprio_dim=3)
    vision, text = TokenGroup(torch.zeros(3, 2, 1, 8)), TokenGroup(torch.zeros(3, words, 8))
    return strategy, strategy.layout(vision, text, torch.zeros(3, 2, 3), None, noise())


def test_the_order_of_tokens_and_their_positions():
    strategy, laid_out = lay_out()
    frame = [TokenKind.VISION, TokenKind.PROPRIO, *[TokenKind.ACTION] * 3]
    assert laid_out.kind[0].tolist() == [TokenKind.TEXT] * 2 + frame * 2
    assert laid_out.frame[0].tolist() == [0] * 7 + [1] * 5
    assert token_positions(laid_out)[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9]
    assert laid_out.readout[1].tolist() == [[16, 17, 18], [21, 22, 23]]
    queries = laid_out.tokens.flatten(0, 1)[laid_out.readout]
    assert torch.equal(queries, strategy.query.expand_as(queries))


def test_further_queries_are_seen_by_their_frame_alone():
    mask = attention_mask(lay_out(words=0)[1])[0, 0]
    further = torch.tensor([3, 4])
    assert not mask[5:, further].any(), "the second frame"
    assert mask[4, further].all()
    assert mask[7:, 2].all(), "the first query is seen by later frames"


def test_without_further_queries_attention_is_plainly_causal():
    assert attention_mask(lay_out(replace(TOKENS, queries=1))[1]) is None


def test_proprioception_that_is_not_recorded_is_refused():
    action = ActionSpec(window=2, horizon=7, dim=2)
    with pytest.raises(ConfigError, match=r"action_tokens\.proprio is true, and the data record"):
        VQBeTTokens(TOKENS, width=8, action=action, proprio_dim=0)
