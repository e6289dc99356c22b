"""RoboVLMs' policy head: an LSTM over the window, then one MLP for pose and one for gripper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from einops import rearrange
from torch import Tensor, nn

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
    State,
    hookimpl,
    masked_bce,
    masked_huber,
    masked_l1,
    masked_mse,
    push_frame,
)
from core.weights import NameMap, Pretrained, filter_keys

# the head's tensors in a checkpoint of RoboVLMs
ROBOVLMS_NAMES = NameMap(
    {
        "lstm": "model.act_head.rnn",
        "pose.*": "model.act_head.actions.mlp.*",
        "gripper.*": "model.act_head.gripper.mlp.*",
    }
)
# the two tensors of an LSTM's state: its output, and its cells
STATE = ("h", "c")
POSE_LOSSES = {"huber": masked_huber, "mse": masked_mse, "l1": masked_l1}


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
        _check_action(config, action)
        self.width, self.window, self.horizon = context.width, action.window, action.horizon
        self.carries = config.memory == "episode"
        self.gripper_weight = config.gripper_weight
        self.pose_loss = POSE_LOSSES[config.loss]
        self.lstm = nn.LSTM(
            context.width,
            config.hidden_size,
            config.layers,
            batch_first=True,
            dropout=config.dropout,
        )
        if config.span is not None:
            _set_span(self.lstm, config.span)
        self.skip = config.skip
        inputs = config.hidden_size + (context.width if config.skip else 0)
        outputs = action.horizon * len(action.continuous)
        self.pose = _mlp([inputs, *config.mlp, outputs])
        self.bound = nn.Tanh() if config.tanh else nn.Identity()
        outputs = action.horizon * len(action.binary)
        self.gripper = _mlp([inputs, *config.mlp, outputs]) if action.binary else None
        self.dimensions = ActionDimensions(action)

    def forward(self, context: Context, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return actions (B T H A): normalised numbers, and probabilities for binary dimensions."""
        pose, logits, _ = self._run(context.readout.mean(dim=2), context.state)
        return self._actions(pose, logits)

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the losses "pose" and, if a dimension is binary, "gripper" (already weighted).

        Both losses are means over the chunks of all frames.
        """
        if batch.actions is None or batch.action_mask is None:
            raise ValueError(
                "the loss compares with batch.actions and batch.action_mask, and the batch has none"
            )
        pose, logits, _ = self._run(context.readout.mean(dim=2), context.state)
        pose_target, gripper_target = self.dimensions.split(batch.actions)
        pose_mask, gripper_mask = self.dimensions.split(batch.action_mask)
        terms = {"pose": self.pose_loss(pose, pose_target, pose_mask)}
        if logits is not None:
            bce = masked_bce(logits, gripper_target, gripper_mask)
            terms["gripper"] = self.gripper_weight * bce
        return terms

    def next_state(self, context: Context) -> State:
        """Return the LSTM's state after the window's last frame.

        In training, dropout drops other units here than in `loss`.
        """
        return self._run_lstm(context.readout.mean(dim=2), context.state)[1]

    def initial_state(self, rows: int) -> State:
        """Return the state at the start of an episode; its contents depend on `memory`.

        "window": an empty buffer for T frames' readouts, and the number of frames in it (B).
        "episode": the LSTM's state h and c, zeros (B layers hidden_size).
        """
        weight: Tensor = self.lstm.all_weights[0][0]
        if self.carries:
            shape = (rows, self.lstm.num_layers, self.lstm.hidden_size)
            return {"h": weight.new_zeros(shape), "c": weight.new_zeros(shape)}
        return {
            "readouts": weight.new_zeros(rows, self.window, self.width),
            "count": torch.zeros(rows, dtype=torch.int64, device=weight.device),
        }

    def act(self, context: Context, state: State, generator: Generator) -> tuple[Tensor, State]:  # noqa: ARG002
        """Return the actions (B H A) of the newest frame, and the next state.

        With memory = "episode", the LSTM makes one step. With memory = "window", it runs the whole
        window from a fresh state, as training does.
        """
        if self.carries:
            pose, logits, state = self._run(context.readout.mean(dim=2), state)
            return self._actions(pose, logits)[:, -1], state
        readouts = push_frame(state["readouts"], state["count"], context.readout.mean(dim=2))
        newest = state["count"].clamp(max=self.window - 1)
        # (B T H A); the actions of frames after the newest are meaningless
        pose, logits, _ = self._run(readouts, None)
        actions = self._actions(pose, logits)
        rows = torch.arange(len(newest), device=newest.device)
        return actions[rows, newest], {"readouts": readouts, "count": newest + 1}

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the head of a RoboVLMs checkpoint, strictly."""
        head = filter_keys(weights.tensors, lambda name: name.startswith("model.act_head."))
        ROBOVLMS_NAMES.load(self, head, weights.source)

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Name the weights as a checkpoint of RoboVLMs does."""
        return ROBOVLMS_NAMES.publish(self.state_dict())

    def _run(self, features: Tensor, state: State | None) -> tuple[Tensor, Tensor | None, State]:
        """(B T D) -> pose (B T H A_continuous), gripper logits (B T H A_binary), LSTM state.

        state: the LSTM's state before the first frame; None: zeros.
        """
        hidden, state = self._run_lstm(features, state)
        if self.skip:
            hidden = torch.cat([hidden, features.to(hidden.dtype)], dim=-1)
        chunks = "b t (h a) -> b t h a"
        pose = self.bound(rearrange(self.pose(hidden), chunks, h=self.horizon))
        if self.gripper is None:
            return pose, None, state
        return pose, rearrange(self.gripper(hidden), chunks, h=self.horizon), state

    def _run_lstm(self, features: Tensor, state: State | None) -> tuple[Tensor, State]:
        """(B T D) -> hidden states (B T hidden_size), and the LSTM's state after the last frame."""
        device, dtype = features.device.type, next(self.lstm.parameters()).dtype
        # On a CPU the LSTM never runs in mixed precision, because not every CPU supports it.
        is_mixed = torch.is_autocast_enabled(device) and device != "cpu"
        before = None
        if state is not None:  # (layers B hidden_size), as torch has it
            before = tuple(state[name].to(dtype).transpose(0, 1).contiguous() for name in STATE)
        with torch.autocast(device, enabled=is_mixed):
            hidden, after = self.lstm(features if is_mixed else features.to(dtype), before)
        pairs = zip(STATE, after, strict=True)
        return hidden, {name: x.transpose(0, 1).to(dtype) for name, x in pairs}

    def _actions(self, pose: Tensor, logits: Tensor | None) -> Tensor:
        """Turn the results of `_run` into actions (B T H A)."""
        return pose if logits is None else self.dimensions.join(pose, logits.sigmoid())


def _check_action(config: LSTMConfig, action: ActionSpec) -> None:
    if not action.continuous:
        raise ConfigError(
            "policy_head.name: 'lstm' regresses continuous dimensions, and this action has none"
        )
    if config.tanh and not action.bounded:
        raise ConfigError(
            "policy_head.tanh: actions leave [-1, 1] under this action.normalization and tanh "
            "cannot follow; set policy_head.tanh = false or choose a bounded action.normalization"
        )


@torch.no_grad()
def _set_span(lstm: nn.LSTM, span: int) -> None:
    """Let the cells forget over 2 to `span` frames, as many cells in each octave.

    A cell with the forget gate f keeps its contents for about 1 / (1 - f) frames, so the gate's
    bias is log(frames - 1). The input gate's bias is the opposite: a cell that keeps its contents
    for long adds little to them in each frame (Tallec and Ollivier 2018).
    """
    size = lstm.hidden_size
    for layer in lstm.all_weights:
        frames = torch.empty(size).uniform_(math.log(2), math.log(span)).exp()
        bias = (frames - 1).log()
        # the gates' order is: input, forget, cell, output; PyTorch adds up the two biases
        layer[2][: 2 * size] = torch.cat([-bias, bias])
        layer[3][: 2 * size] = 0


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Build linear layers with ReLU between them, initialised after He et al. (2015).

    That initialisation keeps the scale of the activations from layer to layer. With torch's
    default, the LSTM's small outputs shrink about a hundredfold in these layers, and for hundreds
    of training steps the policy gives the same actions for all inputs.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "lstm"."""
    register("lstm", LSTMConfig, LSTMHead)
