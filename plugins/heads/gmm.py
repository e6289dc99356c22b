"""Samples each frame's chunk from a mixture of Gaussians, given that frame's readout."""

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import (
    ActionDimensions,
    ActionSpec,
    Batch,
    Context,
    ContextSpec,
    Generator,
    PolicyHead,
    Register,
    build_mlp,
    hookimpl,
)

# one tensor for the continuous dimensions (... A_continuous), one for the binary (... A_binary)
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class GMMConfig:
    """A mixture of Gaussians over whole chunks, one for each frame; the head has no memory."""

    components: Annotated[int, Gt(0)] = 5
    """number of Gaussians in the mixture."""
    mlp: tuple[Annotated[int, Gt(0)], ...] = (1024, 1024)
    """widths of the hidden layers between the readout and the mixture."""
    min_std: Annotated[float, Gt(0)] = 0.01
    """the smallest standard deviation, in normalised units. robomimic's recipes have 1e-4, with
    which dimensions that never change outweigh all others.
    """
    low_noise: bool = True
    """true: an action is the mean of the component that was drawn, as in robomimic's low-noise
    evaluation, whose standard deviation is 1e-4; false: it is a sample of that component.
    """


class GMMHead(PolicyHead):
    """Learns the distribution of a frame's chunks by maximum likelihood, and samples from it.

    This is the mixture of robomimic's BC-GMM (Mandlekar et al. 2021), over chunks: the component is
    drawn once for all steps and dimensions of a chunk, so that a chunk keeps to one of the ways in
    which demonstrators did a task. Given the component, all entries are independent: continuous
    ones Gaussian, binary ones Bernoulli, so that the gripper fits the way that was drawn.

    The head has no memory. With `formulation = "interleaved"` the backbone puts the history into
    the readout, as the RNN of robomimic's BC-RNN-GMM does. If actions are bounded, a tanh keeps the
    components' means in [-1, 1].
    """

    def __init__(self, config: GMMConfig, *, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        self.config, self.horizon = config, action.horizon
        self.bound = nn.Tanh() if action.bounded else nn.Identity()
        self.dimensions = ActionDimensions(action)
        # outputs of one component: its weight, then means, standard deviations and logits
        numbers, binary = (action.horizon * len(x) for x in (action.continuous, action.binary))
        self.sizes = [1, numbers, numbers, binary]
        outputs = config.components * sum(self.sizes)
        # The components begin apart from one another, because the outputs do not begin near zero.
        self.mlp = build_mlp([context.width, *config.mlp, outputs], "relu")

    def forward(self, context: Context, generator: Generator) -> Tensor:
        """Sample actions (B T H A).

        Binary dimensions are samples in {0, 1}; with `low_noise`, they are the probabilities of 1
        in the component that was drawn.
        """
        mixture = self._mixture(context.readout)
        return self.dimensions.join(*mixture.sample(generator, noise=not self.config.low_noise))

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return "nll", the negative log-likelihood of the chunks per action that is not masked."""
        log_likelihood, count = self._log_likelihood(context, batch)
        return {"nll": -log_likelihood.sum() / count.sum().clamp(min=1)}

    def validation_error(self, context: Context, batch: Batch, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return the negative log-likelihood of each sample per action that is not masked (B)."""
        log_likelihood, count = self._log_likelihood(context, batch)
        return -log_likelihood / count.clamp(min=1)

    def _log_likelihood(self, context: Context, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return each sample's log-likelihood (B), and how many actions are not masked (B)."""
        actions, mask = batch.targets
        mixture = self._mixture(context.readout)
        by_frame = mixture.log_likelihood(
            self.dimensions.split(actions), self.dimensions.split(mask)
        )
        return by_frame.sum(dim=1), mask.flatten(1).sum(dim=1)

    def _mixture(self, readout: Tensor) -> "Mixture":
        """Readout (B T Q D) -> the mixture of each frame, float32."""
        outputs = self.mlp(readout.mean(dim=2)).float()
        outputs = rearrange(outputs, "b t (k n) -> b t k n", k=self.config.components)
        weights, means, stds, logits = outputs.split(self.sizes, dim=-1)
        return Mixture(
            weights.squeeze(-1).log_softmax(dim=-1),
            self._steps(self.bound(means)),
            self._steps(F.softplus(stds) + self.config.min_std),
            self._steps(logits),
        )

    def _steps(self, outputs: Tensor) -> Tensor:
        """(B T K H*n) -> (B T K H n)."""
        return rearrange(outputs, "b t k (h n) -> b t k h n", h=self.horizon)


@dataclass(frozen=True)
class Mixture:
    """Distributions of chunks with K components, in each of which all entries are independent.

    log_weights: (B T K), logarithms of the components' probabilities.
    means, stds: (B T K H A_continuous), of Gaussians.
    logits: (B T K H A_binary), of Bernoulli distributions.
    """

    log_weights: Tensor
    means: Tensor
    stds: Tensor
    logits: Tensor

    def log_likelihood(self, actions: Pair, mask: Pair) -> Tensor:
        """Return the log-likelihood of chunks (B T); actions and mask are pairs of (B T H ...).

        Masked entries are integrated out: they count as if the distribution did not have them.
        """
        numbers, binary = (
            x.masked_fill(~seen, 0)[:, :, None] for x, seen in zip(actions, mask, strict=True)
        )
        distance = (numbers - self.means) / self.stds
        gaussian = -distance.square() / 2 - self.stds.log() - math.log(2 * math.pi) / 2
        bernoulli = -F.binary_cross_entropy_with_logits(
            self.logits, binary.expand_as(self.logits), reduction="none"
        )
        joint = self.log_weights  # (B T K), of component and chunk
        for entries, seen in zip((gaussian, bernoulli), mask, strict=True):
            joint = joint + (entries * seen[:, :, None]).flatten(3).sum(dim=-1)
        return joint.logsumexp(dim=-1)

    def sample(self, generator: Generator, *, noise: bool) -> Pair:
        """Draw a component for each frame, and a chunk from it: a pair of (B T H ...).

        noise: if False, the chunk is the component's means, and the probabilities of 1.
        """
        cumulative = self.log_weights.exp().cumsum(dim=-1)[..., :-1]
        drawn = generator.uniform(*cumulative.shape[:2], 1) >= cumulative
        index = drawn.sum(dim=-1)[..., None, None, None]  # of the component, (B T 1 1 1)
        means, stds, logits = (
            x.take_along_dim(index, dim=2).squeeze(2) for x in (self.means, self.stds, self.logits)
        )
        if not noise:
            return means, logits.sigmoid()
        binary = generator.uniform(*logits.shape) < logits.sigmoid()
        return means + stds * generator.normal(*means.shape), binary.float()


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "gmm"."""
    register("gmm", GMMConfig, GMMHead)
