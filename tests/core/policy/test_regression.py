"""Regressed chunks: actions and losses by hand, and actions that cannot be regressed."""

import pytest
import torch

from core import ActionSpec, Batch, ChunkRegression, ConfigError

ACTION = ActionSpec(window=1, horizon=2, dim=3, binary=(1,))


def regression(action=ACTION, loss="l1", tanh=False) -> ChunkRegression:
    return ChunkRegression(action, loss=loss, gripper_weight=0.5, tanh=tanh)


def batch_of(actions, mask) -> Batch:
    return Batch({}, [""], torch.zeros(1, 1), None, None, actions, mask)


def test_outputs_become_the_steps_of_a_chunk():
    chunk = regression()
    assert (chunk.pose_size, chunk.gripper_size) == (4, 2)
    pose, gripper = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([[[0.0, torch.inf]]])
    assert chunk.actions(pose, gripper).tolist() == [[[[1.0, 0.5, 2.0], [3.0, 1.0, 4.0]]]]
    bounded = regression(tanh=True).actions(pose, gripper)[..., [0, 2]]
    torch.testing.assert_close(bounded, pose.view(1, 1, 2, 2).tanh())


def test_masked_actions_do_not_count():
    actions = torch.tensor([[[[1.0, 1.0, 5.0], [9.0, 0.0, 9.0]]]])
    mask = torch.tensor([[[[True, True, True], [False, False, False]]]])
    terms = regression().losses(torch.zeros(1, 1, 4), torch.zeros(1, 1, 2), batch_of(actions, mask))
    assert terms["pose"].item() == 3
    torch.testing.assert_close(terms["gripper"], 0.5 * torch.tensor(2.0).log())


def test_without_binary_dimensions_there_is_one_loss():
    chunk = regression(ActionSpec(window=1, horizon=2, dim=2))
    actions = torch.ones(1, 1, 2, 2)
    assert chunk.gripper_size == 0
    assert set(chunk.losses(actions.flatten(2), None, batch_of(actions, actions > 0))) == {"pose"}


def test_actions_that_cannot_be_regressed_are_refused():
    with pytest.raises(ConfigError, match=r"policy_head\.name: .*continuous.*discrete"):
        regression(ActionSpec(window=1, horizon=1, dim=1, binary=(0,)))
    with pytest.raises(ConfigError, match=r"policy_head\.tanh: .*action\.normalization"):
        regression(ActionSpec(window=1, horizon=1, dim=1, bounded=False), tanh=True)


def test_half_precision_ends_before_the_bound():
    pose = torch.full((1, 1, 4), 4.0, dtype=torch.bfloat16, requires_grad=True)
    actions = regression(tanh=True).actions(pose, torch.zeros(1, 1, 2, dtype=torch.bfloat16))
    assert actions.dtype == torch.float32
    actions.sum().backward()
    assert (pose.grad > 0).all()  # in bfloat16, tanh(4) is 1, where the gradient is 0
