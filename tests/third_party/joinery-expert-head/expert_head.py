"""An action expert as in pi0: a policy head whose layers attend to the backbone's layers."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from core import PolicyHead, hookimpl, masked_mean, masked_mean_per_sample

# number of sines, and of cosines, that encode the time; frequencies from 1 to 100 radians
WAVES = 32


@dataclass(frozen=True)
class ExpertHeadConfig:
    """A small transformer with as many layers as the backbone (Black et al. 2024)."""

    width: int = 128
    """of the expert's tokens; its attention heads are as wide as the backbone's."""
    steps: int = 10
    """Euler steps from noise to actions."""


class ExpertHead(PolicyHead):
    """Samples chunks by flow matching, with one token per action.

    A token sees the backbone's tokens up to its frame, and the other actions of its frame. The
    backbone never sees the expert, so it runs once for all Euler steps. As in pi0's code, time runs
    from actions (0) to noise (1), and is Beta(1.5, 1) in training. On the way, binary dimensions
    are -1 and 1.
    """

    needs = frozenset({"keys_values"})

    def __init__(self, config, *, context, action):
        super().__init__()
        self.steps, width = config.steps, config.width
        self.horizon, self.dim = action.horizon, action.dim
        # Tells the actions of a chunk apart, also where the backbone has no rotary positions.
        self.place = nn.Parameter(0.02 * torch.randn(action.horizon, width))
        self.input = nn.Linear(action.dim, width)
        self.time = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(
            ExpertLayer(width, context.layers) for _ in range(context.layers.depth)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, action.dim))
        binary = torch.tensor([i in action.binary for i in range(action.dim)])
        self.register_buffer("binary", binary, persistent=False)

    def forward(self, context, generator):  # -> (B T H A)
        x = generator.normal(*context.frame.shape, self.horizon, self.dim)
        for step in range(self.steps):
            time = x.new_full(context.frame.shape, 1 - step / self.steps)
            x = x - self.velocity(context, x, time) / self.steps
        return torch.where(self.binary, ((x + 1) / 2).clamp(0, 1), x)

    def loss(self, context, batch, generator):
        return {"flow": masked_mean(self.errors(context, batch, generator), batch.action_mask)}

    def validation_error(self, context, batch, generator):  # -> (B)
        return masked_mean_per_sample(self.errors(context, batch, generator), batch.action_mask)

    def errors(self, context, batch, generator):  # -> (B T H A)
        actions = torch.where(self.binary, 2 * batch.actions - 1, batch.actions)
        # Masked actions hold anything: they must not enter the noisy chunk.
        actions = actions.masked_fill(~batch.action_mask, 0)
        noise = generator.normal(*actions.shape)
        time = generator.uniform(*context.frame.shape) ** (1 / 1.5)
        noisy = torch.lerp(actions, noise, time[..., None, None])
        return (self.velocity(context, noisy, time) - (noise - actions)) ** 2

    def velocity(self, context, x, time):  # (B T H A), (B T) -> (B T H A)
        waves = torch.outer(time.flatten(), 100 ** torch.linspace(0, 1, WAVES, device=x.device))
        waves = torch.cat([waves.sin(), waves.cos()], dim=-1).view(*time.shape, 1, -1)
        dtype = self.place.dtype
        tokens = self.input(x.to(dtype)) + self.time(waves.to(dtype)) + self.place
        tokens = context.fold(tokens)  # (S F*H width)
        one_block = torch.zeros(self.horizon, dtype=torch.int64, device=x.device)
        mask = context.attention_mask(self.horizon, one_block)
        position = context.positions(self.horizon)
        memory = context.memory
        for layer, keys, values in zip(self.layers, memory.keys, memory.values, strict=True):
            tokens = layer(tokens, keys, values, mask, lambda x: context.rotate(x, position))
        return self.output(context.unfold(tokens)).float()


class ExpertLayer(nn.Module):
    """Attention to the backbone's keys and values and the expert's own, then an MLP."""

    def __init__(self, width, spec):
        super().__init__()
        self.head_width = spec.head_width
        self.sizes = [
            spec.head_width * heads for heads in (spec.heads, spec.key_heads, spec.key_heads)
        ]
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, sum(self.sizes))
        self.mixed = nn.Linear(self.sizes[0], width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x, keys, values, mask, rotate):
        """X (S n width), keys and values (S K L d), mask (S 1 n L+n) -> (S n width)."""
        parts = self.qkv(self.norm(x)).split(self.sizes, dim=-1)
        q, k, v = (rearrange(part, "s n (h d) -> s h n d", d=self.head_width) for part in parts)
        k, v = torch.cat([keys, rotate(k)], dim=2), torch.cat([values, v], dim=2)
        attended = F.scaled_dot_product_attention(rotate(q), k, v, mask, enable_gqa=True)
        x = x + self.mixed(rearrange(attended, "s h n d -> s n (h d)"))
        return x + self.mlp(x)


@hookimpl
def register_policy_heads(register):
    register("small_expert", ExpertHeadConfig, ExpertHead)
