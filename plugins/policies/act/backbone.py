"""ACT's transformer encoder: DETR's (Carion et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from core import Backbone, TokenSequence, attention_mask, token_positions
from core.weights import Pretrained
from plugins.policies.act.layers import EncoderLayer, Sizes, sines
from plugins.policies.act.names import BACKBONE_NAMES, backbone_tensors, check_settings


@dataclass(frozen=True)
class ACTBackboneConfig:
    """The sizes of the encoder; the defaults are those of Zhao et al. 2023, as in LeRobot."""

    width: Annotated[int, Gt(0)] = 512
    """width of every token (D); must be even."""
    depth: Annotated[int, Gt(0)] = 4
    """number of layers."""
    heads: Annotated[int, Gt(0)] = 8
    """number of attention heads per layer; must be a divisor of the width."""
    mlp_width: Annotated[int, Gt(0)] = 3200
    """width of the hidden layer of each layer's MLP."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """probability of dropout while training, on the attention weights, in the MLP, and on the
    outputs of both.
    """

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"width = {self.width} is odd; choose an even number")
        if self.width % self.heads:
            raise ValueError(
                f"heads = {self.heads} does not divide width = {self.width}; choose a divisor"
            )


class ACTBackbone(Backbone):
    """A post-norm encoder that adds positions to queries and keys in every layer.

    The positions are the layout's `position_embedding`. For a layout without them they are sines of
    each token's index. Which token sees which is the layout's matter, too, as in every backbone.

    `pretrained` takes weights of LeRobot's ACT.
    """

    source = None  # `pretrained = true` is refused: LeRobot publishes many

    def __init__(self, config: ACTBackboneConfig) -> None:
        super().__init__()
        self.width = config.width
        sizes = Sizes(config.width, config.heads, config.mlp_width, config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(config.depth))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The layers, which can be recomputed and compiled one by one."""
        return list(self.layers)

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> hidden states (S L width)."""
        x, positions = sequence.tokens, sequence.position_embedding
        if positions is None:
            positions = sines(token_positions(sequence).float(), self.width)
        mask = attention_mask(sequence)
        if mask is None:  # causal
            length = x.shape[1]
            mask = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        for layer in self.layers:
            x = layer(x, positions.to(x.dtype), mask)
        return x

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the encoder's weights, strictly."""
        check_settings(weights)
        BACKBONE_NAMES.load(self, backbone_tensors(weights), weights.source)
