"""Inputs for tests of policy heads: a small backbone, and the context that it gives a head."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts.attention import attention_mask, make_memory, token_positions
from core.contracts.batch import Batch, Memory, TokenGroup, TokenKind, TokenSequence
from core.contracts.context import Context, ContextSpec, Words, map_tensors
from core.contracts.generator import Generator
from core.contracts.needs import LAYERS, Need
from core.contracts.parts import Backbone, LayerSpec, PolicyHead
from core.contracts.tokens import pack
from core.testing.common import BATCH, Setup, features, normal

# number of observation tokens in each frame
OBSERVATION_TOKENS = 3
EVERYTHING: frozenset[Need] = frozenset(get_args(Need))
SPEC = LayerSpec(depth=2, heads=4, key_heads=2, head_width=8)


class StandIn(Backbone):
    """A small backbone with two attention layers, in which several query heads share a key head.

    Position embeddings are added to the tokens.
    """

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
        """Return the hidden states (S L width) of tokens (S L width)."""
        return self.remember(sequence).tokens

    def remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """Run a sequence that continues `past`; return the memory of both, with all layers."""
        before = None if past is None else past.sequence
        mask, length = attention_mask(sequence, before), sequence.tokens.shape[1]
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool).tril()
        position = token_positions(sequence, before)[..., None].to(sequence.tokens.dtype)
        frequencies = torch.linspace(0.1, 1, self.width, dtype=position.dtype)
        x = sequence.tokens + (position * frequencies).sin()
        hidden_states, keys, values = [x], [], []
        for i, (project, output) in enumerate(zip(self.qkv, self.output, strict=True)):
            q, k, v = (
                rearrange(part, "s l (h d) -> s h l d", d=SPEC.head_width)
                for part in project(F.layer_norm(x, (self.width,))).split(self.sizes, dim=-1)
            )
            if past is not None:
                k, v = torch.cat([past.keys[i], k], dim=2), torch.cat([past.values[i], v], dim=2)
            mixed = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
            x = x + output(rearrange(mixed, "s h l d -> s l (h d)"))
            hidden_states.append(x)
            keys.append(k)
            values.append(v)
        return make_memory(sequence, self.norm(x), keys, values, hidden_states, past)


def windows(setup: Setup) -> Tensor:
    """Return random windows (B T n D); in a frame, action tokens come after observation tokens."""
    return normal(
        BATCH, setup.action.window, OBSERVATION_TOKENS + setup.tokens, setup.width, seed=8
    )


def padding() -> Tensor:
    """Return which observation tokens are padding, (B n) bool.

    Only one token, of the second sample, is padding.
    """
    is_padding = torch.zeros(BATCH, OBSERVATION_TOKENS, dtype=torch.bool)
    is_padding[1, 1] = True
    return is_padding


def context_spec(setup: Setup) -> ContextSpec:
    """Return the sizes of the contexts below, which a head is built with."""
    return ContextSpec(
        width=setup.width,
        action_tokens=setup.tokens,
        vision_width=setup.vision_width,
        vision_tokens=OBSERVATION_TOKENS,
        proprio_dim=setup.proprio_dim,
        layers=_backbone(setup).layer_spec,
        vocabulary=setup.vocabulary,
        embodiments=setup.embodiments,
        features=setup.features,
    )


def context_of(
    setup: Setup,
    tokens: Tensor,
    *,
    needs: frozenset[Need] = EVERYTHING,
    rows: Sequence[int] = range(BATCH),
    dtype: torch.dtype = torch.float32,
) -> Context:
    """Return a policy's context for windows (B T n D), with the fields that a head needs.

    The second sample has padding.

    rows: for each window, its row in the test batch.
    """
    interleaved = setup.formulation == "interleaved"
    sequence = _sequence(tokens.to(dtype), padding()[list(rows)], setup.tokens, interleaved)
    backbone = _backbone(setup, dtype)
    remembers = bool(backbone.offers)
    memory = backbone.remember(sequence) if remembers else Memory(sequence, backbone(sequence))
    batch, window = tokens.shape[:2]
    frame = torch.arange(window).expand(batch, -1)
    vision = TokenGroup(tokens[:, :, :OBSERVATION_TOKENS, : setup.vision_width].to(dtype))
    embedding = normal(setup.vocabulary, setup.width, seed=12).to(dtype)
    words = Words(
        lambda ids: embedding[ids % setup.vocabulary], lambda hidden: hidden @ embedding.T
    )
    return Context(
        readout=memory.tokens.flatten(0, 1)[sequence.readout],
        frame=frame if interleaved else torch.zeros_like(frame),
        proprio=normal(BATCH, window, setup.proprio_dim, seed=13)[list(rows)],
        embodiment=(torch.arange(BATCH) % len(setup.embodiments))[list(rows)],
        features={name: x[list(rows)] for name, x in features(setup).items()},
        vision=vision if "vision" in needs else None,
        memory=_only_needed(memory, needs),
        backbone=backbone,
        words=words if "logits" in needs else None,
    )


def _backbone(setup: Setup, dtype: torch.dtype = torch.float32) -> Backbone:
    """Return the setup's backbone, or the one of this file, with weights of type `dtype`."""
    if setup.backbone is None:
        return StandIn(setup.width).to(dtype)
    # The setup's own backbone keeps its weights as they are.
    return setup.backbone if dtype == torch.float32 else deepcopy(setup.backbone).to(dtype)


def _only_needed(memory: Memory, needs: frozenset[Need]) -> Memory | None:
    """Return the memory; its keys, values and hidden states are dropped unless `needs` names them.

    So a head that reads a dropped field fails. If `needs` names "extend", all fields are kept.
    Returns None if `needs` names nothing that is in the memory.
    """
    if not needs & (LAYERS | {"tokens"}):
        return None
    if "extend" in needs:
        return memory
    if "keys_values" not in needs:
        memory = replace(memory, keys=(), values=())
    return memory if "hidden_states" in needs else replace(memory, hidden_states=())


def both_formulations(setup: Setup) -> list[Setup]:
    """Return the setup in which a window is one sequence, and the one in which each frame is."""
    return [replace(setup, formulation="interleaved"), replace(setup, formulation="policy_head")]


def newest_frame(context: Context, t: int) -> Context:
    """Return the context of frame t alone, as a head gets it while a robot acts."""
    return some_frames(context, slice(t, t + 1))


def some_frames(context: Context, chosen: slice) -> Context:
    """Return the context of some consecutive frames of a window.

    If each frame is a separate sequence, the context has only the memory of these frames. If the
    whole window is one sequence, the context has the memory of the whole window: attention is
    causal, so the later frames in the memory do not affect the chosen frames.
    """
    batch, window = context.frame.shape
    vision, memory = context.vision, context.memory
    if vision is not None:
        vision = replace(vision, tokens=vision.tokens[:, chosen])
    if memory is not None and len(memory.tokens) > batch:

        def choose(x: Tensor) -> Tensor:
            if len(x) != batch * window:
                return x
            return x.reshape(-1, window, *x.shape[1:])[:, chosen].flatten(0, 1)

        memory = map_tensors(memory, choose)
    return replace(
        context,
        readout=context.readout[:, chosen],
        frame=context.frame[:, chosen],
        proprio=None if context.proprio is None else context.proprio[:, chosen],
        features={name: x[:, chosen] for name, x in context.features.items()},
        vision=vision,
        memory=memory,
    )


class Steady(Generator):
    """Gives each frame of a row the same noise, to compare single frames with a whole window."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(torch.device("cpu"), None, [(row, 0) for row in rows])
        self._draws = 0

    def normal(self, *shape: int) -> Tensor:
        """Return normal noise (B T ...), the same for every frame."""
        return self._spread(shape, Generator.normal)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform noise (B T ...), the same for every frame."""
        return self._spread(shape, Generator.uniform)

    def _spread(self, shape: tuple[int, ...], draw: Callable[..., Tensor]) -> Tensor:
        self._draws += 1
        fresh = Generator.by_row([(row, self._draws) for row, _ in self._keys], self.device)
        return draw(fresh, shape[0], 1, *shape[2:]).expand(shape)


def _sequence(
    tokens: Tensor, is_padding: Tensor, action_tokens: int, interleaved: bool
) -> TokenSequence:
    """Pack windows (B T n D); each frame has an observation block and an action block."""
    batch, window, count, _ = tokens.shape
    span = window if interleaved else 1
    pattern = "b (s f) n ... -> (b s) (f n) ..."
    real = torch.cat([~is_padding, torch.ones(batch, action_tokens, dtype=torch.bool)], dim=1)
    real = rearrange(real[:, None].expand(-1, window, -1), pattern, f=span)
    group = TokenGroup(rearrange(tokens, pattern, f=span), None if real.all() else real)
    is_action = (torch.arange(count) >= count - action_tokens).repeat(span)
    frame = torch.arange(span).repeat_interleave(count)
    kind = torch.where(is_action, int(TokenKind.ACTION), int(TokenKind.VISION))
    readout = torch.arange(batch * window * count).view(batch, window, count)[
        ..., count - action_tokens :
    ]
    return pack(group, frame, kind, readout, 2 * frame + is_action)


def context_for(head: PolicyHead, setup: Setup) -> Context:
    """Return the context of the test windows, with only the fields that the head needs."""
    return context_of(setup, windows(setup), needs=head.needs)


def batch(setup: Setup) -> Batch:
    """Return a batch that holds actions and their mask (B T H A), and no observations."""
    action = setup.action
    lead = (BATCH, action.window)
    actions = normal(*lead, action.horizon, action.dim, seed=9).clamp(-1, 1)
    actions[..., list(action.binary)] = (actions[..., list(action.binary)] > 0).float()
    mask = torch.ones(*lead, action.horizon, action.dim, dtype=torch.bool)
    mask[0, -1, 1:] = False
    mask[-1, :, -1] = False
    mask[-1, ..., 0] = False  # the robot of the last sample lacks this action dimension
    return Batch(
        images={},
        instructions=[""] * BATCH,
        text_ids=torch.zeros(BATCH, 1, dtype=torch.int64),
        text_mask=None,
        proprio=None,
        actions=actions,
        action_mask=mask,
    )


def mask_all(targets: Batch) -> Batch:
    """Return a copy of the batch in which every action is masked."""
    assert targets.action_mask is not None
    return replace(targets, action_mask=torch.zeros_like(targets.action_mask))
