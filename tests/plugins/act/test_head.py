"""The head on its own: its contract, its loss, and other backbones and layouts around it."""

from dataclasses import replace

import pytest
import torch

from core import ActionSpec, ConfigError, ContextSpec, masked_mse
from core.policy.assembly import build_policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, windows
from plugins.policies.act.head import ACTHead, ACTHeadConfig
from tests.contexts import noise
from tests.core.policy.test_policy import CAMERAS, INSTRUCTIONS, RECIPE, batch_of as text_batch
from tests.one_batch import assert_overfits_one_batch
from tests.plugins.act import policies

SMALL = ACTHeadConfig(heads=4, mlp_width=24, dropout=0.0)
MIXED = ActionSpec(window=3, horizon=4, dim=5, binary=(1, 3))
SETTINGS = [
    (replace(SMALL, dropout=0.1), Setup(action=MIXED)),
    (replace(SMALL, layers=2), Setup(action=ActionSpec(window=2, horizon=3, dim=3), tokens=1)),
    (replace(SMALL, average="all"), Setup(action=ActionSpec(1, 1, 2, bounded=False))),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(SETTINGS)
    for check in checks_for("policy_head", ACTHead, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def test_one_batch_is_overfitted():
    assert_overfits_one_batch(ACTHead, SMALL, learning_rate=3e-3)


def make(config=SMALL, action=MIXED):
    torch.manual_seed(0)
    return ACTHead(config, context=ContextSpec(32, 2), action=action).eval()


def test_the_loss_is_the_mean_absolute_error_of_what_counts():
    given, head = Setup(action=MIXED), make()
    context, batch = context_of(given, windows(given)), stand_in.batch(given)
    target = batch.actions.clone()
    target[..., [1, 3]] = 2 * target[..., [1, 3]] - 1
    error = (head._decode(context) - target).abs()
    counted = head.loss(context, batch, noise())["action"]
    torch.testing.assert_close(counted, error[batch.action_mask].mean())
    averaged = make(replace(SMALL, average="all")).loss(context, batch, noise())["action"]
    torch.testing.assert_close(averaged, (error * batch.action_mask).mean())


def test_positions_of_tokens_reach_the_keys():
    given, head = Setup(action=MIXED), make()
    context = context_of(given, windows(given))
    sequence = context.memory.sequence
    placed = replace(sequence, position_embedding=torch.randn(sequence.tokens.shape))
    moved = replace(context, memory=replace(context.memory, sequence=placed))
    assert not torch.allclose(head(moved, noise()), head(context, noise()), atol=1e-3)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"policy_head\.heads: 5 does not divide"):
        make(replace(SMALL, heads=5))


# ----------------------------------------------------------------------------------- a whole policy


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_it_works_with_a_transformer_and_learned_tokens(tmp_path, formulation):
    """The error of the actions falls below a twentieth, through parts that are not ACT's."""
    section = '[policy_head]\nname = "act"\nheads = 4\nmlp_width = 64\ndropout = 0.0\n'
    (tmp_path / "recipe.toml").write_text(RECIPE.partition("[policy_head]")[0] + section)
    overrides = [f"action_tokens.formulation={formulation}", "data.window=3"]
    recipe = load_recipe(tmp_path / "recipe.toml", overrides, load_plugins())
    torch.manual_seed(0)
    spec = ActionSpec(window=3, horizon=3, dim=4, binary=(3,))
    policy = build_policy(recipe, CAMERAS, spec, proprio_dim=5)
    batch = text_batch(policy, 3, INSTRUCTIONS[:2])
    batch.actions[..., :3] = torch.rand(2, 3, 3, 3) * 2 - 1
    assert remaining_error(policy, batch, 120) < 0.05


@pytest.mark.parametrize("cvae", ["true", "false"])
def test_acts_parts_overfit_a_batch(tmp_path, cvae):
    overrides = (f"action_tokens.cvae={cvae}", "vision_encoder.norm=group")
    policy = policies.build(tmp_path, *overrides)
    assert remaining_error(policy, policies.batch_of(), 250) < 0.05


def remaining_error(policy, batch, steps):
    """The share of the actions' squared error that remains after training on one batch."""

    @torch.no_grad()
    def error():
        return masked_mse(policy.eval().predict(batch, noise()), *batch.targets).item()

    before = error()
    optimizer = torch.optim.AdamW(policy.train().parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.02, total_iters=steps)
    for step in range(steps):
        optimizer.zero_grad()
        policy(batch, noise(step)).losses["total"].backward()
        optimizer.step()
        schedule.step()
    return error() / before
