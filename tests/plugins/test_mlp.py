"""The MLP head: the LSTM head without its LSTM, losses against numpy, and no memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core import ActionSpec, ConfigError, ContextSpec
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, windows
from plugins.heads.mlp import MLPConfig, MLPHead
from tests.contexts import context_from, noise
from tests.one_batch import assert_overfits_one_batch
from tests.two_modes import CONTINUOUS, MIXED, assert_two_modes

SMALL = MLPConfig(mlp=(32, 16))
ACTION = ActionSpec(window=3, horizon=4, dim=5, binary=(1, 3))
SETTINGS = [
    (SMALL, Setup(action=ACTION)),
    (replace(SMALL, loss="l1", mlp=()), CONTINUOUS),
    (replace(SMALL, by_step=True), Setup(action=ACTION, tokens=8)),
    (replace(SMALL, by_step=True, mlp=()), Setup(action=replace(ACTION, horizon=1), tokens=3)),
    (replace(SMALL, tanh=False), Setup(action=replace(ACTION, window=1, bounded=False), tokens=1)),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(SETTINGS)
    for check in checks_for("policy_head", MLPHead, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def test_one_batch_is_overfitted():
    assert_overfits_one_batch(MLPHead, SMALL)


@pytest.mark.parametrize("setup", [CONTINUOUS, MIXED])
def test_a_regression_stands_between_two_modes(setup):
    with pytest.raises(AssertionError, match="in between"):
        assert_two_modes(MLPHead, SMALL, steps=100, setup=setup)


def make(config=SMALL, action=ACTION):
    torch.manual_seed(0)
    return MLPHead(config, context=ContextSpec(6, 2), action=action).eval()


def by_hand(mlp, x):
    """Linear, ReLU, ..., linear in float64."""
    linears = [layer for layer in mlp if isinstance(layer, torch.nn.Linear)]
    for i, layer in enumerate(linears):
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        x = np.maximum(x, 0) if i + 1 < len(linears) else x
    return x.reshape(*x.shape[:2], 4, -1)


def test_actions_and_losses_equal_numpy():
    head, given = (
        make(replace(SMALL, loss="mse", gripper_weight=0.25)),
        Setup(action=ACTION, width=6),
    )
    context, batch = context_of(given, windows(given)), stand_in.batch(given)
    features = context.readout.detach().double().numpy().mean(2)
    pose, logits = np.tanh(by_hand(head.pose, features)), by_hand(head.gripper, features)
    actions = head(context, noise()).detach().numpy()
    np.testing.assert_allclose(actions[..., [0, 2, 4]], pose, atol=1e-6)
    np.testing.assert_allclose(actions[..., [1, 3]], 1 / (1 + np.exp(-logits)), atol=1e-6)

    target, mask = batch.actions.double().numpy(), batch.action_mask.numpy()
    error = ((pose - target[..., [0, 2, 4]]) ** 2)[mask[..., [0, 2, 4]]].mean()
    entropy = (np.logaddexp(0, logits) - logits * target[..., [1, 3]])[mask[..., [1, 3]]].mean()
    terms = {name: term.item() for name, term in head.loss(context, batch, noise()).items()}
    assert terms == pytest.approx({"pose": error, "gripper": 0.25 * entropy}, rel=1e-5)


def test_each_step_reads_its_own_tokens():
    head = MLPHead(replace(SMALL, by_step=True), context=ContextSpec(6, 8), action=ACTION)
    readout = torch.randn(2, 3, 8, 6, requires_grad=True)
    actions = head(context_from(readout), noise())
    (gradient,) = torch.autograd.grad(actions[:, :, 2].sum(), readout)
    reads = gradient.abs().sum(dim=(0, 1, 3)) > 0
    assert reads.tolist() == [False] * 4 + [True] * 2 + [False] * 2


@pytest.mark.parametrize("tokens", [0, 1, 6])
def test_steps_need_tokens_of_their_own(tokens):
    with pytest.raises(ConfigError, match=r"policy_head\.by_step: each of 4 actions needs"):
        MLPHead(replace(SMALL, by_step=True), context=ContextSpec(6, tokens), action=ACTION)


def test_a_frame_is_acted_on_alone():
    head, readout = make(), torch.randn(2, 3, 2, 6)
    whole = head(context_from(readout), noise())
    alone = head(context_from(readout[:, 1:2]), noise())
    torch.testing.assert_close(alone, whole[:, 1:2])
    assert head.initial_state(2) == {}


def test_tanh_refuses_unbounded_actions():
    with pytest.raises(ConfigError, match=r"policy_head\.tanh.*action\.normalization"):
        make(action=replace(ACTION, bounded=False))


def test_loss_without_actions_says_so():
    given = Setup(action=ACTION, width=6)
    with pytest.raises(ValueError, match=r"batch\.actions"):
        make().loss(
            context_of(given, windows(given)),
            replace(stand_in.batch(given), actions=None),
            noise(),
        )
