"""FAST's action tokens: a chunk is a short sequence of tokens of its cosine transform."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from core import (
    ActionDimensions,
    ActionSpec,
    Batch,
    ConfigError,
    Context,
    ContextSpec,
    DataError,
    Generator,
    Need,
    PolicyHead,
    masked_mean,
    masked_mean_per_sample,
)
from plugins.heads.tokens.fast_tokenizer import FastTokenizer, fill_masked
from plugins.heads.tokens.predictor import PredictorConfig, TokenPredictor


@dataclass(frozen=True, kw_only=True)
class FastConfig(PredictorConfig):
    """A chunk is a sequence of FAST tokens and an end token (Pertsch et al. 2025)."""

    tokenizer: Path
    """file of the fitted tokenizer, as `joinery tokenizer fast` writes it."""


class FastHead(PolicyHead):
    """Writes the FAST tokens of a chunk, and then the end token.

    A chunk has at most as many tokens as the longest to which the tokenizer was fitted; then the
    end token is left out. Of a longer one the last tokens, which are of high frequencies, are cut
    off. Every sequence of tokens is a chunk, as `FastTokenizer.decode` says; without any token it
    is all zeros. What leaves the range of actions is clipped.

    Binary dimensions are transformed like the others, as 0 and 1. A chunk counts in the loss if
    any of its actions does; masked actions are replaced as `fill_masked` says.

    In training, the chunks are encoded on the CPU, for which every step waits for the device.

    Raises ConfigError if the tokenizer was fitted to chunks of another shape, or if the tokens do
    not fit the action tokens or the vocabulary; DataError if the file cannot be read.
    """

    def __init__(self, config: FastConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        try:
            self.tokenizer = FastTokenizer.load(config.tokenizer)
        except DataError as error:
            raise DataError(f"policy_head.tokenizer: {error}") from error
        fitted, wanted = (self.tokenizer.horizon, self.tokenizer.dim), (action.horizon, action.dim)
        if fitted != wanted:
            raise ConfigError(
                f"policy_head.tokenizer: '{config.tokenizer}' was fitted to chunks of "
                f"{fitted[0]} x {fitted[1]} numbers, and the recipe's have "
                f"{wanted[0]} x {wanted[1]}; fit another with `joinery tokenizer fast`"
            )
        self.end, self.longest = self.tokenizer.size, self.tokenizer.longest
        self.bounded, self.dimensions = action.bounded, ActionDimensions(action)
        self.predictor = TokenPredictor(
            config, context=context, length=self.longest, count=self.end + 1
        )

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override] # depends on the configuration
        """What the head reads of the context."""
        return self.predictor.needs

    def forward(self, context: Context, generator: Generator) -> Tensor:
        """Return actions (B T H A): normalised; numbers of binary dimensions lie in [0, 1]."""
        tokens = self.predictor.decode(context, generator, self.end)
        is_end = tokens == self.end
        lengths = (is_end.cumsum(dim=-1) == 0).sum(dim=-1)
        rows = zip(tokens.flatten(0, 1).tolist(), lengths.flatten().tolist(), strict=True)
        chunks = torch.from_numpy(self.tokenizer.decode([row[:length] for row, length in rows]))
        actions = rearrange(chunks.to(tokens.device), "(b t) h a -> b t h a", b=len(tokens))
        continuous, binary = self.dimensions.split(actions)
        if self.bounded:
            continuous = continuous.clamp(-1, 1)
        return self.dimensions.join(continuous, binary.clamp(0, 1))

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the mean cross-entropy of the tokens, the end token included, "token"."""
        return {"token": masked_mean(*self._entropy(context, batch))}

    def validation_error(
        self,
        context: Context,
        batch: Batch,
        generator: Generator,  # noqa: ARG002
    ) -> Tensor | None:
        """Return the mean cross-entropy of each sample (B) if actions are sampled, else None."""
        if not self.predictor.temperature:
            return None
        return masked_mean_per_sample(*self._entropy(context, batch))

    def _entropy(self, context: Context, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross-entropies of the recorded tokens, and which count; both (B T n)."""
        actions, mask = batch.targets
        tokens = self._encode(actions, mask)
        is_end = tokens == self.end
        counts = is_end.cumsum(dim=-1) <= is_end  # up to the first end token
        is_real = mask.flatten(2).any(dim=-1, keepdim=True)
        return self.predictor.entropy(context, tokens), counts & is_real

    def _encode(self, actions: Tensor, mask: Tensor) -> Tensor:
        """Actions (B T H A) -> their tokens (B T n) int64, filled up with the end token."""
        chunks = fill_masked(actions.flatten(0, 1).cpu().numpy(), mask.flatten(0, 1).cpu().numpy())
        tokens = np.full((len(chunks), self.longest), self.end)
        for row, ids in zip(tokens, self.tokenizer.encode(chunks), strict=True):
            row[: len(ids)] = ids[: self.longest]
        targets = torch.from_numpy(tokens).to(actions.device)
        return rearrange(targets, "(b t) n -> b t n", b=len(actions))
