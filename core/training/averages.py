"""An exponential moving average of the weights (Polyak and Juditsky 1992)."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverages:
    """Averages of all trainable parameters of a model; buffers and frozen weights have none.

    The averages begin as the parameters' present values. Their precision is at least float32:
    bfloat16 would round the small changes of a step away. PyTorch's AveragedModel is not used,
    because it copies the whole model, frozen weights included, and keeps its numbers' format.

    decay: share of the averages that a step keeps, in (0, 1), once the averages are warmed up.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.averages = [
            p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for p in self.parameters
        ]
        numbers = {parameter: number for number, parameter in enumerate(self.parameters)}
        # with every name of a shared parameter
        self._numbers_by_name = {
            name: numbers[parameter]
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if parameter in numbers
        }

    def restart(self) -> None:
        """Let the averages begin as the parameters' present values."""
        _copy([p.detach() for p in self.parameters], self.averages)

    @torch.no_grad()
    def update(self, step: int, frozen: Collection[nn.Parameter] = ()) -> None:
        """Move the averages towards the weights that `step` optimiser steps have made.

        averages = d * averages + (1 - d) * weights, with d = min(decay, (1 + step) / (10 + step)),
        so the initial weights are soon forgotten. d depends on the step alone: a resumed run needs
        no other state than the averages.

        frozen: parameters whose averages become what they are, because others learn from them as
            they are.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [
            p.detach().to(average.dtype)
            for p, average in zip(self.parameters, self.averages, strict=True)
        ]
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        move(self.averages, weights, step)
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            if parameter in frozen:
                average.copy_(parameter)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Let the model compute with the averages inside the `with` block.

        The weights are copied meanwhile, and copied back after the block, whatever happens in it.
        """
        weights = [p.detach().clone() for p in self.parameters]
        try:
            _copy(self.averages, self.parameters)
            yield
        finally:
            _copy(weights, self.parameters)

    def by_name(self) -> dict[str, Tensor]:
        """Return {name of a parameter in the model's state dict: its average}, not copied."""
        return {name: self.averages[number] for name, number in self._numbers_by_name.items()}


@torch.no_grad()
def _copy(values: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)
