"""Gradient checkpointing (Chen et al. 2016): the backward pass recomputes activations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from core.contracts.abilities import HasBlocks
from core.errors import ConfigError


def recompute_blocks(part: nn.Module, where: str) -> None:
    """Make every block of a part recompute its activations in the backward pass, in place.

    where: the part's section, for the error message.

    Raises ConfigError if the part has no `blocks`.
    """
    blocks = list(part.blocks) if isinstance(part, HasBlocks) else []
    if not blocks:
        raise ConfigError(
            f"{where}.gradient_checkpointing: this part has no repeated blocks; set it to false"
        )
    for block in blocks:
        block.forward = _with_recomputation(block.forward)


def _with_recomputation(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that only its arguments are kept in memory for the backward pass."""

    def run(*arguments: Any, **keywords: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **keywords)
        return checkpoint(forward, *arguments, use_reentrant=False, **keywords)

    return run
