"""The settings of the head "vqbet"."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt


@dataclass(frozen=True)
class VQBeTHeadConfig:
    """Codes of chunks and offsets (Lee et al. 2024), each frame from its own readout.

    The defaults are LeRobot's, but for `offset_codes`.
    """

    code_weights: tuple[Annotated[float, Ge(0)], ...] = (5.0, 0.5)
    """factor of the focal loss of each codebook's code; there are as many codebooks as factors, and
    each refines what the ones before it say.
    """
    codes: Annotated[int, Gt(1)] = 16
    """number of codes in each codebook."""
    code_width: Annotated[int, Gt(0)] = 256
    """width of the vectors that codes stand for."""
    hidden_size: Annotated[int, Gt(0)] = 128
    """width of the two hidden layers of the autoencoder's encoder, and of its decoder."""
    decay: Annotated[float, Ge(0), Lt(1)] = 0.8
    """share of their moving averages that codes keep in a step in which the autoencoder trains, or
    in a micro-batch, if steps have several.
    """
    commitment_weight: Annotated[float, Ge(0)] = 5.0
    """factor of the distance between the encoder's output and its codes."""
    focal_gamma: Annotated[float, Ge(0)] = 2.0
    """exponent of the focal loss of codes (Lin et al. 2017), which makes their probabilities more
    even than the data's; 0 gives the cross-entropy, which does not.
    """
    offset_weight: Annotated[float, Ge(0)] = 10_000.0
    """factor of the mean absolute error of the actions."""
    offset_codes: Literal["target", "drawn"] = "target"
    """whose offsets learn: "target", those of the target's codes; "drawn", those of codes that the
    head draws, as in VQ-BeT's own code and LeRobot: then the offsets of every code tend to the
    median of all chunks, also of those that have other codes.
    """
    temperature: Annotated[float, Gt(0)] = 0.1
    """divides the logits before codes are drawn: 1 draws from the distribution that was learned,
    less prefers likely codes.
    """
    mlp: tuple[Annotated[int, Gt(0)], ...] = ()
    """widths of hidden layers between the readout and codes, and between the readout and offsets;
    VQ-BeT has none.
    """

    def __post_init__(self) -> None:
        if not self.code_weights:
            raise ValueError("code_weights is empty, so there is no codebook; give one factor each")
