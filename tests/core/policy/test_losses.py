"""Losses, compared with float64 arithmetic in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from core import (
    PolicyError,
    masked_bce,
    masked_huber,
    masked_l1,
    masked_mean,
    masked_mean_per_sample,
    masked_mse,
)


def huber(predicted, target):
    error = np.abs(predicted - target)
    return np.where(error < 1, 0.5 * error**2, error - 0.5)


def bce(logits, target):
    return np.logaddexp(0, logits) - logits * target


ORACLES = [
    (masked_mse, lambda p, t: (p - t) ** 2),
    (masked_l1, lambda p, t: np.abs(p - t)),
    (masked_huber, huber),
    (masked_bce, bce),
]


@pytest.mark.parametrize(("loss", "oracle"), ORACLES)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.1, 0.5, 1.0]))
def test_loss_is_the_mean_over_unmasked_entries(loss, oracle, seed, share):
    rng = np.random.default_rng(seed)
    predicted = rng.normal(scale=2, size=(3, 2, 4, 5)).astype(np.float32)
    target = (rng.random((3, 2, 4, 5)) > 0.5).astype(np.float32)
    mask = rng.random((3, 2, 4, 5)) < share
    values = oracle(predicted.astype(np.float64), target.astype(np.float64))[mask]
    expected = values.mean() if mask.any() else 0.0
    received = loss(torch.from_numpy(predicted), torch.from_numpy(target), torch.from_numpy(mask))
    assert received.shape == ()
    np.testing.assert_allclose(received.item(), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [masked_mse, masked_l1, masked_huber, masked_bce])
def test_all_masked_is_zero_with_zero_gradient(loss):
    predicted = torch.randn(2, 1, 3, 4, requires_grad=True)
    value = loss(predicted, torch.ones(2, 1, 3, 4), torch.zeros(2, 1, 3, 4).bool())
    value.backward()
    assert value.item() == 0
    assert not predicted.grad.any()


@pytest.mark.parametrize("loss", [masked_mse, masked_l1, masked_huber, masked_bce])
def test_low_precision_predictions_are_compared_in_float32(loss):
    predicted = torch.randn(2, 1, 3, 4).bfloat16()
    mask = torch.ones(2, 1, 3, 4).bool()
    value = loss(predicted, torch.zeros(2, 1, 3, 4), mask)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(predicted.float(), torch.zeros(2, 1, 3, 4), mask))


def test_masked_mean_counts_each_action_dimension():
    values = torch.arange(8.0).view(1, 1, 2, 4)
    mask = torch.tensor([[[[False, False, True, False], [True, True, True, True]]]])
    assert masked_mean(values, mask).item() == np.float32(np.mean([2, 4, 5, 6, 7]))


@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.1, 0.5, 1.0]))
def test_a_samples_mean_is_over_its_own_unmasked_entries(seed, share):
    rng = np.random.default_rng(seed)
    values, mask = (
        rng.normal(size=(3, 2, 4, 5)).astype(np.float32),
        rng.random((3, 2, 4, 5)) < share,
    )
    received = masked_mean_per_sample(torch.from_numpy(values), torch.from_numpy(mask))
    expected = [
        v[m].astype(np.float64).mean() if m.any() else 0.0
        for v, m in zip(values, mask, strict=True)
    ]
    np.testing.assert_allclose(received.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [masked_mse, masked_l1, masked_huber, masked_bce])
def test_nothing_is_stretched(loss):
    """PyTorch would repeat the one predicted step for every step of the chunk."""
    predicted, target = torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 3, 4)
    mask = torch.ones_like(target, dtype=torch.bool)
    message = r"^(predicted|logits) \(2, 1, 1, 4\) and target \(2, 1, 3, 4\) must have the same"
    with pytest.raises(PolicyError, match=message):
        loss(predicted, target, mask)
    for mean in (masked_mean, masked_mean_per_sample):
        with pytest.raises(PolicyError, match=r"^values \(2, 1, 3, 4\) and mask \(2, 1, 3, 1\)"):
            mean(target, mask[..., :1])
