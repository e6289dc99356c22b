"""A text encoder for policies of a single task, such as ACT: it ignores the instruction."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core import Register, TextEncoder, TokenGroup, hookimpl


@dataclass(frozen=True)
class NoTextConfig:
    """Nothing to set."""


class NoText(TextEncoder):
    """Returns no tokens, whatever the instruction is."""

    width = 0

    def __init__(self, config: NoTextConfig) -> None:  # noqa: ARG002 (it has no keys)
        super().__init__()
        self.tokens: Tensor
        # A buffer moves with the policy to its device and floating-point type, so tokens made from
        # the buffer have the right device and type.
        self.register_buffer("tokens", torch.empty(0, 0), persistent=False)

    def tokenize(self, instruction: str) -> Sequence[int]:  # noqa: ARG002
        """Return no ids."""
        return []

    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:  # noqa: ARG002
        """ids (B 0) -> (B 0 0)."""
        return TokenGroup(self.tokens.expand(len(ids), 0, 0))


@hookimpl
def register_text_encoders(register: Register) -> None:
    """Register "none"."""
    register("none", NoTextConfig, NoText)
