"""The layout with a latent: its contract, positions, and what the CVAE adds to training."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from core import ActionSpec, ConfigError, TokenGroup, TokenKind
from core.testing import Setup, checks_for
from plugins.policies.act.action_tokens import ACTTokens, ACTTokensConfig
from plugins.policies.act.cvae import divergence
from plugins.policies.act.layers import sines_of_grid
from tests.contexts import noise
from tests.plugins.act.policies import ACTION, batch_of

SMALL = ACTTokensConfig(latent_width=4, layers=1, heads=4, mlp_width=24, dropout=0.0)
SETTINGS = [
    (replace(SMALL, dropout=0.1), Setup()),
    (replace(SMALL, proprio=False, layers=2), Setup(text_prefix=0)),
    (replace(SMALL, cvae=False), Setup(action=ActionSpec(window=1, horizon=2, dim=3))),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(SETTINGS)
    for check in checks_for("action_tokens", ACTTokens, config, given)
]
WIDTH = 16


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def make(config=SMALL, width=WIDTH, proprio_dim=3):
    torch.manual_seed(0)
    return ACTTokens(config, width=width, action=ACTION, proprio_dim=proprio_dim).eval()


def lay_out(strategy, batch=None, grid=None, seed=0):
    vision = TokenGroup(torch.ones(3, 1, 4, WIDTH), grid=grid)
    text = TokenGroup(torch.zeros(3, 0, WIDTH))
    return strategy.layout(vision, text, batch_of().proprio, batch, noise(seed))


def test_latent_and_proprioception_stand_before_the_images():
    sequence = lay_out(make())
    kinds = [TokenKind.ACTION, TokenKind.PROPRIO, *[TokenKind.VISION] * 4]
    assert sequence.kind.tolist() == [kinds] * 3
    assert sequence.readout.flatten().tolist() == [0, 6, 12]


def test_places_of_images_are_sines_and_the_others_are_learned():
    grid = torch.tensor([[0, 0], [0, 1], [0, 0], [0, 1]])  # two maps
    strategy = make()
    embedding = lay_out(strategy, grid=grid).position_embedding[0]
    assert torch.equal(embedding[:2], strategy.positions)
    assert torch.equal(embedding[2:], sines_of_grid(grid, WIDTH))
    assert torch.equal(embedding[2:4], embedding[4:])
    assert not embedding[2].equal(embedding[3])


def test_tokens_without_a_place_have_no_position():
    assert not lay_out(make()).position_embedding[0, 2:].any()
    assert not sines_of_grid(torch.tensor([[-1, -1], [0, 0]]), WIDTH)[0].any()


def test_the_latent_is_zero_when_acting_and_drawn_in_training():
    strategy, batch = make(), batch_of()
    acting = lay_out(strategy).tokens[:, 0]
    assert torch.equal(acting, strategy.latent_projection.bias.expand(3, -1))
    first, again, other = (lay_out(strategy, batch, seed=seed).tokens[:, 0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_latent_knows_the_actions():
    strategy, batch = make(), batch_of()
    changed = replace(batch, actions=batch.actions + 1)
    before, after = (lay_out(strategy, x).tokens for x in (batch, changed))
    assert not torch.allclose(before[:, 0], after[:, 0])
    assert torch.equal(before[:, 1:], after[:, 1:])


def test_the_divergence_is_torchs():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 4, generator=generator)
    exact = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0, 1)).sum(-1)
    torch.testing.assert_close(divergence(mean, log_variance), exact)


def test_the_divergence_is_weighted_and_belongs_to_training_alone():
    term = lay_out(make(), batch_of()).losses["kl"]
    half = lay_out(make(replace(SMALL, kl_weight=5.0)), batch_of()).losses["kl"]
    torch.testing.assert_close(half, term / 2)
    batch = batch_of()
    frames = torch.arange(len(batch.actions)) > 0
    others = replace(batch, action_mask=batch.action_mask & frames.view(-1, 1, 1, 1))
    changed = replace(others, proprio=batch.proprio * frames.view(-1, 1, 1))
    terms = [lay_out(make(), b).losses["kl"] for b in (others, changed)]
    assert terms[0] != term, "a frame without actions has no part in it"
    torch.testing.assert_close(*terms)
    assert not lay_out(make()).losses
    assert not lay_out(make(replace(SMALL, cvae=False)), batch_of()).losses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proprio_dim": 0}, r"action_tokens\.proprio is true"),
        ({"width": 18}, r"backbone\.width: 18 is no multiple of 4"),
        ({"config": replace(SMALL, heads=5)}, r"action_tokens\.heads: 5 does not divide"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)
