"""Pieces of a frame's sequence: successive tokens of one kind, with their positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core import TokenGroup, TokenKind, TokenSequence, concatenate, pack
from plugins.policies.act.layers import sines, sines_of_grid


@dataclass(frozen=True)
class Piece:
    """Successive tokens of each sequence.

    group: (S N D).
    kind: what all of them stand for.
    positions: (N D), their position embeddings.
    """

    group: TokenGroup
    kind: TokenKind
    positions: Tensor


def pack_frames(pieces: Sequence[Piece], frames: torch.Size, readout: int) -> TokenSequence:
    """Make a sequence of each frame's pieces, in which all tokens see one another.

    frames: (B, T), with B * T = S.
    readout: index of the one action token in each sequence.
    """
    group = concatenate([piece.group for piece in pieces])
    positions = torch.cat([piece.positions for piece in pieces])
    kind = torch.cat(
        [
            positions.new_full((len(piece.positions),), piece.kind, dtype=torch.int64)
            for piece in pieces
        ]
    )
    count, length = group.tokens.shape[:2]
    first = length * torch.arange(count, device=kind.device)  # (S) each sequence's first token
    return pack(
        group,
        frame=torch.zeros_like(kind),
        kind=kind,
        readout=(first + readout).view(*frames, 1),
        block=torch.zeros_like(kind),
        grid=group.grid,
        position_embedding=positions.to(group.tokens.dtype),
    )


def token_piece(x: Tensor, kind: TokenKind, position: Tensor) -> Piece:
    """(B T D) -> a token in the sequence of each frame, at a position (1 D)."""
    return Piece(TokenGroup(x.flatten(0, 1).unsqueeze(1)), kind, position)


def image_piece(vision: TokenGroup) -> Piece:
    """Tokens (B T N D) -> the same, one sequence per frame, with sines of their row and column.

    Tokens without a grid have no position.
    """
    count, width = vision.tokens.shape[2:]
    mask = None if vision.mask is None else vision.mask.flatten(0, 1)
    if vision.grid is None:
        positions = torch.zeros(count, width, device=vision.tokens.device)
    else:
        positions = sines_of_grid(vision.grid, width)
    group = TokenGroup(vision.tokens.flatten(0, 1), mask, vision.grid)
    return Piece(group, TokenKind.VISION, positions)


def text_pieces(text: TokenGroup, frames: int, prefix: int) -> tuple[Piece, Piece]:
    """Instructions (B M D) -> the first `prefix` tokens and the others, for each frame's sequence.

    Their positions are sines of their index.
    """
    count, width = text.tokens.shape[1:]
    tokens = text.tokens.repeat_interleave(frames, dim=0)
    mask = None if text.mask is None else text.mask.repeat_interleave(frames, dim=0)
    positions = sines(torch.arange(count, device=tokens.device).float(), width)

    def piece(part: slice) -> Piece:
        group = TokenGroup(tokens[:, part], None if mask is None else mask[:, part])
        return Piece(group, TokenKind.TEXT, positions[part])

    return piece(slice(prefix)), piece(slice(prefix, None))
