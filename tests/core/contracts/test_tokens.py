"""Joining and packing, against plain Python lists."""

import torch
from hypothesis import given, strategies as st

from core import TokenGroup, concatenate, pack
from core.contracts.tokens import full_mask


@st.composite
def masks(draw):
    count, length = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    rows = st.lists(st.booleans(), min_size=length, max_size=length)
    return draw(st.lists(rows, min_size=count, max_size=count))


@given(masks())
def test_pack_moves_real_tokens_first_and_keeps_their_order(mask):
    count, length = len(mask), len(mask[0])
    tokens = torch.arange(count * length).view(count, length, 1)
    index = torch.arange(length)
    packed = pack(
        TokenGroup(tokens, torch.tensor(mask)), index, index % 2 == 1, tokens.view(count, length, 1)
    )
    for row in range(count):
        order = [i for i in range(length) if mask[row][i]] + [
            i for i in range(length) if not mask[row][i]
        ]
        assert packed.tokens[row, :, 0].tolist() == [row * length + i for i in order]
        assert packed.mask[row].tolist() == [mask[row][i] for i in order]
        assert packed.frame[row].tolist() == order
        assert packed.kind[row].tolist() == [i % 2 == 1 for i in order]


@given(masks())
def test_readout_finds_its_tokens_after_packing(mask):
    count, length = len(mask), len(mask[0])
    tokens = torch.arange(count * length).view(count, length, 1)
    readout = torch.arange(count * length).view(count, length, 1)  # every token is read
    packed = pack(
        TokenGroup(tokens, torch.tensor(mask)),
        torch.arange(length),
        torch.ones(length).bool(),
        readout,
    )
    assert torch.equal(packed.tokens.flatten()[packed.readout], readout)


def test_pack_without_a_mask_leaves_all_as_it_is():
    group = TokenGroup(torch.randn(2, 3, 4))
    readout = torch.tensor([[[2]], [[5]]])
    packed = pack(group, torch.arange(3), torch.tensor([False, False, True]), readout)
    assert packed.tokens is group.tokens
    assert packed.mask is None
    assert packed.frame.tolist() == [[0, 1, 2]] * 2
    assert packed.kind.tolist() == [[False, False, True]] * 2
    assert packed.readout is readout


def test_pack_passes_gradients_to_every_token():
    tokens = torch.randn(2, 3, 4, requires_grad=True)
    mask = torch.tensor([[False, True, True], [True, False, True]])
    pack(
        TokenGroup(tokens, mask), torch.arange(3), mask[0], torch.zeros(2, 1, 1).long()
    ).tokens.sum().backward()
    assert torch.equal(tokens.grad, torch.ones_like(tokens))


def test_concatenate_makes_a_mask_only_where_one_is_needed():
    plain, masked = (
        TokenGroup(torch.ones(2, 3, 4)),
        TokenGroup(torch.zeros(2, 1, 4), torch.zeros(2, 1).bool()),
    )
    assert concatenate([plain, plain]).mask is None
    joined = concatenate([plain, masked, plain])
    assert joined.tokens.shape == (2, 7, 4)
    assert joined.mask.tolist() == [[True] * 3 + [False] + [True] * 3] * 2
    assert joined.tokens[:, 3].sum() == 0


def test_full_mask_is_true_where_there_is_none():
    assert full_mask(TokenGroup(torch.zeros(2, 5, 4))).tolist() == [[True] * 5] * 2
    mask = torch.zeros(2, 5).bool()
    assert full_mask(TokenGroup(torch.zeros(2, 5, 4), mask)) is mask
