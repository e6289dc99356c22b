"""RoboVLMs' policy head: an LSTM over the window, then one MLP for the pose and one for the
gripper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt
from einops import rearrange
from torch import Tensor, nn

from core import (
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

ROBOVLMS = NameMap(
    {
        "lstm": "model.act_head.rnn",
        "pose.*": "model.act_head.actions.mlp.*",
        "gripper.*": "model.act_head.gripper.mlp.*",
    }
)
POSE_LOSSES = {"huber": masked_huber, "mse": masked_mse, "l1": masked_l1}


@dataclass(frozen=True)
class LSTMConfig:
    """The head of RoboVLMs (Liu et al. 2025); the defaults are its published sizes, 41.2 M
    parameters in Kosmos-2.
    """

    layers: Annotated[int, Gt(0)] = 4
    """number of LSTM layers."""
    hidden_size: Annotated[int, Gt(0)] = 1024
    """width of the LSTM."""
    mlp: tuple[Annotated[int, Gt(0)], ...] = (1024, 512, 256)
    """widths of the hidden layers of both MLPs."""
    loss: Literal["huber", "mse", "l1"] = "huber"
    """of the continuous dimensions, "huber" (delta 1, as RoboVLMs runs), "mse" (as its paper says)
    or "l1".
    """
    gripper_weight: Annotated[float, Ge(0)] = 0.01
    """factor of the binary cross-entropy in the sum of the losses."""
    tanh: bool = True
    """bound the continuous dimensions to [-1, 1]."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """between the LSTM's layers while training, a probability."""

    def __post_init__(self) -> None:
        if self.dropout and self.layers == 1:
            raise ValueError(
                "dropout acts between layers, and layers = 1; raise layers or drop dropout"
            )


class LSTMHead(PolicyHead):
    """Regresses the continuous dimensions and classifies the binary ones, at every frame of the
    window.

    Raises ConfigError where tanh cannot reach the actions, or no dimension is continuous.
    `pretrained` takes a
    RoboVLMs .ckpt.
    """

    source = None

    def __init__(self, config: LSTMConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        _check(config, action)
        self.width, self.window, self.horizon = context.width, action.window, action.horizon
        self.gripper_weight = config.gripper_weight
        self.pose_loss = POSE_LOSSES[config.loss]
        self.lstm = nn.LSTM(
            context.width,
            config.hidden_size,
            config.layers,
            batch_first=True,
            dropout=config.dropout,
        )
        outputs = action.horizon * len(action.continuous)
        self.pose = _mlp([config.hidden_size, *config.mlp, outputs])
        self.bound = nn.Tanh() if config.tanh else nn.Identity()
        outputs = action.horizon * len(action.binary)
        self.gripper = _mlp([config.hidden_size, *config.mlp, outputs]) if action.binary else None
        # Index tensors live on the head's device: indexing with Python lists would copy them there
        # at every step.
        self.continuous: Tensor
        self.binary: Tensor
        self.order: Tensor
        self.register_buffer("continuous", torch.tensor(action.continuous), persistent=False)
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
        return self._actions(*self._run(context.readout.mean(dim=2)))

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return "pose" and, where a dimension is binary, "gripper" (already weighted), over all
        frames' chunks.
        """
        if batch.actions is None or batch.action_mask is None:
            raise ValueError(
                "the loss compares with batch.actions and batch.action_mask, and the batch has none"
            )
        pose, logits = self._run(context.readout.mean(dim=2))
        target, mask = (
            x.index_select(-1, self.continuous) for x in (batch.actions, batch.action_mask)
        )
        terms = {"pose": self.pose_loss(pose, target, mask)}
        if logits is not None:
            target, mask = (
                x.index_select(-1, self.binary) for x in (batch.actions, batch.action_mask)
            )
            terms["gripper"] = self.gripper_weight * masked_bce(logits, target, mask)
        return terms

    def initial_state(self, rows: int) -> State:
        """The readouts of the last T frames, the oldest first (B T D), and how many there are (B)."""
        like: Tensor = self.lstm.all_weights[0][0]
        return {
            "readouts": like.new_zeros(rows, self.window, self.width),
            "count": torch.zeros(rows, dtype=torch.int64, device=like.device),
        }

    def act(self, context: Context, state: State, generator: Generator) -> tuple[Tensor, State]:  # noqa: ARG002
        """One frame -> actions (B H A) and the next state.

        The window is run anew from a fresh LSTM state, so that a step computes what training
        computed. (RoboVLMs carries the LSTM's state for the first T steps and re-runs the last T
        features from then on.)
        """
        readouts = push_frame(state["readouts"], state["count"], context.readout.mean(dim=2))
        place = state["count"].clamp(max=self.window - 1)
        actions = self._actions(
            *self._run(readouts)
        )  # (B T H A); what stands behind the newest frame means nothing
        rows = torch.arange(len(place), device=place.device)
        return actions[rows, place], {"readouts": readouts, "count": place + 1}

    def load_pretrained(self, weights: Pretrained) -> None:
        """Take the head of a RoboVLMs checkpoint, strictly."""
        head = filter_keys(weights.tensors, lambda name: name.startswith("model.act_head."))
        ROBOVLMS.load(self, head, weights.source)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as RoboVLMs does."""
        return ROBOVLMS.publish(self.state_dict())

    def describe(self) -> dict[str, Any]:
        """Nothing that a config.json of the hub would say."""
        return {}

    def _run(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B T D) -> pose (B T H A_continuous) and gripper logits (B T H A_binary)."""
        hidden = self._remember(features)
        pose = rearrange(self.pose(hidden), "b t (h a) -> b t h a", h=self.horizon)
        if self.gripper is None:
            return self.bound(pose), None
        return self.bound(pose), rearrange(
            self.gripper(hidden), "b t (h a) -> b t h a", h=self.horizon
        )

    def _remember(self, features: Tensor) -> Tensor:
        """(B T D) -> (B T hidden_size); on a CPU never in mixed precision, which not every CPU has
        for an LSTM.
        """
        where = features.device.type
        mixed = torch.is_autocast_enabled(where) and where != "cpu"
        with torch.autocast(where, enabled=mixed):
            hidden, _ = self.lstm(
                features if mixed else features.to(next(self.lstm.parameters()).dtype)
            )
        return hidden  # type: ignore[no-any-return]

    def _actions(self, pose: Tensor, logits: Tensor | None) -> Tensor:
        """Put the dimensions back in the action's order -> (B T H A)."""
        if logits is None:
            return pose
        return torch.cat([pose, logits.sigmoid()], dim=-1).index_select(-1, self.order)


def _check(config: LSTMConfig, action: ActionSpec) -> None:
    if not action.continuous:
        raise ConfigError(
            "policy_head.name: 'lstm' regresses continuous dimensions, and this action has none"
        )
    if config.tanh and not action.bounded:
        raise ConfigError(
            "policy_head.tanh: actions leave [-1, 1] under this action.normalization and tanh cannot follow; "
            "set policy_head.tanh = false or choose a bounded action.normalization"
        )


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, initialised so that the signal keeps its size (He et
    al. 2015).

    With torch's default the LSTM's small outputs shrink some hundredfold on their way, and for its
    first hundreds of steps the policy is a constant.
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
