"""Keypoints against numpy."""

import numpy as np
import pytest
import torch

from core import expected_places


def test_expected_places_against_numpy():
    logits = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    weights = np.exp(logits.numpy())
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    y, x = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 7), indexing="ij")
    mean_y, mean_x = (weights * y).sum((2, 3)), (weights * x).sum((2, 3))
    var_y = (weights * (y - mean_y[..., None, None]) ** 2).sum((2, 3))
    var_x = (weights * (x - mean_x[..., None, None]) ** 2).sum((2, 3))
    expected = np.concatenate([mean_y, var_y, mean_x, var_x], axis=1)
    np.testing.assert_allclose(expected_places(logits), expected, atol=1e-12)


def test_half_precision_keeps_the_variance_of_a_sharp_map():
    logits = torch.randn(2, 3, 8, 8).bfloat16() * 4
    expected = expected_places(logits.double())
    received = expected_places(logits)
    assert received.dtype == torch.bfloat16
    torch.testing.assert_close(received.double(), expected, rtol=1e-2, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        received = expected_places(logits.float())
    torch.testing.assert_close(received.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_peak_is_found_where_it_is():
    logits = torch.zeros(1, 1, 9, 9)
    logits[0, 0, 2, 6] = 50.0
    y, var_y, x, var_x = expected_places(logits)[0].tolist()
    assert (y, x) == pytest.approx((-0.5, 0.5), abs=1e-4)
    assert (var_y, var_x) == pytest.approx((0, 0), abs=1e-4)
