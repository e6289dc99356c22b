"""OpenVLA's action tokens: every number of a chunk is one of 256 bins."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from einops import rearrange
from torch import Tensor

from core import (
    ActionSpec,
    Batch,
    ConfigError,
    Context,
    ContextSpec,
    Generator,
    Need,
    PolicyHead,
    masked_mean,
    masked_mean_per_sample,
)
from plugins.heads.tokens.predictor import PredictorConfig, TokenPredictor


@dataclass(frozen=True, kw_only=True)
class BinsConfig(PredictorConfig):
    """Every number of the chunk is a token, as in OpenVLA (Kim et al. 2024)."""

    bins: Annotated[int, Ge(3)] = 256
    """number of edges of the bins over [-1, 1], both ends included, and of tokens. There is one bin
    less; the last token is the value 1 alone.
    """


class BinsHead(PolicyHead):
    """Writes the chunk number by number: step after step, and in each step dimension by dimension.

    Binary dimensions are written with the tokens of 0 and of 1, and no other. In OpenVLA, any token
    can stand there.

    Raises ConfigError if continuous dimensions can leave [-1, 1], or if the tokens do not fit the
    action tokens or the vocabulary.
    """

    def __init__(self, config: BinsConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        if action.continuous and not action.bounded:
            raise ConfigError(
                "policy_head.name: 'bins' covers [-1, 1], and actions leave that range under this "
                'action.normalization; set action.normalization = "min_max" or "clip_range"'
            )
        self.bins, self.horizon = config.bins, action.horizon
        self.is_binary: Tensor
        is_binary = torch.tensor([d in action.binary for d in range(action.dim)])
        self.register_buffer("is_binary", is_binary, persistent=False)
        is_zero_or_one = torch.zeros(config.bins, dtype=torch.bool)
        is_zero_or_one[bin_of(torch.tensor([0.0, 1.0]), config.bins)] = True
        self.predictor = TokenPredictor(
            config,
            context=context,
            length=action.horizon * action.dim,
            count=config.bins,
            allowed=(is_zero_or_one | ~is_binary[:, None]).repeat(action.horizon, 1),
        )

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override] # depends on the configuration
        """What the head reads of the context."""
        return self.predictor.needs

    def forward(self, context: Context, generator: Generator) -> Tensor:
        """Return actions (B T H A): centres of bins, and 0 or 1 for binary dimensions."""
        tokens = self._steps(self.predictor.decode(context, generator))
        return torch.where(self.is_binary, tokens == self.bins - 1, centre_of(tokens, self.bins))

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the mean cross-entropy of the tokens, "token"."""
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
        """Return the cross-entropies of the recorded tokens, and which count; both (B T H A).

        A step counts whole if any of its actions does: a dimension that the robot lacks is learned
        as 0, because the tokens after it read what is written there.
        """
        actions, mask = batch.targets
        # Masked actions hold anything, and the tokens after them must not read that.
        actions = actions.masked_fill(~mask, 0)
        tokens = bin_of(torch.where(self.is_binary, actions.round(), actions), self.bins)
        entropy = self.predictor.entropy(context, tokens.flatten(2))
        counts = mask.any(dim=-1, keepdim=True).expand_as(mask)
        return self._steps(entropy), counts

    def _steps(self, x: Tensor) -> Tensor:
        """(B T H*A) -> (B T H A)."""
        return rearrange(x, "b t (h a) -> b t h a", h=self.horizon)


def bin_of(actions: Tensor, bins: int) -> Tensor:
    """Return the token of each action, int64: the number of edges up to it, less 1.

    The edges are `bins` equally spaced numbers from -1 to 1; an action on an edge belongs to the
    bin above. Only 1 and what lies beyond have the last token, `bins` - 1. The edges are computed
    as by numpy's linspace, in float64, so that an action on an edge has the token of OpenVLA.
    """
    steps = torch.arange(bins, dtype=torch.float64, device=actions.device)
    edges = steps * (2 / (bins - 1)) - 1
    edges[-1] = 1
    return torch.bucketize(actions.double(), edges, right=True).clamp(1, bins) - 1


def centre_of(tokens: Tensor, bins: int) -> Tensor:
    """Return the centre of each token's bin, float32; the last token has the last bin's."""
    return (2 * tokens.clamp(max=bins - 2).float() + 1) / (bins - 1) - 1
