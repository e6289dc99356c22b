"""The head "lstm"."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from core import (
    ActionSpec,
    Batch,
    ChunkRegression,
    Context,
    ContextSpec,
    Generator,
    PolicyHead,
    ReadoutWindow,
    State,
    build_mlp,
)
from core.weights import NameMap, Pretrained, filter_keys
from plugins.heads.lstm.recurrence import Recurrence

# the head's tensors in a checkpoint of RoboVLMs
ROBOVLMS_NAMES = NameMap(
    {
        "lstm": "model.act_head.rnn",
        "pose.*": "model.act_head.actions.mlp.*",
        "gripper.*": "model.act_head.gripper.mlp.*",
    }
)


@dataclass(frozen=True)
class LSTMConfig:
    """The head of RoboVLMs (Liu et al. 2025).

    The defaults are the published sizes. With them, a head on Kosmos-2 has 41.2 million parameters.
    """

    layers: Annotated[int, Gt(0)] = 4
    """number of LSTM layers."""
    hidden_size: Annotated[int, Gt(0)] = 1024
    """width of the LSTM."""
    mlp: tuple[Annotated[int, Gt(0)], ...] = (1024, 512, 256)
    """widths of the hidden layers of both MLPs."""
    loss: Literal["huber", "mse", "l1"] = "huber"
    """loss of the continuous dimensions: "huber" (delta 1, as in RoboVLMs' code), "mse" (as in
    RoboVLMs' paper) or "l1".
    """
    gripper_weight: Annotated[float, Ge(0)] = 0.01
    """factor of the binary cross-entropy in the sum of the losses."""
    tanh: bool = True
    """whether a tanh keeps the continuous dimensions in [-1, 1]."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """probability of dropout between the LSTM's layers while training."""
    span: Annotated[int, Ge(3)] | None = None
    """number of frames that the LSTM can remember when training begins: its cells forget over 2 to
    `span` frames (Tallec and Ollivier 2018). Default: PyTorch's initialisation, with which every
    cell forgets half of its contents in each frame.
    """
    skip: bool = False
    """whether the MLPs read the frame's readout beside the LSTM's output, so that the LSTM need
    only remember. Cells that forget slowly also take in slowly what the frame shows.
    """
    memory: Literal["window", "episode"] = "window"
    """how far the LSTM remembers: "window": the last T frames; "episode": all frames since the
    episode began, if `data.sampling = "episodes"` trains it so.
    """

    def __post_init__(self) -> None:
        if self.dropout and self.layers == 1:
            raise ValueError(
                "dropout acts between layers, and layers = 1; raise layers or drop dropout"
            )


class LSTMHead(PolicyHead):
    """Regresses the continuous dimensions and classifies the binary dimensions, at every frame.

    With memory = "window", the LSTM begins every window from zeros, in training and while acting.
    With memory = "episode", its state (h, c) is carried from window to window and, while acting,
    from frame to frame. RoboVLMs trains on windows from zeros; while acting it carries the LSTM's
    state for the first T steps, and then runs the last T features from zeros at each step.

    `pretrained` takes a RoboVLMs .ckpt.

    Raises ConfigError if no dimension is continuous, or if `tanh` is true and actions can lie
    outside [-1, 1].
    """

    source = None  # `pretrained = true` is refused: this part has no default checkpoint

    def __init__(self, config: LSTMConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        self.memory = ReadoutWindow(action.window, context.width)
        self.carries = config.memory == "episode"
        self.chunk = ChunkRegression(
            action, loss=config.loss, gripper_weight=config.gripper_weight, tanh=config.tanh
        )
        self.lstm = Recurrence(
            context.width,
            config.hidden_size,
            config.layers,
            dropout=config.dropout,
            span=config.span,
        )
        self.skip = config.skip
        inputs = config.hidden_size + (context.width if config.skip else 0)
        widths = [inputs, *config.mlp]
        self.pose = build_mlp([*widths, self.chunk.pose_size], "relu")
        self.gripper = (
            build_mlp([*widths, self.chunk.gripper_size], "relu") if action.binary else None
        )

    def forward(self, context: Context, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return actions (B T H A): normalised numbers, and probabilities for binary dimensions."""
        pose, gripper, _ = self._run(context.readout.mean(dim=2), context.state)
        return self.chunk.actions(pose, gripper)

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the losses "pose" and, if a dimension is binary, "gripper" (already weighted).

        Both losses are means over the chunks of all frames.
        """
        pose, gripper, _ = self._run(context.readout.mean(dim=2), context.state)
        return self.chunk.losses(pose, gripper, batch)

    def next_state(self, context: Context) -> State:
        """Return the LSTM's state after the window's last frame.

        In training, dropout drops other units here than in `loss`.
        """
        return self.lstm.run(context.readout.mean(dim=2), context.state)[1]

    def initial_state(self, rows: int) -> State:
        """Return the state at the start of an episode; its contents depend on `memory`.

        "window": an empty buffer for T frames' readouts, and the number of frames in it (B).
        "episode": the LSTM's state h and c, zeros (B layers hidden_size).
        """
        if self.carries:
            return self.lstm.initial_state(rows)
        return self.memory.empty(rows, next(self.lstm.parameters()))

    def act(self, context: Context, state: State, generator: Generator) -> tuple[Tensor, State]:  # noqa: ARG002
        """Return the actions (B H A) of the newest frame, and the next state.

        With memory = "episode", the LSTM makes one step. With memory = "window", it runs the whole
        window from a fresh state, as training does.
        """
        if self.carries:
            pose, gripper, state = self._run(context.readout.mean(dim=2), state)
            return self.chunk.actions(pose, gripper)[:, -1], state
        state = self.memory.push(state, context.readout.mean(dim=2))
        pose, gripper, _ = self._run(state["readouts"], None)
        return self.memory.newest(state, self.chunk.actions(pose, gripper)), state

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the head of a RoboVLMs checkpoint, strictly."""
        head = filter_keys(weights.tensors, lambda name: name.startswith("model.act_head."))
        ROBOVLMS_NAMES.load(self, head, weights.source)

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Name the weights as a checkpoint of RoboVLMs does."""
        return ROBOVLMS_NAMES.publish(self.state_dict())

    def _run(self, features: Tensor, state: State | None) -> tuple[Tensor, Tensor | None, State]:
        """(B T D) -> the outputs of both MLPs, as `ChunkRegression` takes them, and LSTM state.

        state: the LSTM's state before the first frame; None: zeros.
        """
        hidden, state = self.lstm.run(features, state)
        if self.skip:
            hidden = torch.cat([hidden, features.to(hidden.dtype)], dim=-1)
        return self.pose(hidden), None if self.gripper is None else self.gripper(hidden), state
