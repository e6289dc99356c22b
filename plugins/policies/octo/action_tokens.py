"""Octo's sequence: words, then each frame's images, words and readout tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from annotated_types import Gt
from torch import Tensor, nn

from core import (
    ActionSpec,
    ActionTokens,
    Batch,
    ConfigError,
    Generator,
    TokenGroup,
    TokenKind,
    TokenSequence,
    concatenate,
    pack,
)
from core.weights import carry_rows

# Blocks: the first words see one another alone, observations see words and observations, and
# readouts see all three.
WORDS, OBSERVATION, READOUT = 0, 1, 2


@dataclass(frozen=True)
class OctoTokensConfig:
    """The readout tokens, and the numbers of positions; the defaults are those of Octo-Small."""

    count: Annotated[int, Gt(0)] = 1
    """number of readout tokens per frame."""
    repeat_text: bool = True
    """whether the words also stand in every frame, after its images, so that they see these."""
    text_tokens: Annotated[int, Gt(0)] = 16
    """maximum number of tokens in an instruction; each place has a learned position."""
    image_tokens: Annotated[int, Gt(0)] = 320
    """maximum number of image tokens in a frame; each place of each frame has a learned position.
    Octo has 256 of one camera and 64 of another.
    """


class OctoTokens(ActionTokens):
    """Lays out a window as one sequence, with learned positions added to all tokens.

    With words x, images i, readout tokens a, and the frame as digit, a window of two frames is

        x x  i0 i0 x0 x0 a0  i1 i1 x1 x1 a1

    Readout tokens only read: they see words, observations and readout tokens of their own and of
    earlier frames, and no other token sees them. A frame's images and words see one another, the
    words at the beginning, and earlier frames. The words at the beginning see one another only. A
    position belongs to a place in a frame and to the frame's place in the window; words have the
    same positions in every frame. Choose a backbone without positions of its own.

    Raises ConfigError for more words or image tokens than there are positions.
    """

    causal = False

    def __init__(self, config: OctoTokensConfig, *, width: int, action: ActionSpec) -> None:
        super().__init__()
        self.count, self.context = config.count, action.window
        self.repeat_text = config.repeat_text
        self.text_positions = _positions(config.text_tokens, width)
        self.image_positions = _positions(action.window, config.image_tokens, width)
        self.readout = _positions(action.window, config.count, width)

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """Take the first positions of words and frames, if there are more or fewer of them."""
        own = {name: x for name, x in self.state_dict().items() if name in tensors}
        return dict(tensors) | {name: carry_rows(x, tensors[name]) for name, x in own.items()}

    def layout(
        self,
        vision: TokenGroup,
        text: TokenGroup,
        proprio: Tensor | None,  # noqa: ARG002 (Octo reads no proprioception)
        batch: Batch | None,  # noqa: ARG002 (the layout does not depend on the targets)
        generator: Generator,  # noqa: ARG002
    ) -> TokenSequence:
        """Lay out vision (B T N D) and text (B M D) as B sequences."""
        rows, window, images = vision.tokens.shape[:3]
        words, device = text.tokens.shape[1], text.tokens.device
        self._check_counts(words, images)
        first = TokenGroup(text.tokens + self.text_positions[:words], text.mask)
        positions = self.image_positions[:window, :images]
        seen = TokenGroup(vision.tokens + positions, vision.mask, vision.grid)
        repeated = [_in_every_frame(first, window)] if self.repeat_text else []
        readout = TokenGroup(self.readout[:window].expand(rows, -1, -1, -1))
        frames = concatenate([seen, *repeated, readout])  # (B T n D)
        group = concatenate([first, _join(frames)])  # (B L D)
        counts = (images, words if self.repeat_text else 0, self.count)

        def label(of_words: int, *of_pieces: int) -> Tensor:
            """Return a label for each token (L): of the first words, and of a frame's pieces."""
            pieces = zip(counts, of_pieces, strict=True)
            in_frame = [torch.full((count,), value, device=device) for count, value in pieces]
            return torch.cat([torch.full((words,), of_words, device=device), *in_frame * window])

        size, length = frames.tokens.shape[2], group.tokens.shape[1]
        frame = torch.arange(window, device=device).repeat_interleave(size)
        column = torch.arange(words, length, device=device).view(window, size)[:, -self.count :]
        return pack(
            group,
            frame=torch.cat([frame.new_zeros(words), frame]),
            kind=label(TokenKind.TEXT, TokenKind.VISION, TokenKind.TEXT, TokenKind.ACTION),
            readout=column + length * torch.arange(rows, device=device).view(-1, 1, 1),
            block=label(WORDS, OBSERVATION, OBSERVATION, READOUT),
            grid=group.grid,
        )

    def _check_counts(self, words: int, images: int) -> None:
        """Raise ConfigError for more tokens than positions."""
        for name, received, positions in (
            ("text_tokens", words, len(self.text_positions)),
            ("image_tokens", images, self.image_positions.shape[1]),
        ):
            if received > positions:
                raise ConfigError(
                    f"action_tokens.{name}: there are positions for {positions}, and the encoder "
                    f"gives {received}; set it to {received} or more"
                )


def _positions(*shape: int) -> nn.Parameter:
    """Return learned positions with Octo's initial values."""
    return nn.Parameter(0.02 * torch.randn(shape))


def _in_every_frame(text: TokenGroup, window: int) -> TokenGroup:
    """Copy the instruction of each sample (B M D) into each of its frames -> (B T M D)."""
    mask = None if text.mask is None else text.mask.unsqueeze(1).expand(-1, window, -1)
    return TokenGroup(text.tokens.unsqueeze(1).expand(-1, window, -1, -1), mask)


def _join(frames: TokenGroup) -> TokenGroup:
    """Join the frames of a window (B T n D) -> (B T*n D)."""
    mask = None if frames.mask is None else frames.mask.flatten(1)
    grid = None if frames.grid is None else frames.grid.repeat(frames.tokens.shape[1], 1)
    return TokenGroup(frames.tokens.flatten(1, 2), mask, grid)
