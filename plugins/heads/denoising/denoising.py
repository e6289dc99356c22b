"""What all heads that denoise have in common, whatever their process and their network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from core import (
    ActionDimensions,
    ActionSpec,
    Batch,
    Context,
    Generator,
    masked_mean,
    masked_mean_per_sample,
)

# noisy chunks (B T H A) float32 and their times (B T) float32 -> (B T H A) float32
Predict = Callable[[Tensor, Tensor], Tensor]
# times (B T) and a width -> features (B T width) float32
EncodeTime = Callable[[Tensor, int], Tensor]


class Denoiser(nn.Module, ABC):
    """A network that reads a noisy chunk, its time, and what the policy observed.

    blocks: the repeated blocks, for gradient checkpointing.
    """

    blocks: Iterable[nn.Module]

    @abstractmethod
    def observe(self, context: Context) -> Any:
        """Return what `forward` needs of the context; sampling computes this once for all steps."""

    @abstractmethod
    def forward(self, x: Tensor, time: Tensor, observed: Any) -> Tensor:
        """Noisy chunks (B T H A), times (B T), result of `observe` -> (B T H A), all float32."""


class Process(Protocol):
    """How actions become noise in training, and noise becomes actions while acting."""

    def errors(self, predict: Predict, actions: Tensor, generator: Generator) -> Tensor:
        """Ask the network about noisy versions of actions (B T H A) -> squared errors (B T H A)."""

    def sample(self, predict: Predict, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Turn noise into actions of a shape (B T H A)."""


class Denoising(nn.Module):
    """A process and a denoiser for the chunks of one kind of action.

    On the way from noise to actions, binary dimensions are -1 and 1, and masked actions are 0.
    """

    def __init__(
        self, process: Process, denoiser: Denoiser, action: ActionSpec, *, clip: bool
    ) -> None:
        super().__init__()
        self.process = process
        self.denoiser = denoiser
        self.dimensions = ActionDimensions(action)
        self.chunk = (action.horizon, action.dim)
        self.clip = clip and action.bounded

    def sample(self, context: Context, generator: Generator) -> Tensor:
        """Return a sampled chunk for every frame (B T H A), with binary dimensions in [0, 1]."""
        shape = (*context.frame.shape, *self.chunk)
        x = self.process.sample(self._predict(context), shape, generator)
        return self.dimensions.unsigned(x.clamp(-1, 1) if self.clip else x)

    def loss(self, context: Context, batch: Batch, generator: Generator) -> Tensor:
        """Return the mean squared error of the network over all actions that are not masked."""
        return masked_mean(*self._errors(context, batch, generator))

    def error_per_sample(self, context: Context, batch: Batch, generator: Generator) -> Tensor:
        """Return the same mean for every sample (B)."""
        return masked_mean_per_sample(*self._errors(context, batch, generator))

    def _errors(
        self, context: Context, batch: Batch, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the network's squared errors, and the mask of the actions, both (B T H A)."""
        actions, mask = batch.targets
        actions = self.dimensions.signed(actions, mask)
        return self.process.errors(self._predict(context), actions, generator), mask

    def _predict(self, context: Context) -> Predict:
        return partial(self.denoiser, observed=self.denoiser.observe(context))
