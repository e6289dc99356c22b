"""The keys that the heads "diffusion" and "flow" share: a denoiser, and what it is told."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

# the ways in which each denoiser can take in readout and time, the default first
CONDITIONINGS = {
    "mlp": ("adaptive_norm", "concat"),
    "mlp_resnet": ("concat",),
    "transformer": ("adaptive_norm", "cross_attention", "concat"),
    "unet": ("film",),
}


@dataclass(frozen=True)
class DenoiserConfig:
    """Which network denoises, its sizes, and what it is told of each frame."""

    condition: Literal["readout", "observation"] = "readout"
    """what the network is told of a frame: "readout", the hidden states of the action tokens;
    "observation", proprioception and vision tokens as one vector, as in Diffusion Policy, without a
    backbone (`identity`) and without action tokens.
    """
    observation_frames: Annotated[int, Gt(0)] = 1
    """of how many frames the network is told, the frame itself and those before it; at most
    `data.window`. The network's chunk then begins with the action of the first of these frames, and
    is longer than `action.horizon` by one action for each frame but one. Diffusion Policy has 2.
    """
    denoiser: Literal["mlp", "mlp_resnet", "transformer", "unet"] = "mlp"
    """the network: "mlp", over the whole chunk at once; "mlp_resnet", the same in Octo's form;
    "transformer", with a token for each action of the chunk; "unet", of convolutions along the
    chunk (Chi et al. 2023).
    """
    conditioning: Literal["concat", "adaptive_norm", "cross_attention", "film"] | None = None
    """how readout and time enter: "adaptive_norm" (default of "mlp" and "transformer"), as scale,
    shift and gate of every block; "concat" (the only one of "mlp_resnet"), beside the chunk, for
    "transformer" as further tokens; "cross_attention", only for "transformer", every block of which
    attends to them; "film", only for "unet", as scale and shift of its features.
    """
    width: Annotated[int, Ge(4)] = 256
    """width of "mlp", "mlp_resnet" and "transformer"; an even number."""
    depth: Annotated[int, Gt(0)] = 3
    """number of residual blocks of "mlp", "mlp_resnet" and "transformer"."""
    heads: Annotated[int, Gt(0)] = 4
    """number of attention heads of "transformer"; must be a divisor of the width."""
    down_dims: tuple[Annotated[int, Gt(0)], ...] = (256, 512, 1024)
    """channels of the levels of "unet", each half as long as the one before. LeRobot's Diffusion
    Policy has [512, 1024, 2048].
    """
    kernel_size: Annotated[int, Gt(0)] = 5
    """length of the convolutions of "unet"; an odd number."""
    n_groups: Annotated[int, Gt(0)] = 8
    """number of groups of the norms of "unet"; must divide all of `down_dims`."""
    time_embed_dim: Annotated[int, Ge(4)] = 128
    """width of the embedded time of "unet" and "mlp_resnet", an even number; 32 in Octo."""
    film_scale: bool = True
    """whether FiLM in "unet" scales features; if not, it only shifts them."""

    @property
    def chosen_conditioning(self) -> str:
        """The conditioning, or the denoiser's default."""
        return self.conditioning or CONDITIONINGS[self.denoiser][0]

    def __post_init__(self) -> None:
        possible = CONDITIONINGS[self.denoiser]
        if self.chosen_conditioning not in possible:
            raise ValueError(
                f"conditioning = {self.conditioning!r} does not fit denoiser = "
                f"{self.denoiser!r}; choose {' or '.join(map(repr, possible))}"
            )
        if self.denoiser in ("unet", "mlp_resnet") and self.time_embed_dim % 2:
            raise ValueError(
                f"time_embed_dim = {self.time_embed_dim} must be even, for sines and cosines"
            )
        if self.denoiser == "unet":
            self._check_unet()
        elif self.width % 2:
            raise ValueError(f"width = {self.width} must be even, for sines and cosines")
        elif self.denoiser == "transformer" and self.width % self.heads:
            raise ValueError(
                f"heads = {self.heads} does not divide width = {self.width}; choose a divisor"
            )

    def _check_unet(self) -> None:
        if not self.down_dims or any(channels % self.n_groups for channels in self.down_dims):
            raise ValueError(
                f"down_dims = {list(self.down_dims)} must be at least one multiple of n_groups = "
                f"{self.n_groups}"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size = {self.kernel_size} must be odd, to keep the length")
