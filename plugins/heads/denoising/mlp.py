"""A denoiser that reads the whole chunk, the readout and the time as one vector."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core import ActionSpec, Context, ContextSpec, build_mlp
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.denoising import Denoiser, EncodeTime
from plugins.heads.denoising.layers import Residual, TimeEmbedding


class MLPDenoiser(Denoiser):
    """Residual blocks over one vector that holds the whole chunk, after Octo's diffusion head.

    As there, no norm stands before the output: what is predicted contains the noisy chunk itself.
    mlp_resnet.py has Octo's own layers.
    """

    def __init__(
        self,
        config: DenoiserConfig,
        encode: EncodeTime,
        context: ContextSpec,
        action: ActionSpec,
    ) -> None:
        super().__init__()
        width, size = config.width, action.horizon * action.dim
        self.adaptive = config.chosen_conditioning == "adaptive_norm"
        self.time = TimeEmbedding(encode, width, width, nn.SiLU())
        self.readout = nn.Linear(context.width, width)
        self.input = nn.Linear(size if self.adaptive else size + 2 * width, width)
        self.blocks = nn.ModuleList(
            Residual(build_mlp([width, 4 * width, width]), width, "layer", adaptive=self.adaptive)
            for _ in range(config.depth)
        )
        self.output = nn.Linear(width, size)

    def observe(self, context: Context) -> Tensor:
        """Project the mean of a frame's action tokens -> (B T width)."""
        return self.readout(context.readout.mean(dim=2))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, time: Tensor, observed: Tensor) -> Tensor:
        """(B T H A), (B T), (B T width) -> (B T H A)."""
        chunk, embedded = x.flatten(2).to(self.input.weight.dtype), self.time(time)
        condition = F.silu(embedded + observed) if self.adaptive else None
        inputs = chunk if self.adaptive else torch.cat([chunk, embedded, observed], dim=-1)
        hidden = self.input(inputs)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.output(hidden).view(x.shape).float()  # type: ignore[no-any-return]
