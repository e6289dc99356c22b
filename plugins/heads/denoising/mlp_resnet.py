"""Octo's denoiser: the whole chunk, the readout and the time as one vector, and residual blocks."""

import math

import torch
from torch import Tensor, nn

from core import ActionSpec, Context, ContextSpec
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.denoising import Denoiser, EncodeTime


class MLPResNetDenoiser(Denoiser):
    """The network of Octo's diffusion head (Octo Model Team 2024).

    It is an MLP-ResNet as in IDQL (Hansen-Estruch et al. 2023). Unlike "mlp", it learns the
    frequencies that encode the time, takes the readout in as it is, has SiLU where that has GELU,
    and one more before its output.
    """

    def __init__(
        self,
        config: DenoiserConfig,
        encode: EncodeTime,  # noqa: ARG002 (its features of the time are its own)
        context: ContextSpec,
        action: ActionSpec,
    ) -> None:
        super().__init__()
        width, size, time_width = config.width, action.horizon * action.dim, config.time_embed_dim
        self.frequencies = nn.Parameter(0.2 * torch.randn(time_width // 2))  # rounds per step
        self.time = nn.Sequential(
            nn.Linear(time_width, 2 * time_width), nn.SiLU(), nn.Linear(2 * time_width, time_width)
        )
        self.input = nn.Linear(time_width + context.width + size, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(config.depth))
        self.output = nn.Sequential(nn.SiLU(), nn.Linear(width, size))

    def observe(self, context: Context) -> Tensor:
        """Return the mean of a frame's action tokens (B T D)."""
        return context.readout.mean(dim=2)

    def forward(self, x: Tensor, time: Tensor, observed: Tensor) -> Tensor:
        """(B T H A), (B T), (B T D) -> (B T H A)."""
        phase = 2 * math.pi * time[..., None].float() * self.frequencies.float()
        features = torch.cat([phase.cos(), phase.sin()], dim=-1).to(observed.dtype)
        chunk = x.flatten(2).to(observed.dtype)
        hidden = self.input(torch.cat([self.time(features), observed, chunk], dim=-1))
        for block in self.blocks:
            hidden = block(hidden)
        return self.output(hidden).view(x.shape).float()  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Adds to a vector what an MLP makes of the normed vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(... width) -> (... width)."""
        return x + self.layers(x)  # type: ignore[no-any-return]
