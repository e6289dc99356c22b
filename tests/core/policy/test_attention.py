"""Attention over a sequence and its past, against an explicit softmax in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from core import attend
from core.testing.common import normal

HEADS, WIDTH = 2, 4


def projections(length: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (3 HEADS length WIDTH) each."""
    q, k, v = (normal(3, HEADS, length, WIDTH, seed=seed + i) for i in range(3))
    return q, k, v


def softmax_by_hand(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """(S R K*d) in float64; visible broadcasts to (S K R L)."""
    scores = q.double() @ k.double().transpose(-1, -2) / math.sqrt(WIDTH)
    mixed = scores.masked_fill(~visible, -math.inf).softmax(-1) @ v.double()
    return mixed.transpose(1, 2).flatten(2)


def test_without_a_mask_attention_is_causal():
    q, k, v = projections(5, seed=0)
    mixed, keys, values = attend(q, k, v, None)
    visible = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(mixed.double(), softmax_by_hand(q, k, v, visible))
    assert torch.equal(keys, k)
    assert torch.equal(values, v)


def test_a_mask_says_which_token_sees_which():
    q, k, v = projections(5, seed=0)
    mask = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    mask |= torch.eye(5, dtype=torch.bool)
    mixed, _, _ = attend(q, k, v, mask)
    torch.testing.assert_close(mixed.double(), softmax_by_hand(q, k, v, mask))


def test_the_past_stands_before_the_sequence():
    """Two calls, the second behind the first, are one call on the whole sequence."""
    q, k, v = projections(6, seed=0)
    whole, _, _ = attend(q, k, v, None)
    first, *past = attend(q[:, :, :4], k[:, :, :4], v[:, :, :4], None)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()[4:].expand(3, 1, 2, 6)
    second, keys, values = attend(
        q[:, :, 4:], k[:, :, 4:], v[:, :, 4:], mask, past=(past[0], past[1])
    )
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    assert torch.equal(keys, k)
    assert torch.equal(values, v)


def test_fewer_queries_than_keys():
    q, k, v = projections(5, seed=0)
    mask = torch.ones(3, 1, 2, 5, dtype=torch.bool)
    mixed, _, _ = attend(q[:, :, :2], k, v, mask)
    assert mixed.shape == (3, 2, HEADS * WIDTH)
    torch.testing.assert_close(mixed.double(), softmax_by_hand(q[:, :, :2], k, v, mask))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_drops_attention_weights(dropout):
    q, k, v = projections(5, seed=0)
    torch.manual_seed(0)
    first, _, _ = attend(q, k, v, None, dropout=dropout)
    second, _, _ = attend(q, k, v, None, dropout=dropout)
    assert torch.equal(first, second) == (dropout == 0)


def test_no_mask_reaches_the_kernel_where_attention_is_causal(monkeypatch):
    """With a mask PyTorch would not choose its fastest kernel."""
    calls = []
    real = nn.functional.scaled_dot_product_attention

    def spy(q, k, v, mask, dropout, is_causal):
        calls.append((mask, is_causal))
        return real(q, k, v, mask, dropout, is_causal=is_causal)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    attend(*projections(5, seed=0), None)
    assert calls == [(None, True)]
