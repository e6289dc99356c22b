"""Predicts actions as classes: each continuous dimension's range is divided into equal bins."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from core import (
    ActionDimensions,
    ActionSpec,
    Batch,
    ConfigError,
    Context,
    ContextSpec,
    Generator,
    PolicyHead,
    Register,
    build_mlp,
    hookimpl,
    masked_bce,
    masked_mean,
)


@dataclass(frozen=True)
class DiscreteConfig:
    """Equal bins over [-1, 1] for every continuous dimension; all dimensions are decoded at once.

    The head has no memory: only the backbone sees the history.
    """

    bins: Annotated[int, Ge(2)] = 256
    """number of classes per continuous dimension; only an odd number makes 0 (no motion) the centre
    of a bin.
    """
    mlp: tuple[Annotated[int, Gt(0)], ...] = (512,)
    """widths of the hidden layers between the readout and the classes."""
    decode: Literal["argmax", "mean"] = "argmax"
    """"argmax": the centre of the likeliest bin; "mean": the mean of all bins' centres, weighted by
    the bins' probabilities. The mean can lie between two centres.
    """
    gripper_weight: Annotated[float, Ge(0)] = 1.0
    """factor of the binary cross-entropy in the sum of the losses."""


class DiscreteHead(PolicyHead):
    """Classifies every dimension of a frame's chunk from that frame's readout alone.

    As in RT-1 (Brohan et al. 2022), all dimensions are decoded in parallel: a chunk takes one pass
    of the backbone, and the dimensions are independent given the readout. RoboVLMs' discrete
    formulation, RT-2 and OpenVLA work differently: there, the bins are the last tokens in the
    language model's vocabulary. The language model writes one dimension after another, so that each
    dimension depends on the earlier dimensions. Those models bin the gripper, too.

    The head has no memory. With `formulation = "interleaved"` the backbone puts the history into
    the readout. With `formulation = "policy_head"` the actions of a frame depend on that frame
    alone, and a window longer than 1 only adds frames to learn from.

    Raises ConfigError if continuous dimensions have values outside [-1, 1].
    """

    def __init__(self, config: DiscreteConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        if action.continuous and not action.bounded:
            raise ConfigError(
                "policy_head.name: 'discrete' has bins in [-1, 1], and actions leave them under "
                'this action.normalization; set action.normalization = "min_max" or "clip_range"'
            )
        self.config, self.horizon = config, action.horizon
        # logits of one step: one per bin of each continuous dimension, and one per binary dimension
        self.sizes = [len(action.continuous) * config.bins, len(action.binary)]
        # all classes begin about equally likely, because all outputs begin near zero
        self.mlp = build_mlp([context.width, *config.mlp, action.horizon * sum(self.sizes)])
        self.dimensions = ActionDimensions(action)

    def forward(self, context: Context, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return actions (B T H A): normalised numbers, and probabilities for binary dimensions."""
        logits, binary = self._classify(context.readout)
        if self.config.decode == "argmax":
            index = logits.argmax(dim=-1)
        else:
            # The centres are equally spaced, so the mean index gives the mean of the centres.
            index = logits.softmax(dim=-1) @ torch.arange(
                self.config.bins, device=logits.device, dtype=logits.dtype
            )
        return self.dimensions.join(centre_of(index, self.config.bins), binary.sigmoid())

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the cross-entropies "pose" and "gripper" (already weighted).

        "pose" is left out if there are no continuous dimensions, and "gripper" is left out if there
        are no binary dimensions.
        """
        actions, mask = batch.targets
        logits, binary = self._classify(context.readout)
        pose_target, gripper_target = self.dimensions.split(actions)
        pose_mask, gripper_mask = self.dimensions.split(mask)
        terms = {}
        if pose_target.shape[-1]:
            bins = bin_of(pose_target, self.config.bins)
            entropy = F.cross_entropy(logits.flatten(0, -2), bins.flatten(), reduction="none")
            terms["pose"] = masked_mean(entropy.view_as(bins), pose_mask)
        if gripper_target.shape[-1]:
            bce = masked_bce(binary, gripper_target, gripper_mask)
            terms["gripper"] = self.config.gripper_weight * bce
        return terms

    def _classify(self, readout: Tensor) -> tuple[Tensor, Tensor]:
        """Readout (B T Q D) -> logits of the bins, and logits of the binary dimensions, float32.

        The shapes of the logits are (B T H A_continuous bins) and (B T H A_binary).
        """
        outputs = self.mlp(readout.mean(dim=2))
        steps = rearrange(outputs, "b t (h n) -> b t h n", h=self.horizon).float()
        logits, binary = steps.split(self.sizes, dim=-1)
        return rearrange(logits, "... (a n) -> ... a n", n=self.config.bins), binary


def bin_of(actions: Tensor, bins: int) -> Tensor:
    """Return the index of the bin in which each action lies, int64.

    The bins divide [-1, 1], and 1 belongs to the last bin. An action outside [-1, 1] belongs to the
    nearest bin.
    """
    return ((actions + 1) * (bins / 2)).floor().clamp(0, bins - 1).long()


def centre_of(index: Tensor, bins: int) -> Tensor:
    """Turn a bin's index, or a mean of indices, into a centre in [-1, 1], float32.

    An action in [-1, 1] is at most 1 / bins away from the centre of its bin.
    """
    return (2 * index.float() + 1) / bins - 1


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "discrete"."""
    register("discrete", DiscreteConfig, DiscreteHead)
