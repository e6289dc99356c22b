"""Actions as classes: every continuous dimension of every step of the chunk is one of many equal
bins, as in RT-1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import (
    ActionSpec,
    Batch,
    ConfigError,
    Context,
    ContextSpec,
    Generator,
    PolicyHead,
    Register,
    hookimpl,
    masked_bce,
    masked_mean,
)


@dataclass(frozen=True)
class DiscreteConfig:
    """Equal bins over [-1, 1], as RT-1 has them, chosen all at once; no memory, so the history is
    the backbone's.
    """

    bins: Annotated[int, Ge(2)] = 256
    """classes of a continuous dimension; only an odd number has one whose centre is 0, standing
    still.
    """
    mlp: tuple[Annotated[int, Gt(0)], ...] = (512,)
    """widths of the hidden layers between the readout and the classes."""
    decode: Literal["argmax", "mean"] = "argmax"
    """"argmax", the centre of the likeliest bin, or "mean", the expected centre, which is finer
    than a bin.
    """
    gripper_weight: Annotated[float, Ge(0)] = 1.0
    """factor of the binary cross-entropy in the sum of the losses."""


class DiscreteHead(PolicyHead):
    """Classifies every dimension of a frame's chunk from that frame's readout alone.

    As in RT-1 (Brohan et al. 2022) all are decoded in parallel: one pass of the backbone for a
    chunk, any backbone,
    and dimensions that are independent given the readout. In RoboVLMs' discrete formulation, as in
    RT-2 and OpenVLA, the bins are tokens of the language model (there the last of its vocabulary),
    and it writes the dimensions one
    after another, each seeing those before; the gripper is binned like the rest.

    The head has no memory. With action tokens "interleaved" the backbone gives the readout its
    history; with
    "policy_head" every frame stands alone, and a window longer than 1 is only more frames to learn
    from.

    Raises ConfigError where continuous dimensions leave [-1, 1].
    """

    def __init__(self, config: DiscreteConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        _check(action)
        self.config, self.horizon = config, action.horizon
        self.sizes = [
            len(action.continuous) * config.bins,
            len(action.binary),
        ]  # of the logits of one step
        self.mlp = _mlp([context.width, *config.mlp, action.horizon * sum(self.sizes)])
        # Index tensors live on the head's device: indexing with Python lists would copy them there
        # at every step.
        self.continuous: Tensor
        self.binary: Tensor
        self.order: Tensor
        self.register_buffer(
            "continuous", torch.tensor(action.continuous, dtype=torch.int64), persistent=False
        )
        self.register_buffer(
            "binary", torch.tensor(action.binary, dtype=torch.int64), persistent=False
        )
        self.register_buffer(
            "order", torch.tensor(action.continuous + action.binary).argsort(), persistent=False
        )

    def forward(self, context: Context, generator: Generator) -> Tensor:  # noqa: ARG002 (nothing is drawn)
        """Return actions (B T H A): continuous dimensions normalised, binary ones as the
        probability of 1.
        """
        logits, binary = self._classify(context.readout)
        if self.config.decode == "argmax":
            index = logits.argmax(dim=-1)
        # the centres are equally spaced, so the mean of the indices gives the mean of the centres
        else:
            index = logits.softmax(dim=-1) @ torch.arange(
                self.config.bins, device=logits.device, dtype=logits.dtype
            )
        return torch.cat(
            [centre_of(index, self.config.bins), binary.sigmoid()], dim=-1
        ).index_select(-1, self.order)

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return "pose" and "gripper" (already weighted), each where there are such dimensions:
        cross-entropies.
        """
        if batch.actions is None or batch.action_mask is None:
            raise ValueError(
                "the loss compares with batch.actions and batch.action_mask, and the batch has none"
            )
        logits, binary = self._classify(context.readout)
        terms = {}
        if len(self.continuous):
            target, mask = (
                x.index_select(-1, self.continuous) for x in (batch.actions, batch.action_mask)
            )
            target = bin_of(target, self.config.bins)
            entropy = F.cross_entropy(
                logits.flatten(0, -2), target.flatten(), reduction="none"
            ).view_as(target)
            terms["pose"] = masked_mean(entropy, mask)
        if len(self.binary):
            target, mask = (
                x.index_select(-1, self.binary) for x in (batch.actions, batch.action_mask)
            )
            terms["gripper"] = self.config.gripper_weight * masked_bce(binary, target, mask)
        return terms

    def _classify(self, readout: Tensor) -> tuple[Tensor, Tensor]:
        """(B T Q D) -> logits of the bins (B T H A_continuous bins) and of a binary 1 (B T H
        A_binary), float32.
        """
        outputs = rearrange(
            self.mlp(readout.mean(dim=2)), "b t (h n) -> b t h n", h=self.horizon
        ).float()
        logits, binary = outputs.split(self.sizes, dim=-1)
        return rearrange(logits, "... (a n) -> ... a n", n=self.config.bins), binary


def bin_of(actions: Tensor, bins: int) -> Tensor:
    """Actions in [-1, 1] -> index of the bin each falls into, int64; 1 belongs to the last, as what
    lies outside.
    """
    return ((actions + 1) * (bins / 2)).floor().clamp(0, bins - 1).long()


def centre_of(index: Tensor, bins: int) -> Tensor:
    """Index of a bin, or a mean of indices -> its centre in [-1, 1], float32; at most 1 / bins from
    what fell in.
    """
    return (2 * index.float() + 1) / bins - 1


def _check(action: ActionSpec) -> None:
    if action.continuous and not action.bounded:
        raise ConfigError(
            "policy_head.name: 'discrete' has bins in [-1, 1], and actions leave them under this action.normalization; "
            'set action.normalization = "min_max" or "clip_range"'
        )


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with GELU between them; torch's small initial weights make all classes about
    equally likely.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1])


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "discrete"."""
    register("discrete", DiscreteConfig, DiscreteHead)
