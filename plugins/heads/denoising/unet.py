"""The U-Net of Diffusion Policy: convolutions along the chunk, steered by readout and time."""

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from core import ActionSpec, ConfigError, Context, ContextSpec
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.denoising import Denoiser, EncodeTime
from plugins.heads.denoising.layers import TimeEmbedding


class UNetDenoiser(Denoiser):
    """The U-Net, steered by the mean of a frame's action tokens.

    Raises ConfigError if the chunk cannot be halved once for each level but the last.
    """

    def __init__(
        self,
        config: DenoiserConfig,
        encode: EncodeTime,
        context: ContextSpec,
        action: ActionSpec,
    ) -> None:
        super().__init__()
        halvings = len(config.down_dims) - 1
        if action.horizon % 2**halvings:
            raise ConfigError(
                f"policy_head.down_dims: its levels halve the chunk {halvings} times, and its "
                f"{action.horizon} actions (action.horizon, and observation_frames - 1 before it) "
                f"are no multiple of {2**halvings}; choose another action.horizon or fewer levels"
            )
        width = config.time_embed_dim
        self.time = TimeEmbedding(encode, width, 4 * width, nn.Mish())
        self.unet = UNet(config, action.dim, width + context.width)
        self.blocks = [layer for layer in self.unet.modules() if isinstance(layer, FiLMBlock)]

    def observe(self, context: Context) -> Tensor:
        """Return the mean of a frame's action tokens (B T D)."""
        return context.readout.mean(dim=2)

    def forward(self, x: Tensor, time: Tensor, observed: Tensor) -> Tensor:
        """(B T H A), (B T), (B T D) -> (B T H A)."""
        embedded = self.time(time)
        condition = torch.cat([embedded, observed], dim=-1).flatten(0, 1)
        chunk = rearrange(x.to(embedded.dtype), "b t h a -> (b t) a h")
        outputs: Tensor = rearrange(
            self.unet(chunk, condition), "(b t) a h -> b t h a", b=x.shape[0]
        )
        return outputs.float()


class UNet(nn.Module):
    """A one-dimensional U-Net (Janner et al. 2022; Chi et al. 2023).

    On the way down, every level has two blocks and halves the length, but for the last; on the way
    up, every level takes in what the same level gave on the way down. Levels, blocks and their
    order are those of LeRobot's DiffusionConditionalUnet1d, which, too, has no connection on the
    first level.
    """

    def __init__(self, config: DenoiserConfig, channels: int, condition_width: int) -> None:
        super().__init__()
        down_dims = config.down_dims
        block = partial(FiLMBlock, config, condition_width)
        self.down = nn.ModuleList(
            nn.ModuleList([block(before, after), block(after, after)])
            for before, after in pairwise([channels, *down_dims])
        )
        self.downsample = nn.ModuleList(
            nn.Conv1d(n, n, 3, stride=2, padding=1) for n in down_dims[:-1]
        )
        self.middle = nn.ModuleList(block(down_dims[-1], down_dims[-1]) for _ in range(2))
        self.up = nn.ModuleList(
            nn.ModuleList([block(2 * before, after), block(after, after)])
            for before, after in pairwise(reversed(down_dims))
        )
        self.upsample = nn.ModuleList(
            nn.ConvTranspose1d(n, n, 4, stride=2, padding=1) for n in reversed(down_dims[:-1])
        )
        self.last = conv_block(config, down_dims[0], down_dims[0])
        self.output = nn.Conv1d(down_dims[0], channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Chunks (N A H), condition (N condition_width) -> (N A H)."""
        levels: list[Tensor] = []
        blocks: Any  # a ModuleList, whose entries mypy takes for plain modules
        for index, blocks in enumerate(self.down):
            for block in blocks:
                x = block(x, condition)
            levels.append(x)
            if index < len(self.downsample):
                x = self.downsample[index](x)
        for block in self.middle:
            x = block(x, condition)
        for blocks, upsample in zip(self.up, self.upsample, strict=True):
            x = torch.cat([x, levels.pop()], dim=1)
            for block in blocks:
                x = block(x, condition)
            x = upsample(x)
        return self.output(self.last(x))  # type: ignore[no-any-return]


class FiLMBlock(nn.Module):
    """Two convolutions with a residual connection, between them FiLM (Perez et al. 2018)."""

    def __init__(
        self, config: DenoiserConfig, condition_width: int, inputs: int, outputs: int
    ) -> None:
        super().__init__()
        self.first = conv_block(config, inputs, outputs)
        self.film = nn.Sequential(
            nn.Mish(), nn.Linear(condition_width, (2 if config.film_scale else 1) * outputs)
        )
        self.second = conv_block(config, outputs, outputs)
        self.residual = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.scale = config.film_scale

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N inputs length), (N condition_width) -> (N outputs length)."""
        hidden, film = self.first(x), self.film(condition)[..., None]
        if self.scale:
            scale, shift = film.chunk(2, dim=1)
            hidden = scale * hidden + shift
        else:
            hidden = hidden + film
        return self.second(hidden) + self.residual(x)  # type: ignore[no-any-return]


def conv_block(config: DenoiserConfig, inputs: int, outputs: int) -> nn.Sequential:
    """Build a convolution that keeps the length, group norm and Mish (Misra 2019)."""
    size = config.kernel_size
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, size, padding=size // 2),
        nn.GroupNorm(config.n_groups, outputs),
        nn.Mish(),
    )
