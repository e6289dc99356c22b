"""The target chunks of a batch's readouts."""

from typing import NamedTuple

import torch
from torch import Tensor

from core import ActionDimensions, Batch


class Chunks(NamedTuple):
    """Target chunks of h actions, one for each readout.

    actions: (B T Q h A), with binary dimensions as -1 and 1.
    mask: (B T Q h A) bool, which numbers count in losses.
    counts: (B T Q) bool, which chunks do.
    """

    actions: Tensor
    mask: Tensor
    counts: Tensor


def target_chunks(dimensions: ActionDimensions, batch: Batch, readouts: int) -> Chunks:
    """Return the chunks that a batch's readouts are to predict, Q of them at each frame.

    The chunk of a frame's first readout begins at the frame, and that of each further readout one
    step later. Further readouts count at the last frame alone. A masked number is the last one
    before it in its dimension that is not masked, or 0.
    """
    actions, mask = batch.targets
    signed = dimensions.signed(actions, mask)
    horizon = actions.shape[2]
    steps = torch.arange(horizon, device=mask.device)[:, None]  # (H 1)
    newest = torch.where(mask, steps, 0).cummax(dim=2).values
    filled = signed.gather(2, newest)
    is_counted = torch.zeros(*mask.shape[1:2], readouts, dtype=torch.bool, device=mask.device)
    is_counted[:, 0] = True
    is_counted[-1] = True
    mask = _windows(mask, horizon - readouts + 1) & is_counted[..., None, None]
    return Chunks(
        _windows(filled, horizon - readouts + 1), mask, mask.flatten(start_dim=3).any(dim=-1)
    )


def _windows(x: Tensor, steps: int) -> Tensor:
    """(B T H A) -> all windows of h successive steps (B T H-h+1 h A)."""
    return x.unfold(2, steps, 1).transpose(-1, -2)
