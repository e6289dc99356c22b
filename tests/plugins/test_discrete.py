"""The discrete head: bins against numpy, losses against torch in float64, overfitting a batch."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given as for_all, settings, strategies as st
from torch.nn import functional as F

from core import ActionSpec, ConfigError, ContextSpec
from core.policy.assembly import build_policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, windows
from plugins.heads.discrete import DiscreteConfig, DiscreteHead, bin_of, centre_of
from tests.contexts import context_from, noise
from tests.core.policy.test_policy import CAMERAS, INSTRUCTIONS, RECIPE, batch_of, window_of
from tests.one_batch import assert_overfits_one_batch

SMALL = DiscreteConfig(bins=16, mlp=(12,))
MIXED = ActionSpec(window=3, horizon=4, dim=5, binary=(1, 3))
CONTINUOUS = ActionSpec(window=3, horizon=2, dim=3)
BINARY = ActionSpec(window=2, horizon=2, dim=2, binary=(0, 1), bounded=False)
SETTINGS = [
    (DiscreteConfig(), Setup()),
    (replace(SMALL, decode="mean"), Setup(action=MIXED)),
    (replace(SMALL, bins=2, mlp=()), Setup(action=CONTINUOUS, tokens=1)),
    (replace(SMALL, bins=7, mlp=(12, 8)), Setup(action=replace(MIXED, window=1))),
    (SMALL, Setup(action=BINARY)),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(SETTINGS)
    for check in checks_for("policy_head", DiscreteHead, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def test_one_batch_is_overfitted():
    assert_overfits_one_batch(DiscreteHead, SMALL)


def make(config=SMALL, action=MIXED, width=6):
    torch.manual_seed(0)
    return DiscreteHead(config, context=ContextSpec(width, 2), action=action).eval()


def by_hand(head, readout):
    """Logits of the bins (B T H 3 16) and of the binary dimensions (B T H 2), in float64."""
    first, _, last = head.mlp
    hidden = F.gelu(F.linear(readout.double().mean(2), first.weight.double(), first.bias.double()))
    steps = F.linear(hidden, last.weight.double(), last.bias.double()).unflatten(
        -1, (4, 3 * 16 + 2)
    )
    return steps[..., :48].unflatten(-1, (3, 16)).detach(), steps[..., 48:].detach()


# --------------------------------------------------------------------------------------------- bins


@settings(deadline=None)
@for_all(
    bins=st.integers(2, 1024), values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50)
)
def test_a_value_comes_back_within_half_a_bin(bins, values):
    edges = np.linspace(-1, 1, bins + 1)  # float64
    centres = (edges[:-1] + edges[1:]) / 2
    index = bin_of(torch.tensor(values), bins)
    decoded = centre_of(index, bins)
    np.testing.assert_allclose(decoded, centres[index.numpy()], atol=2e-7)
    assert np.abs(decoded.double().numpy() - np.array(values)).max() <= 1 / bins + 1e-6


@settings(deadline=None)
@for_all(bins=st.integers(2, 1024))
def test_every_centre_falls_into_its_own_bin(bins):
    index = torch.arange(bins)
    assert torch.equal(bin_of(centre_of(index, bins), bins), index)


@pytest.mark.parametrize("bins", [2, 3, 255, 256, 1000])
def test_the_ends_fall_into_the_first_and_last_bin(bins):
    ends = torch.tensor([-1.0, 1.0, -1.5, 1.5])
    assert bin_of(ends, bins).tolist() == [0, bins - 1, 0, bins - 1]


def test_bins_equal_numpys_digitize():
    edges = np.linspace(-1, 1, 16 + 1)
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert np.array_equal(bin_of(values, 16), np.digitize(values.double(), edges) - 1)


# ------------------------------------------------------------------------------- actions and losses


@pytest.mark.parametrize("decode", ["argmax", "mean"])
def test_actions_equal_numpy(decode):
    head, readout = make(replace(SMALL, decode=decode)), torch.randn(2, 3, 2, 6)
    logits, binary = (x.numpy() for x in by_hand(head, readout))
    centres = (np.arange(16) + 0.5) / 8 - 1
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.zeros((2, 3, 4, 5))
    expected[..., [0, 2, 4]] = (
        centres[logits.argmax(-1)] if decode == "argmax" else chances @ centres
    )
    expected[..., [1, 3]] = 1 / (1 + np.exp(-binary))
    np.testing.assert_allclose(
        head(context_from(readout), noise()).detach().numpy(), expected, atol=1e-6
    )


def test_losses_equal_torchs_cross_entropy():
    head, given = make(replace(SMALL, gripper_weight=0.25)), Setup(width=6, action=MIXED)
    context, batch = context_of(given, windows(given)), stand_in.batch(given)
    logits, binary = by_hand(head, context.readout)
    actions, mask = batch.actions.double(), batch.action_mask
    target = torch.from_numpy(np.digitize(actions[..., [0, 2, 4]], np.linspace(-1, 1, 17)[1:-1]))
    terms = head.loss(context, batch, noise())
    assert set(terms) == {"pose", "gripper"}
    of_pose, of_gripper = mask[..., [0, 2, 4]], mask[..., [1, 3]]
    pose = F.cross_entropy(logits[of_pose], target[of_pose])
    gripper = F.binary_cross_entropy_with_logits(
        binary[of_gripper], actions[..., [1, 3]][of_gripper]
    )
    torch.testing.assert_close(terms["pose"].double(), pose, rtol=1e-5, atol=0)
    torch.testing.assert_close(terms["gripper"].double(), 0.25 * gripper, rtol=1e-5, atol=0)


def test_losses_are_zero_where_all_is_masked():
    head, given = make(), Setup(width=6, action=MIXED)
    batch = stand_in.batch(given)
    nothing = replace(batch, action_mask=torch.zeros_like(batch.action_mask))
    terms = head.loss(context_of(given, windows(given)), nothing, noise())
    assert all(term == 0 for term in terms.values())


@pytest.mark.parametrize(("action", "names"), [(CONTINUOUS, {"pose"}), (BINARY, {"gripper"})])
def test_each_kind_of_dimension_has_its_term(action, names):
    given = Setup(width=6, action=action)
    assert (
        set(
            make(action=action).loss(
                context_of(given, windows(given)), stand_in.batch(given), noise()
            )
        )
        == names
    )


def test_training_begins_with_all_bins_about_equally_likely():
    given = Setup(width=64, action=MIXED)
    head = make(DiscreteConfig(), width=64)
    pose = head.loss(context_of(given, windows(given)), stand_in.batch(given), noise())["pose"]
    assert pose.item() == pytest.approx(math.log(256), rel=0.02)


# ----------------------------------------------------------------------------------- a whole policy


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved", "one_step"])
def test_a_policy_overfits_a_batch(tmp_path, formulation):
    """Every action ends up within half a bin of its target, and every gripper is right."""
    policy, batch = policy_and_batch(tmp_path, formulation)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        policy(batch, noise()).losses["total"].backward()
        optimizer.step()
    with torch.no_grad():
        actions = policy.eval().predict(batch, noise())
    assert (actions - batch.actions)[..., :3].abs().max() <= 1 / 8 + 1e-6
    assert torch.equal(actions[..., 3] > 0.5, batch.actions[..., 3] == 1)


def policy_and_batch(tmp_path, formulation):
    """The small policy of core's tests with this head, and a batch with actions in [-1, 1]."""
    window = window_of(formulation)
    section = '[policy_head]\nname = "discrete"\nbins = 8\nmlp = [64]\n'
    (tmp_path / "recipe.toml").write_text(RECIPE.partition("[policy_head]")[0] + section)
    overrides = [f"action_tokens.formulation={formulation}", f"data.window={window}"]
    recipe = load_recipe(tmp_path / "recipe.toml", overrides, load_plugins())
    torch.manual_seed(0)
    spec = ActionSpec(window=window, horizon=3, dim=4, binary=(3,))
    policy = build_policy(recipe, CAMERAS, spec, proprio_dim=5)
    batch = batch_of(policy, window, INSTRUCTIONS[:2])
    batch.actions[..., :3] = torch.rand(2, window, 3, 3) * 2 - 1
    return policy, batch


# ----------------------------------------------------------------------------------------- mistakes


def test_unbounded_actions_are_refused():
    with pytest.raises(
        ConfigError, match=r'policy_head\.name.*action\.normalization = "min_max" or "clip_range"'
    ):
        make(action=replace(MIXED, bounded=False))


def test_a_single_bin_is_refused_by_the_recipe(tmp_path):
    section = '[policy_head]\nname = "discrete"\nbins = 1\n'
    (tmp_path / "recipe.toml").write_text(RECIPE.partition("[policy_head]")[0] + section)
    with pytest.raises(ConfigError, match=r"policy_head\.bins"):
        load_recipe(tmp_path / "recipe.toml", [], load_plugins())


def test_loss_without_actions_says_so():
    given = Setup(width=6, action=MIXED)
    with pytest.raises(ValueError, match=r"batch\.actions"):
        make().loss(
            context_of(given, windows(given)),
            replace(stand_in.batch(given), actions=None),
            noise(),
        )
