"""Attention masks and positions, computed from the labels of a TokenSequence."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from core.contracts.batch import Memory, TokenSequence


def attention_mask(sequence: TokenSequence, past: TokenSequence | None = None) -> Tensor | None:
    """Which token (row) sees which (column) -> (S 1 L P+L) bool; None: causal, as fused kernels
    know it.

    past: P tokens that came before, and whose keys stand before those of the sequence. Padding sees
    itself, so that no row is empty.
    """
    if past is None and sequence.block is None and sequence.private is None:
        # real tokens stand first and frames in order, so causality hides padding and later frames
        return None
    visible = _visible(sequence, sequence, blocks_of(sequence), blocks_of(sequence))
    visible = visible | torch.eye(visible.shape[-1], dtype=torch.bool, device=visible.device)
    if past is not None:
        visible = torch.cat(
            [_visible(sequence, past, blocks_of(sequence), blocks_of(past)), visible], dim=-1
        )
    return visible.unsqueeze(1)


def token_positions(sequence: TokenSequence, past: TokenSequence | None = None) -> Tensor:
    """Each token's position (S L) int64: how many real tokens stand before it, of those it may ever
    see.
    """
    count, length = sequence.tokens.shape[:2]
    if past is None and sequence.private is None:
        return torch.arange(length, device=sequence.tokens.device).expand(count, -1)
    anything = torch.zeros_like(sequence.frame)
    own = _visible(sequence, sequence, anything, anything)
    before = own.tril(-1).sum(dim=-1)
    if past is None:
        return before
    return before + _visible(sequence, past, anything, torch.zeros_like(past.frame)).sum(dim=-1)


def blocks_of(sequence: TokenSequence) -> Tensor:
    """The blocks (S L) int64, spelled out where the sequence is causal."""
    if sequence.block is not None:
        return sequence.block
    return torch.arange(sequence.frame.shape[1], device=sequence.frame.device).expand_as(
        sequence.frame
    )


def make_memory(
    sequence: TokenSequence,
    tokens: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    hidden_states: Sequence[Tensor],
    past: Memory | None,
) -> Memory:
    """Build the memory of the past and a sequence together.

    tokens (S L D), hidden_states of each layer (S L D): of the sequence alone. keys, values of each
    layer (S K P+L d): of all, as attention needed them.
    """
    if past is None:
        return Memory(sequence, tokens, tuple(keys), tuple(values), tuple(hidden_states))
    pairs = zip(past.hidden_states, hidden_states, strict=True) if past.hidden_states else ()
    return Memory(
        sequence=_join(past.sequence, sequence),
        tokens=torch.cat([past.tokens, tokens], dim=1),
        keys=tuple(keys),
        values=tuple(values),
        hidden_states=tuple(torch.cat(pair, dim=1) for pair in pairs),
    )


def _join(past: TokenSequence, sequence: TokenSequence) -> TokenSequence:
    """Put tokens (S L) behind those before (S P) -> (S P+L); where actions are read is the past's
    to say.
    """
    before, after = _filled(past), _filled(sequence)
    columns = ("tokens", "mask", "frame", "kind", "block", "private")
    joined: dict[str, Any] = {
        name: torch.cat([getattr(before, name), getattr(after, name)], dim=1) for name in columns
    }
    return replace(past, **joined, grid=None)


def _visible(
    rows: TokenSequence, columns: TokenSequence, row_block: Tensor, column_block: Tensor
) -> Tensor:
    """(S L) rows, (S K) columns -> (S L K) bool."""
    earlier = columns.frame[:, None, :] <= rows.frame[:, :, None]
    visible = earlier & (column_block[:, None, :] <= row_block[:, :, None])
    if columns.private is not None:
        same = columns.frame[:, None, :] == rows.frame[:, :, None]
        visible = visible & (same | ~columns.private[:, None, :])
    return visible if columns.mask is None else visible & columns.mask[:, None, :]


def _filled(sequence: TokenSequence) -> TokenSequence:
    """Put tensors in place of defaults (None), so that two sequences can be joined."""
    everything = torch.ones_like(sequence.frame, dtype=torch.bool)
    return replace(
        sequence,
        mask=everything if sequence.mask is None else sequence.mask,
        block=blocks_of(sequence),
        private=~everything if sequence.private is None else sequence.private,
    )
