"""Joining and packing of tokens: what every action-token strategy needs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.contracts import TokenGroup, TokenSequence


def concatenate(groups: Sequence[TokenGroup]) -> TokenGroup:
    """Join groups (... N_i D) along their tokens -> (... sum N_i, D)."""
    tokens = torch.cat([group.tokens for group in groups], dim=-2)
    if all(group.mask is None for group in groups):
        return TokenGroup(tokens)
    return TokenGroup(tokens, torch.cat([full_mask(group) for group in groups], dim=-1))


def hide_cameras(vision: TokenGroup, present: Tensor) -> TokenGroup:
    """Mask the tokens (B T N D) of cameras that a sample lacks: present (B V) bool, N / V tokens of each in turn."""
    each = vision.tokens.shape[2] // present.shape[1]
    of_present = present.repeat_interleave(each, dim=1).unsqueeze(1)  # (B 1 N)
    return TokenGroup(vision.tokens, full_mask(vision) & of_present)


def full_mask(group: TokenGroup) -> Tensor:
    """Return the group's mask (... N), all True where it has none."""
    return torch.ones_like(group.tokens[..., 0], dtype=torch.bool) if group.mask is None else group.mask


def pack(group: TokenGroup, frame: Tensor, is_action: Tensor, readout: Tensor) -> TokenSequence:
    """Move padding to the end of each sequence, so that a token's index is its position whatever its neighbours need.

    group (S L D); frame, is_action (L); readout (B T Q): where the action tokens lie in the flattened (S L) before
    the move. Nothing here waits for the device.
    """
    count, length = group.tokens.shape[:2]
    frame, is_action = frame.expand(count, length), is_action.expand(count, length)
    if group.mask is None:
        return TokenSequence(group.tokens, None, frame, is_action, readout)
    order = torch.argsort((~group.mask).long(), dim=1, stable=True)  # (S L): real tokens first, in their order
    moved_to = torch.argsort(order, dim=1) + length * torch.arange(count, device=order.device)[:, None]
    return TokenSequence(
        tokens=group.tokens.gather(1, order[..., None].expand_as(group.tokens)),
        mask=group.mask.gather(1, order),
        frame=frame.gather(1, order),
        is_action=is_action.gather(1, order),
        readout=moved_to.flatten()[readout],
    )
