"""Keypoints: where in an image a feature map is large."""

import torch
from einops import rearrange
from torch import Tensor


def expected_places(logits: Tensor) -> Tensor:
    """Apply a spatial softmax to K maps (n K Y X) -> mean positions and their variances (n 4*K).

    The result holds K means of the row, K variances of the row, K means of the column and K
    variances of the column, in this order. Rows and columns are coordinates in [-1, 1].

    Never computed in half precision, in which the small variance of a sharp map would be lost.
    """
    half = logits.dtype in (torch.bfloat16, torch.float16)
    with torch.autocast(logits.device.type, enabled=False):
        moments = _moments(logits.float() if half else logits)
    return moments.to(logits.dtype)


def _moments(logits: Tensor) -> Tensor:
    """Return the means and variances of `expected_places`."""
    weights = rearrange(logits.flatten(2).softmax(-1), "n k (y x) -> n k y x", y=logits.shape[2])
    moments = []
    for marginal in (weights.sum(dim=3), weights.sum(dim=2)):  # (n K Y), (n K X)
        steps = marginal.shape[-1]
        place = torch.linspace(-1, 1, steps, device=logits.device, dtype=logits.dtype)
        mean = marginal @ place
        moments += [mean, marginal @ place**2 - mean**2]
    return torch.cat(moments, dim=1)
