"""Joining and packing of tokens: what every action-token strategy needs."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.contracts.batch import TokenGroup, TokenSequence


def concatenate(groups: Sequence[TokenGroup]) -> TokenGroup:
    """Join groups (... N_i D) along their tokens -> (... sum N_i, D)."""
    masked = any(group.mask is not None for group in groups)
    placed = any(group.grid is not None for group in groups)
    return TokenGroup(
        tokens=torch.cat([group.tokens for group in groups], dim=-2),
        mask=torch.cat([full_mask(group) for group in groups], dim=-1) if masked else None,
        grid=torch.cat([full_grid(group) for group in groups]) if placed else None,
    )


def hide_cameras(vision: TokenGroup, present: Tensor) -> TokenGroup:
    """Mask the tokens (B T N D) of cameras that a sample lacks: present (B V) bool, N / V tokens of
    each in turn.
    """
    each = vision.tokens.shape[2] // present.shape[1]
    of_present = present.repeat_interleave(each, dim=1).unsqueeze(1)  # (B 1 N)
    return replace(vision, mask=full_mask(vision) & of_present)


def full_mask(group: TokenGroup) -> Tensor:
    """Return the group's mask (... N), all True where it has none."""
    return (
        torch.ones_like(group.tokens[..., 0], dtype=torch.bool)
        if group.mask is None
        else group.mask
    )


def full_grid(group: TokenGroup) -> Tensor:
    """Return the places of the group's tokens (N 2), -1 where they have none."""
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
    """Move padding to the end of each sequence, so that a token's index is its position whatever
    its neighbours need.

    group (S L D); frame, kind, block, private (L), grid (L 2); readout (B T Q): where the action
    tokens lie in the flattened (S L) before the move. Nothing here waits for the device.
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
    order = torch.argsort(
        (~group.mask).long(), dim=1, stable=True
    )  # (S L): real tokens first, in their order
    moved_to = (
        torch.argsort(order, dim=1) + length * torch.arange(count, device=order.device)[:, None]
    )
    return replace(
        sequence.map_columns(lambda x: take_columns(x, order)), readout=moved_to.flatten()[readout]
    )


def take_columns(x: Tensor, columns: Tensor) -> Tensor:
    """(S L ...) at columns (S M) int64 -> (S M ...)."""
    return x.gather(
        1, columns.view(*columns.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    )
