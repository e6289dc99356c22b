"""The network of the head "expert", whose layers attend to the backbone's."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core import ActionSpec, Context, ContextSpec, LayerSpec
from plugins.heads.denoising.denoising import Denoiser
from plugins.heads.denoising.expert_config import ExpertConfig
from plugins.heads.denoising.flow_matching import encode_time
from plugins.heads.denoising.layers import Norm, Residual, TimeEmbedding


@dataclass(frozen=True)
class Observed:
    """What the expert reads of a context; the same for all steps of sampling.

    state: the proprioception's token (B T 1 width); None if there is none.
    mask: (S 1 F*n L+F*n) bool, which of the expert's n tokens per frame sees which token.
    position: (S F*n) int64.
    """

    context: Context
    state: Tensor | None
    mask: Tensor
    position: Tensor


class Expert(Denoiser):
    """Tokens of the expert attend, layer by layer, to the backbone's and to one another.

    A token of an action sees the observed tokens up to its frame, the proprioception's token, and
    all actions of its chunk. The proprioception's token sees no action.
    """

    def __init__(self, config: ExpertConfig, context: ContextSpec, action: ActionSpec) -> None:
        super().__init__()
        assert context.layers is not None  # core refuses other backbones because of `needs`
        width, self.horizon = config.width, action.horizon
        self.adaptive = config.conditioning == "adaptive_norm"
        has_state = config.proprio and context.proprio_dim > 0
        self.state = nn.Linear(context.proprio_dim, width) if has_state else None
        self.input = nn.Linear(action.dim, width)
        if self.adaptive:
            self.time = TimeEmbedding(encode_time, width, width, nn.SiLU())
        else:
            self.mix = nn.Sequential(
                nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)
            )
        self.positions = (
            nn.Parameter(0.02 * torch.randn(action.horizon, width)) if config.positions else None
        )
        self.blocks = nn.ModuleList(
            ExpertBlock(config, context.layers) for _ in range(context.layers.depth)
        )
        self.norm = Norm(width, "rms", adaptive=self.adaptive, gated=False)
        self.output = nn.Linear(width, action.dim)

    def observe(self, context: Context) -> Observed:
        """Embed the proprioception, and find out which token sees which."""
        state, count = None, self.horizon
        if self.state is not None:
            assert context.proprio is not None
            state = self.state(context.proprio.to(self.state.weight.dtype)).unsqueeze(2)
            count += 1
        is_action = torch.arange(count, device=context.frame.device) >= count - self.horizon
        mask = context.attention_mask(count, is_action.long())
        return Observed(context, state, mask, context.positions(count))

    def forward(self, x: Tensor, time: Tensor, observed: Observed) -> Tensor:
        """(B T H A), (B T) -> (B T H A)."""
        tokens, condition = self._begin(x, time)
        if observed.state is not None:
            tokens = torch.cat([observed.state, tokens], dim=2)
        memory = observed.context.memory
        assert memory is not None
        for block, keys, values in zip(self.blocks, memory.keys, memory.values, strict=True):
            tokens = block(tokens, condition, keys, values, observed)
        tokens, _ = self.norm(tokens[:, :, -self.horizon :], condition)
        return self.output(tokens).float()  # type: ignore[no-any-return]

    def _begin(self, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the actions' tokens (B T H width), and the condition (B T 1 width) of norms."""
        tokens = self.input(x.to(self.input.weight.dtype))
        if self.positions is not None:
            tokens = tokens + self.positions
        if self.adaptive:
            return tokens, F.silu(self.time(time)).unsqueeze(2)
        features = encode_time(time, tokens.shape[-1]).to(tokens.dtype)
        features = features.unsqueeze(2).expand_as(tokens)
        return self.mix(torch.cat([tokens, features], dim=-1)), None


class ExpertBlock(nn.Module):
    """Attention to the backbone's layer and among the expert's tokens, then a gated MLP."""

    def __init__(self, config: ExpertConfig, spec: LayerSpec) -> None:
        super().__init__()
        width, adaptive = config.width, config.conditioning == "adaptive_norm"
        self.attention = Residual(SharedAttention(width, spec), width, "rms", adaptive=adaptive)
        self.mlp = Residual(GatedMLP(width, config.mlp_width), width, "rms", adaptive=adaptive)

    def forward(
        self,
        x: Tensor,
        condition: Tensor | None,
        keys: Tensor,
        values: Tensor,
        observed: Observed,
    ) -> Tensor:
        """Tokens (B T n width), condition (B T 1 width) or None, keys and values (S K L d)."""
        x = self.attention(x, condition, keys, values, observed)
        return self.mlp(x, condition)  # type: ignore[no-any-return]


class SharedAttention(nn.Module):
    """The expert's half of an attention that it shares with a layer of the backbone."""

    def __init__(self, width: int, spec: LayerSpec) -> None:
        super().__init__()
        self.head_width = spec.head_width
        self.query = nn.Linear(width, spec.heads * spec.head_width, bias=False)
        self.key = nn.Linear(width, spec.key_heads * spec.head_width, bias=False)
        self.value = nn.Linear(width, spec.key_heads * spec.head_width, bias=False)
        self.output = nn.Linear(spec.heads * spec.head_width, width, bias=False)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, observed: Observed) -> Tensor:
        """Tokens (B T n width), keys and values (S K L d) -> (B T n width)."""
        context = observed.context
        q, k, v = (
            rearrange(context.fold(layer(x)), "s n (h d) -> s h n d", d=self.head_width)
            for layer in (self.query, self.key, self.value)
        )
        q, k = context.rotate(q, observed.position), context.rotate(k, observed.position)
        k, v = torch.cat([keys, k.to(keys)], dim=2), torch.cat([values, v.to(values)], dim=2)
        mixed = F.scaled_dot_product_attention(q.to(k), k, v, observed.mask, enable_gqa=True)
        mixed = context.unfold(rearrange(mixed, "s h n d -> s n (h d)"))
        return self.output(mixed)  # type: ignore[no-any-return]


class GatedMLP(nn.Module):
    """GeGLU (Shazeer 2020), as in Gemma."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.value = nn.Linear(width, hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(... width) -> (... width)."""
        hidden = F.gelu(self.gate(x), approximate="tanh") * self.value(x)
        return self.output(hidden)  # type: ignore[no-any-return]
