"""ACT's policy head: a decoder whose learned queries attend to all tokens of their frame."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
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
    masked_l1,
)
from core.weights import LeRobotFiles, Pretrained
from plugins.policies.act.layers import DecoderLayer, Sizes
from plugins.policies.act.names import HEAD_NAMES, head_tensors


@dataclass(frozen=True)
class ACTHeadConfig:
    """The sizes of the decoder; the defaults are those of Zhao et al. 2023, as in LeRobot."""

    layers: Annotated[int, Gt(0)] = 1
    """number of layers. (ACT's own code has seven, and by mistake uses the first alone.)"""
    heads: Annotated[int, Gt(0)] = 8
    """number of attention heads per layer; must be a divisor of the backbone's width."""
    mlp_width: Annotated[int, Gt(0)] = 3200
    """width of the hidden layer of each layer's MLP."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """probability of dropout while training, on the attention weights, in the MLP, and on the
    outputs of both.
    """
    average: Literal["counted", "all"] = "counted"
    """which actions the loss is averaged over: "counted", those that are not masked, as in
    Joinery's other heads; "all", with zeros for masked actions, as in ACT's code.
    """


class ACTHead(PolicyHead):
    """Regresses the chunk of a frame at once: one query for each action (Zhao et al. 2023).

    The queries start from zeros and differ by their learned positions. They see one another and,
    if the layout gives tokens positions, those are added to the tokens' keys. A query sees the
    tokens of its frame and, where a sequence holds several frames, of earlier ones. Binary
    dimensions are regressed as -1 and 1.

    The head works with every backbone and layout. What makes it ACT's variational decoder, the
    latent, is a token of the layout "act".

    `pretrained` takes weights of LeRobot's ACT.

    Raises ConfigError if `heads` does not divide the backbone's width.
    """

    needs = frozenset({"tokens"})
    source = None  # `pretrained = true` is refused: LeRobot publishes many

    def __init__(self, config: ACTHeadConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        if context.width % config.heads:
            raise ConfigError(
                f"policy_head.heads: {config.heads} does not divide the backbone's width, "
                f"{context.width}; choose a divisor"
            )
        self.average, self.bounded = config.average, action.bounded
        sizes = Sizes(context.width, config.heads, config.mlp_width, config.dropout)
        self.queries = nn.Parameter(torch.randn(action.horizon, context.width))
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(config.layers))
        self.norm = nn.LayerNorm(context.width)
        self.output = nn.Linear(context.width, action.dim)
        self.dimensions = ActionDimensions(action)
        self.assumptions: tuple[str, ...] = ()

    def forward(self, context: Context, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return actions (B T H A): normalised numbers, and 0 to 1 for binary dimensions."""
        return self.dimensions.unsigned(self._decode(context))

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the mean absolute error "action" over the chunks of all frames."""
        actions, mask = batch.targets
        target = self.dimensions.signed(actions, mask)
        error = masked_l1(self._decode(context), target, mask)
        if self.average == "all":
            error = error * mask.float().mean()
        return {"action": error}

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the decoder's weights, strictly.

        Raises ConfigError also if the weights act in numbers that are normalised in another way.
        """
        files = LeRobotFiles(weights)
        files.check_action_normalization(bounded=self.bounded)
        HEAD_NAMES.load(self, head_tensors(weights), weights.source)
        self.assumptions = files.describe_expected("action", "actions")

    def _decode(self, context: Context) -> Tensor:
        """Let the queries of every frame attend to its tokens -> (B T H A) float32."""
        memory = context.memory
        assert memory is not None
        tokens, places = memory.tokens, memory.sequence.position_embedding
        keys = tokens if places is None else tokens + places.to(tokens.dtype)
        horizon, count = len(self.queries), tokens.shape[1]
        positions = context.fold(self.queries.expand(*context.frame.shape, -1, -1))  # (S F*H D)
        # the queries of a frame are one block, so that they see one another
        block = torch.zeros(horizon, dtype=torch.int64, device=tokens.device)
        mask = context.attention_mask(horizon, block)  # (S 1 F*H L+F*H)
        x = torch.zeros_like(positions)
        for layer in self.layers:
            x = layer(x, positions, mask[..., count:], keys, tokens, mask[..., :count])
        return context.unfold(self.output(self.norm(x))).float()
