"""Instructions and images as tokens, before and after the projection to the backbone's width."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from core.contracts.batch import TokenGroup


@dataclass(frozen=True)
class EncodedText:
    """Instruction tokens before the projection (B N D_text), and after the projection (B N D)."""

    encoded: TokenGroup
    projected: TokenGroup


@dataclass(frozen=True)
class EncodedImages:
    """Image tokens before the projection (B T N D_vision), and after the projection (B T N D)."""

    encoded: TokenGroup
    projected: TokenGroup


def stack_text(rows: Sequence[EncodedText]) -> EncodedText:
    """Join instructions that were encoded alone (1 N_i D) -> (B N D), zero-padded on the right."""
    return EncodedText(
        _stack([row.encoded for row in rows]), _stack([row.projected for row in rows])
    )


def _stack(groups: Sequence[TokenGroup]) -> TokenGroup:
    lengths = [group.tokens.shape[1] for group in groups]
    tokens = pad_sequence([group.tokens[0] for group in groups], batch_first=True)
    if min(lengths) == max(lengths):
        return TokenGroup(tokens)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return TokenGroup(tokens, mask.to(tokens.device))
