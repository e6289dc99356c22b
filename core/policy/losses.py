"""Losses of action chunks, averaged over unmasked entries; zero if all entries are masked.

Heads call these functions in `loss`; `Policy.forward` sums the losses that heads and parts return.
To add a loss, add an entry to the dictionary that a head's `loss` returns, or add a head in a table
[[auxiliary]].

They raise PolicyError for tensors of different shapes, which PyTorch would stretch.
"""

from torch import Tensor
from torch.nn import functional as F

from core.errors import PolicyError


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values over the entries where a mask of the same shape is True -> scalar."""
    _check_shapes(values=values, mask=mask)
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def masked_mean_per_sample(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each sample's values (B ...) over the entries where mask (B ...) is True -> (B)."""
    _check_shapes(values=values, mask=mask)
    weights = mask.to(values.dtype)
    return (values * weights).flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1)


def masked_mse(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error: predicted, target, mask (B T H A) -> scalar."""
    _check_shapes(predicted=predicted, target=target)
    return masked_mean(F.mse_loss(predicted.float(), target, reduction="none"), mask)


def masked_l1(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error, robust to outliers: predicted, target, mask (B T H A) -> scalar."""
    _check_shapes(predicted=predicted, target=target)
    return masked_mean(F.l1_loss(predicted.float(), target, reduction="none"), mask)


def masked_huber(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Huber loss with delta 1: predicted, target, mask (B T H A) -> scalar.

    RoboVLMs uses this loss for the pose.
    """
    _check_shapes(predicted=predicted, target=target)
    return masked_mean(F.huber_loss(predicted.float(), target, reduction="none"), mask)


def masked_bce(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy: logits, target in {0, 1}, mask (B T H A) -> scalar."""
    _check_shapes(logits=logits, target=target)
    return masked_mean(
        F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none"), mask
    )


def _check_shapes(**tensors: Tensor) -> None:
    """Raise PolicyError unless two tensors, given with their names, have the same shape."""
    (first, x), (second, y) = tensors.items()
    if x.shape != y.shape:
        raise PolicyError(
            f"{first} {tuple(x.shape)} and {second} {tuple(y.shape)} must have the same shape"
        )
