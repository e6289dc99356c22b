"""A denoiser in which every action of a chunk is a token."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core import ActionSpec, Context, ContextSpec, build_mlp
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.denoising import Denoiser, EncodeTime
from plugins.heads.denoising.layers import Attention, Norm, Residual, TimeEmbedding


class TransformerDenoiser(Denoiser):
    """A transformer in which every action of a chunk is a token, and sees the whole chunk.

    With "adaptive_norm" it is DiT (Peebles and Xie 2023). With "cross_attention", every block
    attends to the embedded time and the readout's tokens after its self-attention, as the
    transformer of Diffusion Policy does (Chi et al. 2023). With "concat" these are tokens of the
    sequence.
    """

    def __init__(
        self,
        config: DenoiserConfig,
        encode: EncodeTime,
        context: ContextSpec,
        action: ActionSpec,
    ) -> None:
        super().__init__()
        width, self.horizon = config.width, action.horizon
        self.conditioning = config.chosen_conditioning
        adaptive = self.conditioning == "adaptive_norm"
        self.time = TimeEmbedding(encode, width, width, nn.SiLU())
        self.readout = nn.Linear(context.width, width)
        self.input = nn.Linear(action.dim, width)
        self.positions = nn.Parameter(0.02 * torch.randn(action.horizon, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, self.conditioning) for _ in range(config.depth)
        )
        self.norm = Norm(width, "layer", adaptive=adaptive, gated=False)
        self.output = nn.Linear(width, action.dim)

    def observe(self, context: Context) -> Tensor:
        """Project each of a frame's action tokens -> (B T Q width)."""
        return self.readout(context.readout)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, time: Tensor, observed: Tensor) -> Tensor:
        """(B T H A), (B T), (B T Q width) -> (B T H A)."""
        tokens = (self.input(x.to(self.input.weight.dtype)) + self.positions).flatten(0, 1)
        embedded, observed = self.time(time).flatten(0, 1)[:, None], observed.flatten(0, 1)
        condition = others = None
        if self.conditioning == "adaptive_norm":
            condition = F.silu(embedded + observed.mean(dim=1, keepdim=True))
        elif self.conditioning == "cross_attention":
            others = torch.cat([embedded, observed], dim=1)
        else:
            tokens = torch.cat([embedded, observed, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens, condition, others)
        tokens, _ = self.norm(tokens[:, -self.horizon :], condition)
        return self.output(tokens).view(x.shape).float()  # type: ignore[no-any-return]


class Block(nn.Module):
    """Self-attention, attention to other tokens if there are any, and an MLP."""

    def __init__(self, width: int, heads: int, conditioning: str) -> None:
        super().__init__()
        adaptive = conditioning == "adaptive_norm"
        self.attention = Residual(Attention(width, heads), width, "layer", adaptive=adaptive)
        self.cross_attention = (
            Residual(Attention(width, heads), width, "layer", adaptive=False)
            if conditioning == "cross_attention"
            else None
        )
        mlp = build_mlp([width, 4 * width, width])
        self.mlp = Residual(mlp, width, "layer", adaptive=adaptive)

    def forward(self, x: Tensor, condition: Tensor | None, others: Tensor | None) -> Tensor:
        """Tokens (N n width), condition (N 1 width) or None, others (N m width) or None."""
        x = self.attention(x, condition)
        if self.cross_attention is not None:
            x = self.cross_attention(x, condition, others)
        return self.mlp(x, condition)  # type: ignore[no-any-return]
