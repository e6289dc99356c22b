"""Contract tests of backbones."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.attention import blocks_of
from core.contracts.batch import TokenGroup, TokenKind, TokenSequence
from core.contracts.context import Context
from core.contracts.parts import Backbone
from core.contracts.tokens import pack
from core.registry.hookspecs import Build
from core.testing.common import (
    BATCH,
    Check,
    Setup,
    expect,
    expect_close,
    expect_shape,
    normal,
)
from core.testing.every_part import PartUnderTest, checks_of

# three observation tokens and one action token
TOKENS_PER_FRAME = 4


def checks(build: Build, config: Any, setup: Setup) -> list[Check]:
    """Return the checks of a backbone."""
    window = setup.action.window
    part = PartUnderTest(Backbone, build, config, {}, partial(run, window=window))
    tests = (
        shape_is_kept,
        samples_are_independent,
        padding_is_not_seen,
        no_mask_is_a_full_mask,
        later_frames_are_not_seen,
        all_observations_are_seen,
        blocks_are_obeyed,
        blocks_are_seen_both_ways,
        what_is_read_is_what_forward_gives,
        memory_is_what_forward_gives,
        later_tokens_continue_a_memory,
        extensions_are_rows_of_their_frames,
    )
    return checks_of(part, tests, window)


def run(backbone: Backbone, dtype: torch.dtype, window: int) -> Tensor:
    """Return the hidden states (S L width) of padded sequences, with zeros at the padding."""
    whole = sequence(backbone.width, window)
    assert whole.mask is not None
    hidden: Tensor = backbone(replace(whole, tokens=whole.tokens.to(dtype)))
    return hidden * whole.mask[..., None]


def shape_is_kept(backbone: Backbone, window: int) -> None:
    """Tokens (S L width) give hidden states (S L width)."""
    whole = sequence(backbone.width, window)
    hidden = backbone(whole)
    expect_shape(hidden, tuple(whole.tokens.shape), "hidden states")
    expect(hidden.is_floating_point(), "hidden states", "floating-point numbers", str(hidden.dtype))


@torch.no_grad()
def samples_are_independent(backbone: Backbone, window: int) -> None:
    """Alone and without padding, a sequence gives the same hidden states as in a padded batch."""
    together = sequence(backbone.width, window)
    hidden = backbone(together)
    for i in range(BATCH):
        alone = backbone(without_padding(together, i))
        expect_close(
            alone,
            hidden[i : i + 1, : alone.shape[1]],
            f"hidden states of sequence {i} alone, against a batch",
        )


@torch.no_grad()
def padding_is_not_seen(backbone: Backbone, window: int) -> None:
    """The contents of the padding do not change the hidden states of real tokens."""
    before = sequence(backbone.width, window)
    assert before.mask is not None
    after = replace(
        before, tokens=torch.where(before.mask[..., None], before.tokens, other_tokens(before))
    )
    expected, received = backbone(before)[before.mask], backbone(after)[before.mask]
    expect_close(received, expected, "hidden states of real tokens after a change of the padding")


@torch.no_grad()
def no_mask_is_a_full_mask(backbone: Backbone, window: int) -> None:
    """`mask=None` means that all tokens are real, for windows and for single frames."""
    for frames in (window, 1):
        unmasked = sequence(backbone.width, frames, padded=False)
        masked = replace(unmasked, mask=torch.ones(unmasked.tokens.shape[:2], dtype=torch.bool))
        expect_close(
            backbone(unmasked),
            backbone(masked),
            f"hidden states of {frames} frames, no mask against ones",
        )


@torch.no_grad()
def later_frames_are_not_seen(backbone: Backbone, window: int) -> None:
    """Changing a frame and all later frames does not change the states of earlier frames."""
    before = sequence(backbone.width, window)
    assert before.mask is not None
    for t in range(1, window):
        later = (before.frame >= t)[..., None]
        after = replace(before, tokens=torch.where(later, other_tokens(before), before.tokens))
        earlier = (before.frame < t) & before.mask
        expect_close(
            backbone(after)[earlier],
            backbone(before)[earlier],
            f"hidden states before frame {t} after its change",
        )


def all_observations_are_seen(backbone: Backbone, window: int) -> None:
    """The last action token depends on the observation of every frame of its sequence."""
    if not backbone.mixes:
        return
    whole = sequence(backbone.width, window, padded=False)
    tokens = whole.tokens.clone().requires_grad_()
    hidden = backbone(replace(whole, tokens=tokens)).flatten(0, 1)[whole.readout[:, -1]]
    torch.autograd.backward((hidden * normal(*hidden.shape, seed=3)).sum())
    assert tokens.grad is not None
    observed = whole.kind != TokenKind.ACTION
    unseen_frames = sorted(set(whole.frame[observed & ~tokens.grad.any(-1)].tolist()))
    expect(
        not unseen_frames,
        "the last action token",
        "to depend on every observation",
        f"none in frames {unseen_frames}",
    )


def what_is_read_is_what_forward_gives(backbone: Backbone, window: int) -> None:
    """`read` returns what `forward` returns at the action tokens; both give the same gradient."""
    whole = sequence(backbone.width, window)
    received = []
    for read in (lambda x: backbone(x).flatten(0, 1)[x.readout], backbone.read):
        tokens = whole.tokens.clone().requires_grad_()
        readout = read(replace(whole, tokens=tokens))
        torch.autograd.backward((readout * normal(*readout.shape, seed=8)).sum())
        received.append((readout.detach(), tokens.grad))
    (expected, expected_gradient), (readout, gradient) = received
    assert expected_gradient is not None
    assert gradient is not None
    expect_close(readout, expected, "what `read` gives, against `forward` at the action tokens")
    expect_close(
        gradient, expected_gradient, "the gradient through `read`, against that through `forward`"
    )


@torch.no_grad()
def blocks_are_obeyed(backbone: Backbone, window: int) -> None:
    """A token does not see a later block, not even a later block of the same frame."""
    before = sequence(backbone.width, window, padded=False, causal=False)
    is_action = (before.kind == TokenKind.ACTION)[..., None]
    last = is_action & (before.frame == window - 1)[..., None]
    after = replace(before, tokens=torch.where(last, other_tokens(before), before.tokens))
    others = ~last.squeeze(-1)
    expect_close(
        backbone(after)[others],
        backbone(before)[others],
        "hidden states after a change of a later block",
    )


def blocks_are_seen_both_ways(backbone: Backbone, window: int) -> None:
    """The first token of a block depends on the block's last token, unless `both_ways` is False."""
    if not backbone.both_ways:
        return
    whole = sequence(backbone.width, window, padded=False, causal=False)
    tokens = whole.tokens.clone().requires_grad_()
    first = backbone(replace(whole, tokens=tokens))[:, 0]
    torch.autograd.backward((first * normal(*first.shape, seed=3)).sum())
    assert tokens.grad is not None
    last = TOKENS_PER_FRAME - 2  # the last observation token of the first frame
    depends = bool(tokens.grad[:, last].any())
    expect(
        depends,
        "the first token of a block",
        "to depend on the last one of it",
        "it does not: both_ways = False?",
    )


@torch.no_grad()
def memory_is_what_forward_gives(backbone: Backbone, window: int) -> None:
    """`remember` returns the same tokens as `forward`, and also the layers if `offers` says so.

    It returns every layer's keys and values if `offers` contains "keys_values", and every layer's
    hidden states if it contains "hidden_states".
    """
    if not backbone.offers & {"keys_values", "hidden_states", "extend", "losses", "carry"}:
        return
    whole = sequence(backbone.width, window, causal=False)
    memory, spec = backbone.remember(whole), backbone.layer_spec
    assert whole.mask is not None
    expect_close(
        memory.tokens[whole.mask], backbone(whole)[whole.mask], "memory.tokens, against `forward`"
    )
    if "hidden_states" in backbone.offers:
        for number, states in enumerate(memory.hidden_states):
            expect_shape(states, tuple(whole.tokens.shape), f"hidden states of layer {number}")
    if "keys_values" in backbone.offers:
        expect(spec is not None, "layer_spec", "a LayerSpec", "None")
        assert spec is not None
        shape = (BATCH, spec.key_heads, whole.tokens.shape[1], spec.head_width)
        counts = {len(memory.keys), len(memory.values)}
        expect(
            counts == {spec.depth},
            "keys and values",
            f"{spec.depth} layers, as layer_spec says",
            f"{counts}",
        )
        for number, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
            expect_shape(keys, shape, f"keys of layer {number}")
            expect_shape(values, shape, f"values of layer {number}")


@torch.no_grad()
def later_tokens_continue_a_memory(backbone: Backbone, window: int) -> None:
    """A sequence that is run in two pieces gives the same hidden states as the whole sequence."""
    if not backbone.offers & {"extend", "carry"}:
        return
    for causal in (True, False) if backbone.both_ways else (True,):
        whole = sequence(backbone.width, window, padded=False, causal=causal)
        # Give the blocks explicitly, so that the block numbers of the second piece continue those
        # of the first piece.
        with_blocks = replace(whole, block=blocks_of(whole))
        first = select_columns(with_blocks, slice(0, TOKENS_PER_FRAME))
        second = select_columns(with_blocks, slice(TOKENS_PER_FRAME, None))
        memory = backbone.remember(second, backbone.remember(first))
        # A recurrent backbone carries a state, so it returns the tokens of the second piece only.
        count = second.tokens.shape[1]
        received, expected = memory.tokens[:, -count:], backbone(whole)[:, -count:]
        expect_close(received, expected, f"hidden states run in two halves, blocks {not causal}")


@torch.no_grad()
def extensions_are_rows_of_their_frames(backbone: Backbone, window: int) -> None:
    """Tokens that are added to a frame do not depend on later frames or on padding.

    Adding two tokens one by one gives the same result as adding both at once.
    """
    if "extend" not in backbone.offers:
        return
    whole = sequence(backbone.width, window)
    added = normal(BATCH, window, 2, backbone.width, seed=14)
    frame = torch.arange(window).expand(BATCH, -1)
    together, _ = context_of(backbone, whole, frame).extend(added)
    for i in range(BATCH):
        alone = without_padding(whole, i)
        for t in range(window):
            ending = select_columns(alone, slice(0, int((alone.frame <= t).sum())))
            context = context_of(
                backbone, replace(ending, readout=alone.readout[:, :1]), frame[:1, t : t + 1]
            )
            first, longer = context.extend(added[i : i + 1, t : t + 1, :1])
            second, _ = longer.extend(added[i : i + 1, t : t + 1, 1:])
            received = torch.cat([first, second], dim=2)[0, 0]
            expect_close(
                received,
                together[i, t],
                f"two tokens added to frame {t} one by one, against all at once",
            )


def other_tokens(whole: TokenSequence) -> Tensor:
    """Return tokens (S L width) that differ from the tokens of the sequences."""
    # These are new random tokens: a layer norm would remove a constant added to the old tokens.
    return normal(*whole.tokens.shape, seed=16) * 3


def context_of(backbone: Backbone, whole: TokenSequence, frame: Tensor) -> Context:
    """Return the context that a head gets for these sequences.

    frame: each frame's index in its sequence (B T).
    """
    memory = backbone.remember(whole)
    return Context(
        memory.tokens.flatten(0, 1)[whole.readout], frame, memory=memory, backbone=backbone
    )


def select_columns(whole: TokenSequence, columns: slice) -> TokenSequence:
    """Return the sequences with only the tokens in these columns; there must be no padding."""
    return whole.map_columns(lambda x: x[:, columns])


def sequence(width: int, window: int, *, padded: bool = True, causal: bool = True) -> TokenSequence:
    """Return random packed sequences (B T*4 width), with four tokens for each frame.

    padded: whether the second and the third sequence lack some tokens of their first frame.
    causal: whether every token is a separate block. If not, the observation tokens of a frame are
        one block, and the frame's action token is the next block.
    """
    length = window * TOKENS_PER_FRAME
    mask = torch.ones(BATCH, length, dtype=torch.bool)
    mask[1, 1:3] = False
    mask[2, 0] = False
    group = TokenGroup(normal(BATCH, length, width, seed=4), mask if padded else None)
    index = torch.arange(length)
    readout = torch.arange(BATCH * length).view(BATCH, window, TOKENS_PER_FRAME)[
        ..., -1:
    ]  # (B T 1)
    is_action = index % TOKENS_PER_FRAME == TOKENS_PER_FRAME - 1
    kind = torch.where(is_action, int(TokenKind.ACTION), int(TokenKind.VISION))
    frame = index // TOKENS_PER_FRAME
    return pack(group, frame, kind, readout, None if causal else 2 * frame + is_action)


def without_padding(together: TokenSequence, i: int) -> TokenSequence:
    """Return sequence `i` without its padding."""
    assert together.mask is not None
    row, length = slice(i, i + 1), int(together.mask[i].sum())
    return TokenSequence(
        tokens=together.tokens[row, :length],
        mask=None,
        frame=together.frame[row, :length],
        kind=together.kind[row, :length],
        readout=together.readout[row] - i * together.tokens.shape[1],
        block=None if together.block is None else together.block[row, :length],
    )
