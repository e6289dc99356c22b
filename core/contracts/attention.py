"""Attention masks and positions, computed from the labels of a TokenSequence.

Token i sees token j if all of these hold: j is real; frame(j) <= frame(i); block(j) <= block(i);
j is not private, or frame(j) = frame(i).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from core.contracts.batch import Memory, TokenSequence


def attention_mask(sequence: TokenSequence, past: TokenSequence | None = None) -> Tensor | None:
    """Return whether a token (row) sees another (column): (S 1 L P+L) bool, or None if causal.

    past: the P tokens that the backbone ran before the sequence. Their columns come first.

    For a causal sequence without a past, this function returns None, so that a backbone can use the
    causal mode of a fused kernel. In a mask, a padding token sees itself, because softmax gives NaN
    for a row without a visible token.
    """
    if past is None and sequence.block is None and sequence.private is None:
        # Real tokens come first and frames are in order, so a causal mask already hides padding and
        # later frames from every real token.
        return None
    visible = _visible(sequence, sequence, blocks_of(sequence), blocks_of(sequence))
    visible = visible | torch.eye(visible.shape[-1], dtype=torch.bool, device=visible.device)
    if past is not None:
        past_visible = _visible(sequence, past, blocks_of(sequence), blocks_of(past))
        visible = torch.cat([past_visible, visible], dim=-1)
    return visible.unsqueeze(1)


def token_positions(sequence: TokenSequence, past: TokenSequence | None = None) -> Tensor:
    """Return each token's position (S L) int64.

    A token's position is the number of real tokens before it in its own frame and earlier frames.
    Tokens that are private to another frame do not count.
    """
    count, length = sequence.tokens.shape[:2]
    if past is None and sequence.private is None:
        return torch.arange(length, device=sequence.tokens.device).expand(count, -1)
    one_block = torch.zeros_like(sequence.frame)
    position = _visible(sequence, sequence, one_block, one_block).tril(-1).sum(dim=-1)
    if past is not None:
        visible = _visible(sequence, past, one_block, torch.zeros_like(past.frame))
        position = position + visible.sum(dim=-1)
    return position


def blocks_of(sequence: TokenSequence) -> Tensor:
    """Return each token's block (S L) int64: 0, 1, 2, ... if the sequence is causal."""
    if sequence.block is not None:
        return sequence.block
    frame = sequence.frame
    return torch.arange(frame.shape[1], device=frame.device).expand_as(frame)


def make_memory(
    sequence: TokenSequence,
    tokens: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    hidden_states: Sequence[Tensor],
    past: Memory | None,
) -> Memory:
    """Return the memory of the past followed by a sequence.

    tokens: (S L D), hidden states of the sequence alone, after the last norm.
    hidden_states: (S L D) for each layer, of the sequence alone.
    keys, values: (S K P+L d) for each layer, of the past and the sequence, as attention used them.
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
    """Append a sequence (S L) to the past (S P) -> (S P+L), with the past's readout.

    The result has neither a grid nor position embeddings.
    """
    before, after = _with_all_labels(past), _with_all_labels(sequence)
    columns = ("tokens", "mask", "frame", "kind", "block", "private")
    joined: dict[str, Any] = {
        name: torch.cat([getattr(before, name), getattr(after, name)], dim=1) for name in columns
    }
    return replace(past, **joined, grid=None, position_embedding=None)


def _with_all_labels(sequence: TokenSequence) -> TokenSequence:
    """Return the sequence with tensors for mask, block and private, even if these were None."""
    everything = torch.ones_like(sequence.frame, dtype=torch.bool)
    return replace(
        sequence,
        mask=everything if sequence.mask is None else sequence.mask,
        block=blocks_of(sequence),
        private=~everything if sequence.private is None else sequence.private,
    )


def _visible(
    rows: TokenSequence, columns: TokenSequence, row_block: Tensor, column_block: Tensor
) -> Tensor:
    """Apply this module's rule: rows (S L), columns (S P) -> whether row sees column (S L P)."""
    earlier = columns.frame[:, None, :] <= rows.frame[:, :, None]
    visible = earlier & (column_block[:, None, :] <= row_block[:, :, None])
    if columns.private is not None:
        same_frame = columns.frame[:, None, :] == rows.frame[:, :, None]
        visible = visible & (same_frame | ~columns.private[:, None, :])
    return visible if columns.mask is None else visible & columns.mask[:, None, :]
