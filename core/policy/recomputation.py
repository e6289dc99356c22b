"""Gradient checkpointing (Chen et al. 2016): a block's activations are computed again in the
backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from core.contracts.abilities import HasBlocks
from core.errors import ConfigError


def recompute_blocks(part: nn.Module, where: str) -> None:
    """Make every block of a part forget its activations, in place; ConfigError where the part names
    no blocks.

    where: the part's section, for the message.
    """
    blocks = list(part.blocks) if isinstance(part, HasBlocks) else []
    if not blocks:
        raise ConfigError(
            f"{where}.gradient_checkpointing: this part has no repeated blocks; set it to false"
        )
    for block in blocks:
        block.forward = _recomputed(block.forward)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which keeps nothing but its arguments where a backward pass will follow."""

    def run(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        return checkpoint(forward, *arguments, use_reentrant=False, **named)

    return run
