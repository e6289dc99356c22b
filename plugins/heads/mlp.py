"""Regresses each frame's chunk from its readout, with one MLP for pose and one for gripper."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt
from einops import rearrange
from torch import Tensor

from core import (
    ActionSpec,
    Batch,
    ChunkRegression,
    ConfigError,
    Context,
    ContextSpec,
    Generator,
    PolicyHead,
    Register,
    build_mlp,
    hookimpl,
)


@dataclass(frozen=True)
class MLPConfig:
    """The `lstm` head without its LSTM: only the backbone sees the history."""

    mlp: tuple[Annotated[int, Gt(0)], ...] = (1024, 512, 256)
    """widths of the hidden layers of both MLPs."""
    loss: Literal["huber", "mse", "l1"] = "huber"
    """loss of the continuous dimensions: "huber" (delta 1), "mse" or "l1"."""
    gripper_weight: Annotated[float, Ge(0)] = 0.01
    """factor of the binary cross-entropy in the sum of the losses."""
    tanh: bool = True
    """whether a tanh keeps the continuous dimensions in [-1, 1]."""
    by_step: bool = False
    """whether each action of the chunk is read from action tokens of its own, as OpenVLA-OFT does
    it with `count = "horizon_x_action"`; otherwise the whole chunk is read from the mean of all
    action tokens.
    """


class MLPHead(PolicyHead):
    """Regresses the continuous dimensions and classifies the binary dimensions, at every frame.

    This is the FC head of RoboVLMs (Liu et al. 2025), whose two MLPs have the same widths; there,
    two layers that both share stand before them. OpenVLA-OFT (Kim et al. 2025) also regresses its
    chunks with an MLP, by step; its loss is "l1".

    The head has no memory. With `formulation = "interleaved"` the backbone puts the history into
    the readout. With `formulation = "policy_head"` each frame is acted on alone.

    Raises ConfigError if no dimension is continuous, if `tanh` is true and actions can lie outside
    [-1, 1], or if `by_step` is true and the number of action tokens is no multiple of the horizon.
    """

    def __init__(self, config: MLPConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        self.chunk = ChunkRegression(
            action, loss=config.loss, gripper_weight=config.gripper_weight, tanh=config.tanh
        )
        tokens, horizon = context.action_tokens, action.horizon
        if config.by_step and (not tokens or tokens % horizon):
            raise ConfigError(
                f"policy_head.by_step: each of {horizon} actions needs as many action tokens as "
                f'the others, and there are {tokens}; set action_tokens.count = "horizon"'
            )
        # what the MLPs read at once: the tokens of a step, or the mean of all tokens
        self.tokens = tokens // horizon if config.by_step else None
        steps = horizon if config.by_step else 1
        widths = [context.width * (self.tokens or 1), *config.mlp]
        self.pose = build_mlp([*widths, self.chunk.pose_size // steps], "relu")
        self.gripper = (
            build_mlp([*widths, self.chunk.gripper_size // steps], "relu")
            if action.binary
            else None
        )

    def forward(self, context: Context, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return actions (B T H A): normalised numbers, and probabilities for binary dimensions."""
        return self.chunk.actions(*self._run(context.readout))

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the losses "pose" and, if a dimension is binary, "gripper" (already weighted).

        Both losses are means over the chunks of all frames.
        """
        return self.chunk.losses(*self._run(context.readout), batch)

    def _run(self, readout: Tensor) -> tuple[Tensor, Tensor | None]:
        """Readout (B T Q D) -> the outputs of both MLPs, as `ChunkRegression` takes them."""
        if self.tokens is None:
            features = readout.mean(dim=2, keepdim=True)
        else:
            features = rearrange(readout, "b t (h q) d -> b t h (q d)", q=self.tokens)
        pose = self.pose(features).flatten(2)
        return pose, None if self.gripper is None else self.gripper(features).flatten(2)


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "mlp"."""
    register("mlp", MLPConfig, MLPHead)
