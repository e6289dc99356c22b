"""No backbone, for heads that read the encoders' tokens directly, as in Diffusion Policy."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from core import Backbone, Register, TokenSequence, hookimpl


@dataclass(frozen=True)
class IdentityConfig:
    """The width of the tokens."""

    width: Annotated[int, Gt(0)] = 512
    """width of every token (D), to which the encoders' tokens are projected."""


class Identity(Backbone):
    """Passes every token on as it is.

    No token attends to another token, so action tokens know nothing of the observation. A head that
    needs the observation must therefore ask for all tokens or for the vision tokens.
    """

    mixes = both_ways = False

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__()
        self.width = config.width

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> the same tokens."""
        return sequence.tokens


@hookimpl
def register_backbones(register: Register) -> None:
    """Register "identity"."""
    register("identity", IdentityConfig, Identity)
