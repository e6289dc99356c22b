"""The LSTM head: actions against torch.nn.LSTM, losses against numpy, size against RoboVLMs'."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core import ActionSpec, ConfigError, ContextSpec
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_of, windows
from plugins.heads.lstm import LSTMConfig, LSTMHead
from tests.contexts import context_from, noise
from tests.one_batch import assert_overfits_one_batch
from tests.two_modes import assert_two_modes

SMALL = LSTMConfig(layers=2, hidden_size=16, mlp=(12, 8))
MIXED = ActionSpec(window=3, horizon=4, dim=5, binary=(1, 3))
CONTINUOUS = ActionSpec(window=3, horizon=2, dim=3)
SETTINGS = [
    (SMALL, MIXED),
    (replace(SMALL, loss="mse", tanh=False), replace(MIXED, bounded=False)),
    (replace(SMALL, layers=1, mlp=()), CONTINUOUS),
    (replace(SMALL, dropout=0.3), replace(MIXED, window=2)),
    (replace(SMALL, memory="episode"), MIXED),
    (replace(SMALL, memory="episode", layers=1), CONTINUOUS),
    (replace(SMALL, memory="episode", span=20, skip=True), MIXED),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, action) in enumerate(SETTINGS)
    for check in checks_for("policy_head", LSTMHead, config, Setup(action=action))
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def test_one_batch_is_overfitted():
    assert_overfits_one_batch(LSTMHead, replace(SMALL, hidden_size=32, mlp=(32,)))


def test_a_regression_stands_between_two_modes():
    with pytest.raises(AssertionError, match="in between"):
        assert_two_modes(LSTMHead, SMALL, steps=100)


def make(config=SMALL, action=MIXED, width=6):
    torch.manual_seed(0)
    return LSTMHead(config, context=ContextSpec(width, 2), action=action).eval()


def perceptron(mlp, x):
    """Linear, ReLU, ..., linear in float64."""
    linears = [layer for layer in mlp if isinstance(layer, torch.nn.Linear)]
    for i, layer in enumerate(linears):
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        x = np.maximum(x, 0) if i + 1 < len(linears) else x
    return x


def by_hand(head, readout):
    """Pose and gripper logits (B T H A), by torch.nn.LSTM and then numpy in float64."""
    lstm = torch.nn.LSTM(readout.shape[-1], 16, 2, batch_first=True)
    lstm.load_state_dict(
        {name: weight.detach().clone() for name, weight in head.lstm.state_dict().items()}
    )
    features = readout.double().mean(2)
    hidden = lstm.double()(features)[0].detach().numpy()
    if head.skip:
        hidden = np.concatenate([hidden, features.detach().numpy()], axis=-1)
    shape = (*hidden.shape[:2], 4, -1)
    return np.tanh(perceptron(head.pose, hidden).reshape(shape)), perceptron(
        head.gripper, hidden
    ).reshape(shape)


@pytest.mark.parametrize("skip", [False, True])
def test_actions_equal_an_lstm_by_hand(skip):
    head, readout = make(replace(SMALL, skip=skip)), torch.randn(2, 3, 2, 6)
    pose, logits = by_hand(head, readout)
    expected = np.zeros((2, 3, 4, 5))
    expected[..., [0, 2, 4]] = pose
    expected[..., [1, 3]] = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(
        head(context_from(readout), noise()).detach().numpy(), expected, atol=1e-6
    )


def kept_after(frames, span):
    """Shares of the contents of 256 cells that remain after frames without any input."""
    head = make(replace(SMALL, layers=1, hidden_size=256, span=span))
    state = {"h": torch.zeros(1, 1, 256), "c": torch.ones(1, 1, 256)}
    zeros = torch.zeros_like(head.lstm.weight_hh_l0)
    with torch.no_grad():
        head.lstm.weight_hh_l0.copy_(zeros)  # otherwise a cell also hears the others
        head.lstm.bias_hh_l0[512:768] = head.lstm.bias_ih_l0[512:768] = 0  # nothing new comes in
        _, after = head.lstm.run(torch.zeros(1, frames, 6), state)
    return after["c"].flatten()


def test_span_lets_cells_remember():
    assert kept_after(20, None).max() < 1e-4
    kept = kept_after(20, 100)
    # with 1 / e left after the cell's span: about log(100 / 20) / log(100 / 2) of the cells
    assert 0.3 < (kept > np.exp(-1)).float().mean() < 0.5
    assert kept.max() < np.exp(-20 / 100) + 0.01
    assert (kept < 1e-4).float().mean() > 0.1  # and some forget at once


@pytest.mark.parametrize("loss", ["huber", "mse", "l1"])
def test_losses_equal_numpy(loss):
    head = make(replace(SMALL, loss=loss, gripper_weight=0.25))
    given = Setup(width=6, action=MIXED)
    context, batch = context_of(given, windows(given)), stand_in.batch(given)
    batch = replace(batch, actions=batch.actions * 3)  # beyond Huber's knee at 1
    pose, logits = by_hand(head, context.readout)
    target, mask = batch.actions.double().numpy(), batch.action_mask.numpy()
    error = np.abs(pose - target[..., [0, 2, 4]])
    huber = np.where(error < 1, error**2 / 2, error - 0.5)
    pose_loss = {"mse": error**2, "l1": error, "huber": huber}[loss]
    gripper_loss = np.logaddexp(0, logits) - logits * target[..., [1, 3]]
    terms = head.loss(context, batch, noise())
    assert set(terms) == {"pose", "gripper"}
    np.testing.assert_allclose(
        terms["pose"].item(), pose_loss[mask[..., [0, 2, 4]]].mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        terms["gripper"].item(), 0.25 * gripper_loss[mask[..., [1, 3]]].mean(), rtol=1e-5
    )


def test_every_frame_is_supervised():
    head, given = make(), Setup(width=6, action=MIXED)
    readout = torch.randn(3, 3, 2, 6, requires_grad=True)
    batch = stand_in.batch(given)
    for t in range(3):
        mask = torch.zeros_like(batch.action_mask)
        mask[:, t] = True
        terms = head.loss(context_from(readout), replace(batch, action_mask=mask), noise())
        sum(terms.values()).backward()
        assert readout.grad[:, t].any()
        readout.grad = None


def test_without_binary_dimensions_there_is_no_gripper():
    head, given = make(action=CONTINUOUS), Setup(width=6, action=CONTINUOUS)
    terms = head.loss(context_of(given, windows(given)), stand_in.batch(given), noise())
    assert set(terms) == {"pose"}
    assert not [name for name in head.state_dict() if name.startswith("gripper")]


def test_tanh_bounds_the_continuous_dimensions_alone():
    context = context_from(torch.randn(2, 3, 1, 6) * 100)
    free = make(replace(SMALL, tanh=False))
    with torch.no_grad():
        free.pose[-1].bias += 5
        assert free(context, noise())[..., [0, 2, 4]].max() > 1
        bounded = make()
        bounded.load_state_dict(free.state_dict())
        torch.testing.assert_close(
            bounded(context, noise())[..., 0], free(context, noise())[..., 0].tanh()
        )
        assert torch.equal(bounded(context, noise())[..., 1], free(context, noise())[..., 1])


def test_acting_forgets_what_lies_before_the_window():
    head, readout = make(), torch.randn(2, 7, 2, 6)
    state = head.initial_state(2)
    for t in range(7):
        actions, state = head.act(context_from(readout[:, t : t + 1]), state, noise())
        assert state["count"].tolist() == [min(t + 1, 3)] * 2
        window = head(context_from(readout[:, max(0, t - 2) : t + 1]), noise())
        torch.testing.assert_close(actions, window[:, -1])


def test_with_an_episode_for_memory_acting_forgets_nothing():
    head, readout = make(replace(SMALL, memory="episode")), torch.randn(2, 7, 2, 6)
    whole = head(context_from(readout), noise())
    state = head.initial_state(2)
    assert {name: x.shape for name, x in state.items()} == {"h": (2, 2, 16), "c": (2, 2, 16)}
    for t in range(7):
        actions, state = head.act(context_from(readout[:, t : t + 1]), state, noise())
        torch.testing.assert_close(actions, whole[:, t])


def test_without_a_carried_state_both_memories_compute_the_same():
    readout = torch.randn(2, 3, 2, 6)
    actions = [
        make(replace(SMALL, memory=memory))(context_from(readout), noise())
        for memory in ("window", "episode")
    ]
    assert torch.equal(*actions)


def test_a_row_that_begins_anew_forgets_and_the_others_remember():
    head, readout = make(), torch.randn(2, 6, 2, 6)
    state = head.initial_state(2)
    for t in range(6):
        if t == 4:
            state = {
                name: torch.cat([head.initial_state(1)[name], x[1:]]) for name, x in state.items()
            }
        actions, state = head.act(context_from(readout[:, t : t + 1]), state, noise())
    fresh = head(context_from(readout[:1, 4:6]), noise())[:, -1]
    going_on = head(context_from(readout[1:, 3:6]), noise())[:, -1]
    torch.testing.assert_close(actions, torch.cat([fresh, going_on]))


def test_size_is_that_of_robovlms():
    head = LSTMHead(
        LSTMConfig(),
        context=ContextSpec(2048, 1),
        action=ActionSpec(window=8, horizon=10, dim=7, binary=(6,)),
    )
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 2) == 41.21


def test_tanh_refuses_unbounded_actions():
    with pytest.raises(ConfigError, match=r"policy_head\.tanh.*action\.normalization"):
        make(action=replace(MIXED, bounded=False))


def test_an_action_without_continuous_dimensions_is_refused():
    with pytest.raises(ConfigError, match="continuous"):
        make(action=ActionSpec(window=1, horizon=1, dim=1, binary=(0,)))


def test_dropout_without_a_second_layer_is_refused():
    with pytest.raises(ValueError, match="dropout"):
        LSTMConfig(layers=1, dropout=0.1)


def test_loss_without_actions_says_so():
    given = Setup(width=6, action=MIXED)
    with pytest.raises(ValueError, match=r"batch\.actions"):
        make().loss(
            context_of(given, windows(given)),
            replace(stand_in.batch(given), actions=None),
            noise(),
        )
