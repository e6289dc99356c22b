"""VQ-BeT's backbone: minGPT, a small GPT-2."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import Backbone, ConfigError, TokenSequence, attend, attention_mask, token_positions
from core.weights import Pretrained
from plugins.policies.vqbet.names import BACKBONE_NAMES, backbone_tensors


@dataclass(frozen=True)
class MinGPTConfig:
    """The sizes of the network; the defaults are those of LeRobot's VQ-BeT."""

    width: Annotated[int, Gt(0)] = 512
    """width of every token and of the readout (D)."""
    hidden_size: Annotated[int, Gt(0)] = 512
    """width inside, between a layer that tokens enter by and one that they leave by."""
    depth: Annotated[int, Gt(0)] = 8
    """number of blocks."""
    heads: Annotated[int, Gt(0)] = 8
    """number of attention heads per block; must be a divisor of `hidden_size`."""
    max_tokens: Annotated[int, Gt(0)] = 500
    """number of learned positions."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """probability of dropout while training, on the first block's input, on attention weights, and
    on the outputs of every attention and MLP.
    """

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"heads = {self.heads} does not divide hidden_size = {self.hidden_size}; choose a "
                "divisor"
            )


class MinGPT(Backbone):
    """A pre-norm decoder with biases and learned positions, as GPT-2 (Radford et al. 2019).

    Which token sees which is the layout's matter. The backbone keeps nothing of earlier frames: it
    runs the whole window at every step, so that its positions are always those of training.

    `pretrained` takes weights of LeRobot's VQ-BeT.
    """

    source = None  # `pretrained = true` is refused: LeRobot publishes many

    def __init__(self, config: MinGPTConfig) -> None:
        super().__init__()
        self.width = config.width
        self.input = nn.Linear(config.width, config.hidden_size)
        self.positions = nn.Embedding(config.max_tokens, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.width, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        # smaller, so that the sum over blocks does not grow with their number
        for name, weight in self.layers.named_parameters():
            if name.endswith("attention.output.weight"):
                nn.init.normal_(weight, std=0.02 / (2 * config.depth) ** 0.5)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks, which can be recomputed and compiled one by one."""
        return list(self.layers)

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> hidden states (S L width).

        Raises ConfigError if the sequence reaches beyond the last position.
        """
        positions = token_positions(sequence)
        self._check_length(positions)
        x = self.dropout(self.input(sequence.tokens) + self.positions(positions))
        mask = attention_mask(sequence)
        for block in self.layers:
            x = block(x, mask)
        return self.output(self.norm(x))  # type: ignore[no-any-return]

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the network's weights, strictly."""
        BACKBONE_NAMES.load(self, backbone_tensors(weights), weights.source)

    def _check_length(self, positions: Tensor) -> None:
        """Raise ConfigError if there are too few positions (S L).

        Private tokens share positions. So the largest one, for which the device must be waited, is
        read only where a sequence has more tokens than there are positions.
        """
        known = self.positions.num_embeddings
        if positions.shape[1] > known and (largest := int(positions.max())) >= known:
            raise ConfigError(
                f"backbone.max_tokens: a sequence reaches position {largest} and the learned "
                f"positions end at {known - 1}; raise it"
            )


class Block(nn.Module):
    """Attention, then an MLP; each reads the normed stream and adds its output to the stream."""

    def __init__(self, config: MinGPTConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.attention_norm = nn.LayerNorm(size)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(size)
        self.expand = nn.Linear(size, 4 * size)
        self.shrink = nn.Linear(4 * size, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(S L n) -> (S L n); mask as in `attend`."""
        x = x + self.attention(self.attention_norm(x), mask)
        hidden = F.gelu(self.expand(self.mlp_norm(x)))
        return x + self.dropout(self.shrink(hidden))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head attention with biases."""

    def __init__(self, config: MinGPTConfig) -> None:
        super().__init__()
        self.heads, self.probability = config.heads, config.dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(S L n) -> (S L n)."""
        q, k, v = rearrange(self.qkv(x), "s l (three h d) -> three s h l d", three=3, h=self.heads)
        mixed, _, _ = attend(q, k, v, mask, dropout=self.probability if self.training else 0.0)
        return self.dropout(self.output(mixed))  # type: ignore[no-any-return]
