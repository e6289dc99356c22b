"""The keys of the head "expert"."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from plugins.heads.denoising.flow_matching import FlowMatchingConfig


@dataclass(frozen=True)
class ExpertConfig(FlowMatchingConfig):
    """A transformer of its own width, with as many layers as the backbone (Black et al. 2024)."""

    width: Annotated[int, Ge(4)] = 256
    """width of the expert's tokens, an even number; 1024 in pi0. Its attention heads are those of
    the backbone.
    """
    mlp_width: Annotated[int, Gt(0)] = 1024
    """width of the MLPs' hidden layer; 4096 in pi0."""
    conditioning: Literal["concat", "adaptive_norm"] = "concat"
    """how the time enters: "concat": beside every action, as in pi0; "adaptive_norm": as scale,
    shift and gate of every norm, as in pi0.5.
    """
    proprio: bool = True
    """whether proprioception, if the data record it, is a token before the actions, as in pi0."""
    positions: bool = True
    """whether the tokens of a chunk have learned positions. pi0 has none, for its backbone's rotary
    positions tell the tokens apart.
    """

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"width = {self.width} must be even, for sines and cosines")
