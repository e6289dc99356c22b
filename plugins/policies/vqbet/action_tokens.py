"""VQ-BeT's tokens: images, proprioception and learned queries of each frame, in one sequence."""

from dataclasses import dataclass
from typing import Annotated

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
from core.weights import Pretrained
from plugins.policies.vqbet.names import ACTION_TOKEN_NAMES, action_token_tensors, lerobot_files


@dataclass(frozen=True)
class VQBeTTokensConfig:
    """The tokens of a frame; a window of frames is one sequence."""

    queries: Annotated[int, Gt(0)] = 3
    """number of queries of a frame: the first is for the chunk that begins at the frame, and each
    further one for the chunk that begins one step later.
    """
    proprio: bool = True
    """whether each frame has a token that is projected from the proprioception."""


class VQBeTTokens(ActionTokens):
    """Lays out a window as one causal sequence: words, then images, proprioception and queries.

    x is a token of the instruction, i of an image, p of the proprioception, q a query, and a digit
    the token's frame:

        x x i0 p0 q0 (q0 q0) i1 p1 q1 (q1 q1) ...

    All queries are the same learned vector; their positions tell them apart (Lee et al. 2024). The
    further queries of a frame, in brackets, are private to it: they have the positions of the next
    frame's tokens, and no other frame sees them. VQ-BeT itself has no words: set the text encoder
    "none".

    `pretrained` takes weights of LeRobot's VQ-BeT.

    Raises ConfigError if `proprio` is true and the data record no proprioception.
    """

    source = None  # `pretrained = true` is refused: LeRobot publishes many

    def __init__(
        self, config: VQBeTTokensConfig, *, width: int, action: ActionSpec, proprio_dim: int
    ) -> None:
        super().__init__()
        if config.proprio and proprio_dim == 0:
            raise ConfigError(
                "action_tokens.proprio is true, and the data record no proprioception; set it to "
                "false"
            )
        self.count, self.context = config.queries, action.window
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.proprio = nn.Linear(proprio_dim, width) if config.proprio else None
        self.assumptions: tuple[str, ...] = ()

    def layout(
        self,
        vision: TokenGroup,
        text: TokenGroup,
        proprio: Tensor | None,
        batch: Batch | None,  # noqa: ARG002 (the layout does not depend on the targets)
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> TokenSequence:
        """Lay out vision (B T N D), text (B M D) and proprio (B T P) as B sequences."""
        lead = vision.tokens.shape[:2]
        queries = TokenGroup(self.query.expand(*lead, self.count, -1))
        numbers = self._proprio(proprio)
        frames = concatenate([vision, *numbers, queries])  # (B T n D)
        kinds = [TokenKind.VISION] * vision.tokens.shape[2] + [TokenKind.PROPRIO] * len(numbers)
        kinds += [TokenKind.ACTION] * self.count
        return self._pack(text, frames, torch.tensor(kinds, device=vision.tokens.device))

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the query and the projection of the proprioception, strictly.

        Raises ConfigError also if the weights are of another number of frames or queries.
        """
        files = lerobot_files(weights)
        files.check_setting("n_obs_steps", self.context, "change data.window")
        files.check_setting("n_action_pred_token", self.count, "change action_tokens.queries")
        ACTION_TOKEN_NAMES.load(self, action_token_tensors(weights), weights.source)
        self.assumptions = files.describe_expected("observation.state", "proprioception")

    def _proprio(self, proprio: Tensor | None) -> list[TokenGroup]:
        """(B T P) -> [one token per frame (B T 1 D)], or [] if `proprio` is false in the recipe."""
        if self.proprio is None:
            return []
        if proprio is None:
            raise ValueError(
                "batch.proprio is None, and action_tokens.proprio is true: the batch must hold "
                "(B T P)"
            )
        return [TokenGroup(self.proprio(proprio.to(self.proprio.weight.dtype)).unsqueeze(2))]

    def _pack(self, text: TokenGroup, frames: TokenGroup, kinds: Tensor) -> TokenSequence:
        """Join text (B M D) and frames (B T n D) to sequences; kinds (n) are those of a frame."""
        rows, window, size = frames.tokens.shape[:3]
        words, device = text.tokens.shape[1], kinds.device
        joined = TokenGroup(
            frames.tokens.flatten(1, 2),
            None if frames.mask is None else frames.mask.flatten(1, 2),
            None if frames.grid is None else frames.grid.repeat(window, 1),
        )
        group = concatenate([text, joined])
        place = torch.arange(-words, window * size, device=device)  # (M + T n), 0 after the words
        frame = place.clamp(min=0) // size
        kind = torch.cat([kinds.new_full((words,), TokenKind.TEXT), kinds.repeat(window)])
        first = size - self.count  # place of a frame's first query
        private = (place >= 0) & (place % size > first) if self.count > 1 else None
        readout = (
            torch.arange(rows, device=device)[:, None, None] * len(place)
            + torch.arange(window, device=device)[:, None] * size
            + torch.arange(words + first, words + size, device=device)
        )
        return pack(group, frame, kind, readout, grid=group.grid, private=private)
