"""Predicts the tokens of a chunk: the keys that both heads have, cross-entropy, and sampling."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from core import Context, ContextSpec, Generator, Need
from plugins.heads.tokens.decoders import AutoregressiveDecoder, ParallelDecoder
from plugins.heads.tokens.vocabulary import LanguageModelVocabulary, OwnVocabulary


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """How tokens are predicted."""

    decode: Literal["parallel", "autoregressive"] = "autoregressive"
    """"parallel": all tokens of a chunk at once, from the readout; "autoregressive": one after
    another, each given those before it, which needs a backbone that can be extended.
    """
    vocabulary: Literal["own", "language_model"] = "own"
    """where tokens are embedded and scored: "own": in layers of the head; "language_model": as the
    last words of the text encoder's vocabulary, as in OpenVLA.
    """
    reserved: Annotated[int, Ge(0)] = 0
    """number of ids at the end of the language model's vocabulary that stand for no token: 64 for
    the padding of OpenVLA's weights, 128 in pi0-FAST.
    """
    temperature: Annotated[float, Ge(0)] = 0.0
    """0: the likeliest token is chosen; above: tokens are sampled, from logits divided by this."""

    def __post_init__(self) -> None:
        if self.reserved and self.vocabulary == "own":
            raise ValueError('reserved has no effect with vocabulary = "own"; drop it')


class TokenPredictor(nn.Module):
    """Predicts the tokens of each frame's chunk; all tokens are numbers from 0 to `count` - 1.

    length: number of tokens in a chunk (n).
    count: number of different tokens (C).
    allowed: (n C) bool, which tokens can stand at each place; None: all. Only these are compared.

    needs: what the context must hold, which depends on the configuration.

    Raises ConfigError if the tokens do not fit the action tokens or the vocabulary.
    """

    def __init__(
        self,
        config: PredictorConfig,
        *,
        context: ContextSpec,
        length: int,
        count: int,
        allowed: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.length, self.temperature = length, config.temperature
        is_parallel = config.decode == "parallel"
        vocabulary = (
            OwnVocabulary(count, context.width, embeds=not is_parallel)
            if config.vocabulary == "own"
            else LanguageModelVocabulary(count, context.vocabulary, config.reserved)
        )
        decoder = ParallelDecoder if is_parallel else AutoregressiveDecoder
        self.decoder = decoder(vocabulary, length, context)
        self.needs: frozenset[Need] = self.decoder.needs | vocabulary.needs
        self.allowed: Tensor | None
        self.register_buffer("allowed", allowed, persistent=False)

    def entropy(self, context: Context, tokens: Tensor) -> Tensor:
        """Return the cross-entropy of given tokens (B T n) int64, in nats -> (B T n) float32."""
        logits = self._restrict(self.decoder.logits(context, tokens), 0)
        return F.cross_entropy(logits.movedim(-1, 1), tokens, reduction="none")

    def decode(self, context: Context, generator: Generator, end: int | None = None) -> Tensor:
        """Write tokens (B T m) int64: m = n, or less if every frame has written the token `end`."""
        noise = generator.uniform(*context.frame.shape, self.length) if self.temperature else None

        def choose(logits: Tensor, first: int) -> Tensor:
            logits = self._restrict(logits, first)
            if noise is None:
                return logits.argmax(dim=-1)
            chances = (logits / self.temperature).softmax(dim=-1)
            return sample(chances, noise[..., first : first + logits.shape[2]])

        return self.decoder.decode(context, choose, end)

    def _restrict(self, logits: Tensor, first: int) -> Tensor:
        """Give tokens that cannot stand at a place no chance; logits (B T n C) from `first` on."""
        if self.allowed is None:
            return logits
        allowed = self.allowed[first : first + logits.shape[2]]
        return logits.masked_fill(~allowed, -torch.inf)


def sample(chances: Tensor, noise: Tensor) -> Tensor:
    """Draw from distributions (... C) by the inverse of their cumulative sum -> (...) int64.

    noise: (...), uniform in [0, 1).
    """
    below = chances.cumsum(dim=-1)
    index = torch.searchsorted(below, noise[..., None] * below[..., -1:], right=True)
    return index.squeeze(-1).clamp(max=chances.shape[-1] - 1)
