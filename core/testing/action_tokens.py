"""Contract tests of action-token strategies, read through the simplest network that may stand in
for a backbone.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.attention import attention_mask
from core.contracts.batch import TokenGroup, TokenKind, TokenSequence
from core.contracts.parts import ActionTokens
from core.registry.components import call_build
from core.registry.hookspecs import Build
from core.testing.common import (
    BATCH,
    Check,
    Given,
    Subject,
    checks_of_every_part,
    expect,
    expect_close,
    expect_shape,
    generator,
    normal,
)

Inputs = tuple[
    TokenGroup, TokenGroup, Tensor
]  # vision (B T N D), text (B M D), proprioception (B T P)


def checks(build: Build, config: Any, given: Given) -> list[Check]:
    """Return the checks of an action-token strategy."""
    offered = {
        "width": given.width,
        "action": given.action,
        "proprio_dim": given.proprio_dim,
        "text_prefix": given.text_prefix,
    }
    make = partial(call_build, build, config, offered)
    subject = Subject(make, partial(_run, given=given))
    own = (
        sequence_is_well_formed,
        samples_are_independent,
        padding_is_not_seen,
        later_frames_are_not_seen,
        observation_and_instruction_are_seen,
        window_is_frame_by_frame,
    )
    return [
        *(Check(check.__name__, partial(check, subject, given)) for check in own),
        *checks_of_every_part(subject),
    ]


def sequence_is_well_formed(subject: Subject, given: Given) -> None:
    """All fields of the TokenSequence agree; real tokens stand first, frames in order, action
    tokens are readable.
    """
    tokens: ActionTokens = subject.build()
    sequence = tokens.layout(*inputs(given), None, generator())
    expect_shape(sequence.tokens, (None, None, given.width), "sequence.tokens")
    for name, dtype in (
        ("mask", torch.bool),
        ("frame", torch.int64),
        ("kind", torch.int64),
        ("block", torch.int64),
    ):
        value = getattr(sequence, name)
        if value is not None or name not in ("mask", "block"):
            expect_shape(value, tuple(sequence.tokens.shape[:2]), f"sequence.{name}")
            expect(value.dtype == dtype, f"sequence.{name}", str(dtype), str(value.dtype))
    mask = _mask(sequence)
    expect(
        not (mask[:, 1:] & ~mask[:, :-1]).any(),
        "sequence.mask",
        "real tokens first",
        "padding before them",
    )
    backwards = (sequence.frame.diff(dim=1) < 0) & mask[:, 1:]
    expect(
        not backwards.any(), "sequence.frame", "frames in order", "a frame before an earlier one"
    )
    places = (BATCH, given.action.window, tokens.count)
    expect(
        tuple(sequence.readout.shape) == places,
        "sequence.readout",
        f"shape {places}",
        str(sequence.readout.shape),
    )
    expect(
        sequence.readout.dtype == torch.int64,
        "sequence.readout",
        "torch.int64",
        str(sequence.readout.dtype),
    )
    if tokens.causal and sequence.block is not None:
        rising = (sequence.block.diff(dim=1) > 0) | ~mask[:, 1:]
        expect(
            bool(rising.all()),
            "sequence.block",
            "each token a block of its own, as causal = True says",
            "others",
        )
    spanned = BATCH * given.action.window // len(sequence.tokens)  # frames of a sequence
    frames = torch.arange(given.action.window)[:, None] % spanned
    labelled = bool((sequence.frame.flatten()[sequence.readout] == frames).all())
    expect(
        labelled,
        "sequence.frame",
        "action tokens in the frame that they are read for",
        "another frame",
    )
    readable = ((sequence.kind == TokenKind.ACTION) & mask).flatten()[sequence.readout]
    expect(bool(readable.all()), "sequence.readout", "places of action tokens", "other places")


@torch.no_grad()
def samples_are_independent(subject: Subject, given: Given) -> None:
    """A sample alone, its instruction without padding, gives what it gives in a padded batch."""
    tokens: ActionTokens = subject.build()
    vision, text, proprio = inputs(given)
    together = readout(tokens, (vision, text, proprio))
    for i, words in enumerate(_lengths()):
        own_vision = TokenGroup(vision.tokens[i : i + 1])
        own_text = TokenGroup(text.tokens[i : i + 1, :words])
        alone = readout(tokens, (own_vision, own_text, proprio[i : i + 1]))
        expect_close(
            alone, together[i : i + 1], f"readout of sample {i} alone, against the padded batch"
        )


@torch.no_grad()
def padding_is_not_seen(subject: Subject, given: Given) -> None:
    """What the padding of the text holds changes nothing."""
    tokens: ActionTokens = subject.build()
    vision, text, proprio = inputs(given)
    assert text.mask is not None
    other = replace(text, tokens=torch.where(text.mask[..., None], text.tokens, 7.0))
    expected = readout(tokens, (vision, text, proprio))
    expect_close(
        readout(tokens, (vision, other, proprio)),
        expected,
        "readout after a change of the text's padding",
    )


@torch.no_grad()
def later_frames_are_not_seen(subject: Subject, given: Given) -> None:
    """A change of what one frame shows leaves the readouts before it as they were."""
    tokens: ActionTokens = subject.build()
    vision, text, proprio = inputs(given)
    before = readout(tokens, (vision, text, proprio))
    for t in range(1, given.action.window):
        images, numbers = vision.tokens.clone(), proprio.clone()
        images[:, t:] += 1
        numbers[:, t:] += 1
        after = readout(tokens, (TokenGroup(images), text, numbers))
        expect_close(after[:, :t], before[:, :t], f"readouts before frame {t} after its change")


def observation_and_instruction_are_seen(subject: Subject, given: Given) -> None:
    """The readout of a frame depends on all that the frame shows and on all of the instruction."""
    tokens: ActionTokens = subject.build()
    vision, text, proprio = inputs(given)
    for t in range(given.action.window):
        images, words = vision.tokens.clone().requires_grad_(), text.tokens.clone().requires_grad_()
        received = readout(tokens, (TokenGroup(images), replace(text, tokens=words), proprio))[:, t]
        torch.autograd.backward((received * normal(*received.shape, seed=3)).sum())
        assert images.grad is not None
        assert words.grad is not None
        assert text.mask is not None
        expect(
            bool(images.grad[:, t].any(-1).all()),
            f"readout of frame {t}",
            "to see all its images",
            "not all",
        )
        expect(
            bool(words.grad[text.mask].any(-1).all()),
            f"readout of frame {t}",
            "to see the instruction",
            "not all",
        )


@torch.no_grad()
def window_is_frame_by_frame(subject: Subject, given: Given) -> None:
    """A robot that keeps the last `context` frames reads what training read from the window."""
    tokens: ActionTokens = subject.build()
    vision, text, proprio = inputs(given)
    window = readout(tokens, (vision, text, proprio))
    for t in range(given.action.window):
        kept = slice(max(0, t + 1 - tokens.context), t + 1)
        stepped = readout(tokens, (TokenGroup(vision.tokens[:, kept]), text, proprio[:, kept]))[
            :, -1
        ]
        expect_close(
            stepped,
            window[:, t],
            f"readout of frame {t} with context {tokens.context}, against the window",
        )


def readout(tokens: ActionTokens, given_to_it: Inputs) -> Tensor:
    """Lay out, mix, read -> (B T Q D).

    The mixing stands in for a backbone: each token becomes the mean of all tokens that it may see,
    weighted by their position, so that a wrong mask, frame, block or position shows.
    """
    sequence = tokens.layout(*given_to_it, None, generator([0] * len(given_to_it[0].tokens)))
    mask, length = attention_mask(sequence), sequence.tokens.shape[1]
    seen = (
        torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask.squeeze(1)
    )  # (S L L)
    position = torch.arange(1, length + 1).sqrt().to(sequence.tokens.dtype)
    weights = seen.to(sequence.tokens.dtype) * position
    hidden = sequence.tokens + weights @ sequence.tokens / weights.sum(-1, keepdim=True).clamp(
        min=1
    )
    return hidden.flatten(0, 1)[sequence.readout]


def inputs(given: Given, dtype: torch.dtype = torch.float32) -> Inputs:
    """Random vision, padded text and proprioception."""
    window, width = given.action.window, given.width
    vision = TokenGroup(normal(BATCH, window, 4, width, seed=5).to(dtype))
    mask = torch.arange(max(_lengths())) < torch.tensor(_lengths())[:, None]
    text = TokenGroup(normal(BATCH, max(_lengths()), width, seed=6).to(dtype), mask)
    return vision, text, normal(BATCH, window, given.proprio_dim, seed=7)


def _lengths() -> list[int]:
    """Words of each sample's instruction."""
    return [2 + i for i in range(BATCH)]


def _mask(sequence: TokenSequence) -> Tensor:
    return (
        torch.ones_like(sequence.frame, dtype=torch.bool)
        if sequence.mask is None
        else sequence.mask
    )


def _run(tokens: ActionTokens, dtype: torch.dtype, given: Given) -> Tensor:
    return readout(tokens, inputs(given, dtype))
