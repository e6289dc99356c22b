"""A context that keeps no keys and values, to compare decoding on kept ones with."""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from core import Context


@dataclass(frozen=True)
class UncachedContext(Context):
    """A context whose `extend` runs the observation and all earlier tokens again at every call.

    earlier: the tokens (B T n D) of earlier calls.
    """

    earlier: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, context: Context) -> Self:
        """Return a copy of a context that has not been extended."""
        return cls(**{f.name: getattr(context, f.name) for f in fields(context)})

    def extend(self, tokens: Tensor, block: Tensor | None = None) -> tuple[Tensor, Self]:
        assert block is None, "only causal extensions are run again"
        assert self.backbone is not None
        assert self.memory is not None
        memory = self.backbone.remember(self.memory.sequence)
        together = torch.cat([*self.earlier, tokens], dim=2)
        hidden, _ = Context.extend(replace(self, memory=memory), together)
        return hidden[:, :, -tokens.shape[2] :], replace(self, earlier=(*self.earlier, tokens))
