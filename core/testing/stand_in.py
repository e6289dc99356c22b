"""A small backbone that offers everything, and what it makes of random windows: what heads are
tested on.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts.attention import attention_mask, make_memory, token_positions
from core.contracts.batch import Memory, TokenGroup, TokenKind, TokenSequence
from core.contracts.context import Context, Words, map_tensors
from core.contracts.generator import Generator
from core.contracts.needs import LAYERS, Need
from core.contracts.parts import Backbone, LayerSpec
from core.contracts.tokens import pack
from core.testing.common import BATCH, Given, features, normal

OBSERVED = 3  # tokens of observation per frame
WORDS = 11  # of the vocabulary
EVERYTHING: frozenset[Need] = frozenset(get_args(Need))
SPEC = LayerSpec(depth=2, heads=4, key_heads=2, head_width=8)


class StandIn(Backbone):
    """Two layers of attention whose queries share keys; positions are added to what comes in."""

    offers = frozenset({"keys_values", "hidden_states", "extend"})
    layer_spec = SPEC

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sizes = [SPEC.heads, SPEC.key_heads, SPEC.key_heads]
            self.sizes = [SPEC.head_width * heads for heads in sizes]
            self.qkv = nn.ModuleList(nn.Linear(width, sum(self.sizes)) for _ in range(SPEC.depth))
            self.output = nn.ModuleList(nn.Linear(self.sizes[0], width) for _ in range(SPEC.depth))
            self.norm = nn.LayerNorm(width)

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> (S L width)."""
        return self.remember(sequence).tokens

    def remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """As every backbone that offers layers."""
        before = None if past is None else past.sequence
        mask, length = attention_mask(sequence, before), sequence.tokens.shape[1]
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool).tril()
        places = token_positions(sequence, before)[..., None].to(sequence.tokens.dtype)
        x = (
            sequence.tokens
            + (places * torch.linspace(0.1, 1, self.width, dtype=places.dtype)).sin()
        )
        streams, keys, values = [x], [], []
        for i, (project, output) in enumerate(zip(self.qkv, self.output, strict=True)):
            q, k, v = (
                rearrange(part, "s l (h d) -> s h l d", d=SPEC.head_width)
                for part in project(F.layer_norm(x, (self.width,))).split(self.sizes, dim=-1)
            )
            if past is not None:
                k, v = torch.cat([past.keys[i], k], dim=2), torch.cat([past.values[i], v], dim=2)
            mixed = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
            x = x + output(rearrange(mixed, "s h l d -> s l (h d)"))
            streams.append(x)
            keys.append(k)
            values.append(v)
        return make_memory(sequence, self.norm(x), keys, values, streams, past)


def windows(given: Given) -> Tensor:
    """Random tokens of windows (B T n D): observation, then action tokens."""
    return normal(BATCH, given.action.window, OBSERVED + given.tokens, given.width, seed=8)


def padding() -> Tensor:
    """Which tokens of a frame a sample lacks (B n) bool: the second sample its second observation."""
    lacking = torch.zeros(BATCH, OBSERVED, dtype=torch.bool)
    lacking[1, 1] = True
    return lacking


def context_of(
    given: Given,
    tokens: Tensor,
    *,
    needs: frozenset[Need] = EVERYTHING,
    rows: Sequence[int] = range(BATCH),
    interleaved: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Context:
    """What a policy makes of windows (B T n D), of which `rows` are those of the batch, and what a
    head needs of it.

    interleaved: a window is one sequence, else a frame is. The second sample's are padded.
    """
    sequence = _sequence(tokens.to(dtype), padding()[list(rows)], given.tokens, interleaved)
    backbone = StandIn(given.width).to(dtype)
    memory = backbone.remember(sequence)
    batch, window = tokens.shape[:2]
    frame = torch.arange(window).expand(batch, -1)
    vision = TokenGroup(tokens[:, :, :OBSERVED, : given.vision_width].to(dtype))
    words = normal(WORDS, given.width, seed=12).to(dtype)
    return Context(
        readout=memory.tokens.flatten(0, 1)[sequence.readout],
        frame=frame if interleaved else torch.zeros_like(frame),
        proprio=normal(BATCH, window, given.proprio_dim, seed=13)[list(rows)],
        embodiment=(torch.arange(BATCH) % len(given.embodiments))[list(rows)],
        features={name: x[list(rows)] for name, x in features(given).items()},
        vision=vision if "vision" in needs else None,
        memory=_needed(memory, needs),
        backbone=backbone,
        words=Words(lambda ids: words[ids % WORDS], lambda hidden: hidden @ words.T)
        if "logits" in needs
        else None,
    )


def _needed(memory: Memory, needs: frozenset[Need]) -> Memory | None:
    """What a head asked for; whoever reads more of the context has not said so."""
    if not needs & (LAYERS | {"tokens"}):
        return None
    if "extend" in needs:
        return memory
    if "keys_values" not in needs:
        memory = replace(memory, keys=(), values=())
    return memory if "hidden_states" in needs else replace(memory, hidden_states=())


def newest_frame(context: Context, t: int, interleaved: bool) -> Context:
    """The context of one new frame, as acting has it: that of a window that ends with frame t."""
    one = slice(t, t + 1)
    count = context.frame.shape[1]

    def own(x: Tensor) -> Tensor:
        return x if interleaved else x[t::count]

    memory = context.memory
    return replace(
        context,
        readout=context.readout[:, one],
        frame=context.frame[:, one],
        proprio=None if context.proprio is None else context.proprio[:, one],
        features={name: x[:, one] for name, x in context.features.items()},
        vision=None
        if context.vision is None
        else replace(context.vision, tokens=context.vision.tokens[:, one]),
        memory=memory
        and map_tensors(memory, lambda x: own(x) if len(x) == len(memory.tokens) else x),
    )


class Steady(Generator):
    """Noise that is the same for every frame of a row, so that a window can be compared with its
    frames.
    """

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(torch.device("cpu"), None, [(row, 0) for row in rows])
        self._drawn = 0

    def normal(self, *shape: int) -> Tensor:
        """(B T ...), alike for all T."""
        return self._spread(shape, Generator.normal)

    def uniform(self, *shape: int) -> Tensor:
        """(B T ...), alike for all T."""
        return self._spread(shape, Generator.uniform)

    def _spread(self, shape: tuple[int, ...], draw: Callable[..., Tensor]) -> Tensor:
        self._drawn += 1
        fresh = Generator.by_row([(row, self._drawn) for row, _ in self._keys], self.device)
        return draw(fresh, shape[0], 1, *shape[2:]).expand(shape)


def _sequence(
    tokens: Tensor, lacking: Tensor, action_tokens: int, interleaved: bool
) -> TokenSequence:
    """Windows (B T n D) -> packed sequences; a frame's observation is one block, its action tokens
    the next.
    """
    batch, window, count, _ = tokens.shape
    span = window if interleaved else 1
    pattern = "b (s f) n ... -> (b s) (f n) ..."
    real = torch.cat([~lacking, torch.ones(batch, action_tokens, dtype=torch.bool)], dim=1)
    real = rearrange(real[:, None].expand(-1, window, -1), pattern, f=span)
    group = TokenGroup(rearrange(tokens, pattern, f=span), None if real.all() else real)
    is_action = (torch.arange(count) >= count - action_tokens).repeat(span)
    frame = torch.arange(span).repeat_interleave(count)
    kind = torch.where(is_action, int(TokenKind.ACTION), int(TokenKind.VISION))
    readout = torch.arange(batch * window * count).view(batch, window, count)[
        ..., count - action_tokens :
    ]
    return pack(group, frame, kind, readout, 2 * frame + is_action)
