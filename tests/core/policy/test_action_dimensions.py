"""Continuous and binary dimensions of an action, apart and together."""

import pytest
import torch
from hypothesis import given, strategies as st

from core import ActionDimensions, ActionSpec


def action_with(dim: int, binary: tuple[int, ...]) -> ActionSpec:
    return ActionSpec(window=1, horizon=2, dim=dim, binary=binary)


def test_dimensions_are_split_by_kind():
    actions = torch.tensor([[[[10.0, 11.0, 12.0, 13.0, 14.0]]]])
    continuous, binary = ActionDimensions(action_with(5, (1, 3))).split(actions)
    assert continuous.tolist() == [[[[10.0, 12.0, 14.0]]]]
    assert binary.tolist() == [[[[11.0, 13.0]]]]


def test_masks_are_split_like_actions():
    mask = torch.tensor([[True, False, True]])
    continuous, binary = ActionDimensions(action_with(3, (0,))).split(mask)
    assert continuous.tolist() == [[False, True]]
    assert binary.tolist() == [[True]]


@given(dim=st.integers(1, 9), data=st.data())
def test_what_was_split_is_joined_in_its_order(dim, data):
    binary = tuple(sorted(data.draw(st.sets(st.integers(0, dim - 1)))))
    dimensions = ActionDimensions(action_with(dim, binary))
    actions = torch.arange(2.0 * dim).view(2, dim)
    assert torch.equal(dimensions.join(*dimensions.split(actions)), actions)


@pytest.mark.parametrize("binary", [(), (0, 1, 2)])
def test_a_kind_without_dimensions_is_empty(binary):
    split = ActionDimensions(action_with(3, binary)).split(torch.ones(2, 3))
    assert [x.shape[-1] for x in split] == [3 - len(binary), len(binary)]


def test_no_checkpoint_holds_the_indices_and_a_change_of_type_leaves_them():
    dimensions = ActionDimensions(action_with(3, (0,))).to(torch.bfloat16)
    assert not dimensions.state_dict()
    assert {buffer.dtype for buffer in dimensions.buffers()} == {torch.int64}


def test_signed_actions_hide_what_is_masked_and_scale_what_is_binary() -> None:
    dimensions = ActionDimensions(ActionSpec(window=1, horizon=1, dim=3, binary=(1,)))
    actions = torch.tensor([[0.5, 1.0, -0.25], [0.5, 0.0, torch.nan]])
    mask = torch.tensor([[True, True, True], [True, True, False]])

    signed = dimensions.signed(actions, mask)

    torch.testing.assert_close(signed, torch.tensor([[0.5, 1.0, -0.25], [0.5, -1.0, 0.0]]))
    torch.testing.assert_close(dimensions.unsigned(signed), actions.nan_to_num(0.0))
