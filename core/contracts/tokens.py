"""Joining and packing of tokens, for action-token strategies."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.contracts.batch import TokenGroup, TokenSequence


def concatenate(groups: Sequence[TokenGroup]) -> TokenGroup:
    """Join groups (... N_i D) along their tokens -> (... sum N_i, D)."""
    has_mask = any(group.mask is not None for group in groups)
    has_grid = any(group.grid is not None for group in groups)
    return TokenGroup(
        tokens=torch.cat([group.tokens for group in groups], dim=-2),
        mask=torch.cat([full_mask(group) for group in groups], dim=-1) if has_mask else None,
        grid=torch.cat([full_grid(group) for group in groups]) if has_grid else None,
    )


def hide_cameras(vision: TokenGroup, present: Tensor) -> TokenGroup:
    """Mask the tokens (B T N D) of cameras that a sample lacks.

    present: (B V) bool. A frame has N / V tokens of each camera, one camera after another.
    """
    tokens_per_camera = vision.tokens.shape[2] // present.shape[1]
    token_present = present.repeat_interleave(tokens_per_camera, dim=1).unsqueeze(1)  # (B 1 N)
    return replace(vision, mask=full_mask(vision) & token_present)


def full_mask(group: TokenGroup) -> Tensor:
    """Return the group's mask (... N); all True if the group has no mask."""
    if group.mask is not None:
        return group.mask
    return torch.ones_like(group.tokens[..., 0], dtype=torch.bool)


def full_grid(group: TokenGroup) -> Tensor:
    """Return row and column of the group's tokens (N 2); all -1 if the group has no grid."""
    if group.grid is not None:
        return group.grid
    return torch.full((group.tokens.shape[-2], 2), -1, device=group.tokens.device)


def pack(
    group: TokenGroup,
    frame: Tensor,
    kind: Tensor,
    readout: Tensor,
    block: Tensor | None = None,
    grid: Tensor | None = None,
    private: Tensor | None = None,
) -> TokenSequence:
    """Build sequences with all padding at the end, so that a token's index is its position.

    group: (S L D), with padding anywhere.
    frame, kind, block, private: (L), as in TokenSequence, the same for all sequences.
    grid: (L 2), as in TokenSequence, the same for all sequences.
    readout: (B T Q), indices of the action tokens in the flattened (S L) of `group`.

    Nothing here waits for the device.
    """
    count, length = group.tokens.shape[:2]
    sequence = TokenSequence(
        tokens=group.tokens,
        mask=group.mask,
        frame=frame.expand(count, -1),
        kind=kind.expand(count, -1),
        readout=readout,
        block=None if block is None else block.expand(count, -1),
        private=None if private is None else private.expand(count, -1),
        grid=None if grid is None else grid.expand(count, -1, -1),
    )
    if group.mask is None:
        return sequence
    # A stable sort by padding keeps the real tokens in their order.
    order = torch.argsort((~group.mask).long(), dim=1, stable=True)  # (S L)
    sequence_start = length * torch.arange(count, device=order.device)[:, None]
    new_index = torch.argsort(order, dim=1) + sequence_start  # (S L)
    return replace(
        sequence.map_columns(lambda x: select_tokens(x, order)),
        readout=new_index.flatten()[readout],
    )


def select_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Select tokens of each sequence: (S L ...) at index (S M) int64 -> (S M ...)."""
    index = index.view(*index.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(-1, -1, *x.shape[2:]))
