"""An expert that attends to a backbone's layers, against one joint attention, written out plainly.

The expert takes keys and values from the memory and all else from the context: rotation, positions,
mask. On the other side stands one loop over layers that concatenates the keys and values of both
networks and takes one softmax, as pi0 does (Black et al. 2024), each sequence alone and without
padding, with rotations and masks of its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core import Backbone, Context, LayerSpec, TokenGroup, TokenKind, TokenSequence
from core.contracts.tokens import pack
from core.policy.recomputation import recompute_blocks
from core.testing.common import normal
from plugins.backbones.transformer import Transformer, TransformerConfig
from plugins.vlms.huggingface.backbone import BackboneConfig, HuggingFaceBackbone
from plugins.vlms.kosmos2 import Kosmos2Backbone, Kosmos2BackboneConfig
from tests.plugins.huggingface.families import FAMILIES, save_model

WIDTH = 24  # of the expert, which is narrower than the backbone
COUNT = 3  # tokens of the expert
WORDS, IMAGES = 5, 4  # tokens of the longer instruction, and of the images
PADDING = 2  # tokens by which the second instruction is shorter


# --------------------------------------------------------------------------------------- the expert


class ExpertLayer(nn.Module):
    """A layer of the expert: projections of the backbone's shape, and a stream of its own width."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        queries, keys = spec.heads * spec.head_width, spec.key_heads * spec.head_width
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.q_proj = nn.Linear(WIDTH, queries)
        self.k_proj = nn.Linear(WIDTH, keys, bias=False)
        self.v_proj = nn.Linear(WIDTH, keys)
        self.o_proj = nn.Linear(queries, WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH)
        )

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(S n W) -> queries, keys and values (S n heads*d)."""
        x = self.attention_norm(x)
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def add(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(S n W), attention's output (S n heads*d) -> (S n W)."""
        x = x + self.o_proj(mixed)
        return x + self.mlp(x)


class Expert(nn.Module):
    """As many layers as the backbone has; each attends to the backbone's layer beside it."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(ExpertLayer(spec) for _ in range(spec.depth))

    def forward(self, context: Context, tokens: Tensor) -> Tensor:
        """(B T n W) -> (S n W)."""
        count = tokens.shape[2]
        mask = context.attention_mask(count, torch.zeros(count, dtype=torch.int64))
        turn = partial(context.rotate, position=context.positions(count))
        x = context.fold(tokens)
        for i, layer in enumerate(self.layers):
            q, k, v = (heads_of(part, self.spec.head_width) for part in layer.project(x))
            keys = torch.cat([context.memory.keys[i], turn(k)], dim=2)
            values = torch.cat([context.memory.values[i], v], dim=2)
            mixed = F.scaled_dot_product_attention(turn(q), keys, values, mask, enable_gqa=True)
            x = layer.add(x, mixed.transpose(1, 2).flatten(2))
        return x


def heads_of(x: Tensor, width: int) -> Tensor:
    """(S n heads*d) -> (S heads n d)."""
    return x.unflatten(-1, (-1, width)).transpose(1, 2)


# ------------------------------------------------------------------------------------------ plainly


@dataclass(frozen=True)
class Plain:
    """A backbone's modules, as one loop over layers needs them."""

    layers: nn.ModuleList
    embed: Callable[[Tensor], Tensor]  # (L D) -> what enters the first layer
    # (L D) -> queries, keys and values (L heads*d)
    project: Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor]]
    add: Callable[[Any, Tensor, Tensor], Tensor]  # (L D), attention's output (L heads*d) -> (L D)
    norm: nn.Module
    theta: float | None  # base of the rotation's frequencies; None: queries and keys are not turned


def plain_transformers(backbone: HuggingFaceBackbone) -> Plain:
    """Gemma, Llama and Qwen2 name their modules alike."""

    def project(layer, x):
        x, attention = layer.input_layernorm(x), layer.self_attn
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def add(layer, x, mixed):
        x = x + layer.self_attn.o_proj(mixed)
        return x + layer.mlp(layer.post_attention_layernorm(x))

    model = backbone.model
    theta = model.config.rope_parameters["rope_theta"]
    return Plain(model.layers, lambda x: x, project, add, model.norm, theta)


def plain_kosmos2(backbone: Kosmos2Backbone) -> Plain:
    """Positions are added to what comes in, from the third on."""

    def embed(x):
        half = x.shape[1] // 2
        rows = [
            [
                wave(place / 10_000 ** (i / (half - 1)))
                for wave in (math.sin, math.cos)
                for i in range(half)
            ]
            for place in range(2, 2 + len(x))
        ]
        return x * math.sqrt(x.shape[1]) + torch.tensor(rows)

    def project(layer, x):
        x, attention = layer.attention_norm(x), layer.attention
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def add(layer, x, mixed):
        x = x + layer.attention.out_proj(layer.attention.norm(mixed))
        return x + layer.mlp(layer.mlp_norm(x))

    return Plain(backbone.layers, embed, project, add, backbone.norm, None)


def plain_transformer(backbone: Transformer) -> Plain:
    """Joinery's own."""

    def project(block, x):
        return block.attention.qkv(block.attention_norm(x)).chunk(3, dim=-1)

    def add(block, x, mixed):
        x = x + block.attention.output(mixed)
        return x + block.mlp(block.mlp_norm(x))

    return Plain(backbone.blocks, lambda x: x, project, add, backbone.norm, 10_000.0)


def joint_attention(
    plain: Plain, expert: Expert, observed: Tensor, added: Tensor
) -> tuple[Tensor, Tensor]:
    """One sequence (L D), (n W) -> the backbone's normed hidden states, and the expert's.

    The observation sees itself both ways, and the expert's tokens see it and themselves both ways.
    """
    spec, length = expert.spec, len(observed)
    visible = torch.ones(length + len(added), length + len(added), dtype=torch.bool)
    visible[:length, length:] = False
    x, y = plain.embed(observed), added
    for layer, other in zip(plain.layers, expert.layers, strict=True):
        pairs = zip(plain.project(layer, x), other.project(y), strict=True)
        q, k, v = (
            torch.cat(pair).unflatten(-1, (-1, spec.head_width)) for pair in pairs
        )  # (L+n heads d)
        if plain.theta is not None:
            q, k = turned(q, plain.theta), turned(k, plain.theta)
        shared = spec.heads // spec.key_heads
        mixed = []
        for head in range(spec.heads):
            scores = q[:, head] @ k[:, head // shared].T / math.sqrt(spec.head_width)
            mixed.append(scores.masked_fill(~visible, -math.inf).softmax(-1) @ v[:, head // shared])
        both = torch.cat(mixed, dim=-1)
        x, y = plain.add(layer, x, both[:length]), other.add(y, both[length:])
    return plain.norm(x), y


def turned(x: Tensor, theta: float) -> Tensor:
    """Turn pairs (i, i + d/2) of (L heads d) by position / theta^(2i/d), as complex numbers."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x))[:, None] * theta ** (-torch.arange(half) / half)
    pairs = (
        torch.complex(x[..., :half], x[..., half:])
        * torch.polar(torch.ones_like(angles), angles)[:, None]
    )
    return torch.cat([pairs.real, pairs.imag], dim=-1)


# ----------------------------------------------------------------------------------- the comparison


def of_transformers(name: str, tmp_path) -> Backbone:
    folder = save_model(tmp_path / name, FAMILIES[name].config, weights=False)
    return HuggingFaceBackbone(BackboneConfig(str(folder)))


BACKBONES: dict[str, tuple[Callable[..., Backbone], Callable[..., Plain]]] = {
    "gemma": (partial(of_transformers, "paligemma"), plain_transformers),
    "llama": (partial(of_transformers, "llava"), plain_transformers),
    "qwen2": (partial(of_transformers, "internvl"), plain_transformers),
    "qwen2_5_vl": (partial(of_transformers, "qwen2_5_vl"), plain_transformers),
    "kosmos2": (
        lambda _: Kosmos2Backbone(Kosmos2BackboneConfig(32, 3, 4, 64, 0.0, 0.0)),
        plain_kosmos2,
    ),
    "transformer": (
        lambda _: Transformer(TransformerConfig(width=32, depth=3, heads=4)),
        plain_transformer,
    ),
}


def observation(tokens: Tensor) -> TokenSequence:
    """Words, then images (2 L D), of which the second sequence lacks the last words: one block."""
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    mask[1, WORDS - PADDING : WORDS] = False
    kind = torch.tensor([TokenKind.TEXT] * WORDS + [TokenKind.VISION] * IMAGES)
    labels = torch.zeros_like(kind)
    return pack(
        TokenGroup(tokens, mask), labels, kind, torch.empty(2, 1, 0, dtype=torch.int64), labels
    )


def through_the_context(
    backbone: Backbone, expert: Expert, tokens: Tensor, added: Tensor
) -> list[Tensor]:
    """The hidden states of each sequence's real tokens, and of the expert's."""
    sequence = observation(tokens)
    memory = backbone.remember(sequence)
    frame = torch.zeros(2, 1, dtype=torch.int64)
    context = Context(tokens.new_empty(2, 1, 0, 32), frame, memory=memory, backbone=backbone)
    return [
        *(memory.tokens[i, sequence.mask[i]] for i in range(2)),
        *expert(context, added.unsqueeze(1)),
    ]


def side_by_side(plain: Plain, expert: Expert, tokens: Tensor, added: Tensor) -> list[Tensor]:
    """The same, written out."""
    without = [i for i in range(WORDS + IMAGES) if not WORDS - PADDING <= i < WORDS]
    rows = (tokens[0], tokens[1, without])
    pairs = [joint_attention(plain, expert, row, own) for row, own in zip(rows, added, strict=True)]
    return [*(hidden for hidden, _ in pairs), *(own for _, own in pairs)]


def gradients_of(
    outputs: list[Tensor], modules: dict[str, nn.Module], inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Gradients of a weighted sum of outputs, by name, and the outputs themselves."""
    torch.stack(
        [(x * normal(*x.shape, seed=20 + i)).sum() for i, x in enumerate(outputs)]
    ).sum().backward()
    named = {
        f"{part}.{name}": p
        for part, module in modules.items()
        for name, p in module.named_parameters()
    }
    found = {name: x.grad.clone() for name, x in (named | inputs).items()}
    for x in (named | inputs).values():
        x.grad = None
    return found | {f"output {i}": x.detach() for i, x in enumerate(outputs)}


@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", BACKBONES)
def test_an_expert_beside_the_layers_is_one_joint_attention(name, recomputed, tmp_path):
    torch.manual_seed(0)
    build, describe = BACKBONES[name]
    backbone = build(tmp_path).train()
    expert = Expert(backbone.layer_spec)
    for i, weight in enumerate((*backbone.parameters(), *expert.parameters())):
        weight.data += 0.05 * normal(*weight.shape, seed=i)  # no norm of ones, no bias of zeros
    tokens = normal(2, WORDS + IMAGES, 32, seed=10).requires_grad_()
    added = normal(2, COUNT, WIDTH, seed=11).requires_grad_()
    parts, inputs = {"backbone": backbone, "expert": expert}, {"tokens": tokens, "added": added}
    expected = gradients_of(side_by_side(describe(backbone), expert, tokens, added), parts, inputs)
    if recomputed:
        recompute_blocks(backbone, "backbone")
    received = gradients_of(through_the_context(backbone, expert, tokens, added), parts, inputs)
    assert received.keys() == expected.keys()
    largest = max(float(x.abs().max()) for x in expected.values())
    differences = {}
    for key, x in expected.items():
        # a bias of keys that nothing turns shifts all scores of a query alike: its true gradient is
        # zero
        scale = (
            largest if key.endswith("k_proj.bias") and name == "kosmos2" else float(x.abs().max())
        )
        differences[key] = float((received[key] - x).abs().max()) / scale
    worst = max(differences, key=differences.get)
    print(f"largest difference {differences[worst]:.1e} in {worst}")
    assert differences[worst] <= 1e-5, worst
