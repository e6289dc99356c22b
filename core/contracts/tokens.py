"""Functions that join and pack tokens, for parts of kind `ActionTokens`."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.contracts.batch import TokenGroup, TokenSequence


def concatenate(groups: Sequence[TokenGroup]) -> TokenGroup:
    """Join groups (... N_i D), one after another -> one group (... sum of all N_i, D)."""
    has_mask = any(group.mask is not None for group in groups)
    has_grid = any(group.grid is not None for group in groups)
    return TokenGroup(
        tokens=torch.cat([group.tokens for group in groups], dim=-2),
        mask=torch.cat([full_mask(group) for group in groups], dim=-1) if has_mask else None,
        grid=torch.cat([full_grid(group) for group in groups]) if has_grid else None,
    )


def hide_cameras(vision: TokenGroup, present: Tensor) -> TokenGroup:
    """Mask the tokens (B T N D) of cameras that a sample lacks.

    present: (B V) bool, whether the sample has the camera. The N tokens of a frame are N / V tokens
        of the first camera, then N / V tokens of the second camera, and so on.
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
    """Return each token's row and column (N 2); all are -1 if the group has no grid."""
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
    position_embedding: Tensor | None = None,
) -> TokenSequence:
    """Build sequences with all padding at the end; a real token's index is then its position.

    group: (S L D), with padding anywhere.
    frame, kind, block, private: (L), as in TokenSequence, the same for all sequences.
    grid: (L 2), as in TokenSequence, the same for all sequences.
    position_embedding: (L D), as in TokenSequence, the same for all sequences.
    readout: (B T Q), indices of the action tokens in the flattened (S L) of `group`.

    This function never makes the CPU wait for the GPU.
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
        position_embedding=(
            None if position_embedding is None else position_embedding.expand(count, -1, -1)
        ),
    )
    if group.mask is None:
        return sequence
    # A stable sort moves padding to the end and keeps the order of the real tokens.
    order = torch.argsort((~group.mask).long(), dim=1, stable=True)  # (S L)
    sequence_start = length * torch.arange(count, device=order.device)[:, None]
    new_index = torch.argsort(order, dim=1) + sequence_start  # (S L)
    return replace(
        sequence.map_columns(lambda x: select_tokens(x, order)),
        readout=new_index.flatten()[readout],
    )


def select_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Select M tokens of each sequence: x (S L ...), index (S M) int64 -> (S M ...)."""
    index = index.view(*index.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(-1, -1, *x.shape[2:]))


def mean_token(text: TokenGroup) -> Tensor:
    """Return the mean of the tokens (B M D) -> (B D), without padding."""
    if text.mask is None:
        return text.tokens.mean(dim=1)
    real = text.mask.unsqueeze(-1)
    return text.tokens.where(real, 0).sum(dim=1) / real.sum(dim=1)
