"""RoboVLMs' GPT head: a causal transformer over the window, then two MLPs, for pose and gripper."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from einops import rearrange
from torch import Tensor, nn

from core import (
    ActionSpec,
    Batch,
    ChunkRegression,
    Context,
    ContextSpec,
    Generator,
    PolicyHead,
    ReadoutWindow,
    Register,
    State,
    attend,
    build_mlp,
    hookimpl,
)


@dataclass(frozen=True)
class GPTConfig:
    """The GPT head of RoboVLMs (Liu et al. 2025); the defaults are its sizes."""

    layers: Annotated[int, Gt(0)] = 8
    """number of blocks of attention and MLP."""
    heads: Annotated[int, Gt(0)] = 8
    """number of attention heads per block; must be a divisor of `hidden_size`."""
    hidden_size: Annotated[int, Gt(0)] = 1024
    """width of the blocks; the MLP of a block is four times as wide."""
    mlp: tuple[Annotated[int, Gt(0)], ...] = (1024, 512, 256)
    """widths of the hidden layers of both MLPs behind the blocks."""
    loss: Literal["huber", "mse", "l1"] = "huber"
    """loss of the continuous dimensions: "huber" (delta 1), "mse" or "l1"."""
    gripper_weight: Annotated[float, Ge(0)] = 0.01
    """factor of the binary cross-entropy in the sum of the losses."""
    tanh: bool = True
    """whether a tanh keeps the continuous dimensions in [-1, 1]."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """probability of dropout while training: of the first block's input, of attention weights, and
    of what every attention and MLP of a block adds.
    """

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"heads = {self.heads} does not divide hidden_size = {self.hidden_size}; choose a "
                "divisor"
            )


class GPTHead(PolicyHead):
    """Regresses the continuous dimensions and classifies the binary dimensions, at every frame.

    The readouts of the window are the tokens of a GPT-2 (Radford et al. 2019), in which a frame
    attends to itself and to the frames before it. The learned positions count from the window's
    first frame. While acting, the head keeps the readouts of the last T frames and runs them anew
    at each step, so that every action is the one that training computes for such a window; keys and
    values cannot be kept, because a frame's position changes when the window moves on.

    Raises ConfigError if no dimension is continuous, or if `tanh` is true and actions can lie
    outside [-1, 1].
    """

    def __init__(self, config: GPTConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        self.memory = ReadoutWindow(action.window, context.width)
        self.chunk = ChunkRegression(
            action, loss=config.loss, gripper_weight=config.gripper_weight, tanh=config.tanh
        )
        self.input = nn.Linear(context.width, config.hidden_size)
        self.positions = nn.Parameter(0.02 * torch.randn(action.window, config.hidden_size))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        widths = [config.hidden_size, *config.mlp]
        self.pose = build_mlp([*widths, self.chunk.pose_size], "relu")
        self.gripper = (
            build_mlp([*widths, self.chunk.gripper_size], "relu") if action.binary else None
        )

    def forward(self, context: Context, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return actions (B T H A): normalised numbers, and probabilities for binary dimensions."""
        return self.chunk.actions(*self._run(context.readout.mean(dim=2)))

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the losses "pose" and, if a dimension is binary, "gripper" (already weighted).

        Both losses are means over the chunks of all frames.
        """
        return self.chunk.losses(*self._run(context.readout.mean(dim=2)), batch)

    def initial_state(self, rows: int) -> State:
        """Return an empty buffer for T frames' readouts, and the number of frames in it (B)."""
        return self.memory.empty(rows, self.input.weight)

    def act(self, context: Context, state: State, generator: Generator) -> tuple[Tensor, State]:  # noqa: ARG002
        """Return the actions (B H A) of the newest frame, and the next state."""
        state = self.memory.push(state, context.readout.mean(dim=2))
        actions = self.chunk.actions(*self._run(state["readouts"]))
        return self.memory.newest(state, actions), state

    def _run(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B T D) -> the outputs of both MLPs, as `ChunkRegression` takes them."""
        x = self.dropout(self.input(features) + self.positions[: features.shape[1]])
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.pose(x), None if self.gripper is None else self.gripper(x)


class Block(nn.Module):
    """Causal attention, then an MLP; each reads the normed stream and adds to it, as in GPT-2."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = build_mlp([width, 4 * width, width])
        self.dropout = nn.Dropout(config.dropout)
        # Weights are drawn as in GPT-2. What is added to the stream begins smaller, so that the
        # stream does not grow with the number of blocks.
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                adds = name in ("output.weight", "mlp.2.weight")
                nn.init.normal_(weight, std=0.02 / (2 * config.layers) ** 0.5 if adds else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B T hidden_size) -> (B T hidden_size)."""
        q, k, v = rearrange(
            self.qkv(self.attention_norm(x)),
            "b t (three h d) -> three b h t d",
            three=3,
            h=self.heads,
        )
        dropout = self.dropout.p if self.training else 0.0
        mixed, _, _ = attend(q, k, v, None, dropout=dropout)
        x = x + self.dropout(self.output(mixed))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "gpt"."""
    register("gpt", GPTConfig, GPTHead)
