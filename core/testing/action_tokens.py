"""Contract tests of action-token strategies; `readout` mixes tokens in place of a backbone."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.attention import attention_mask
from core.contracts.batch import Batch, PastActions, TokenGroup, TokenKind, TokenSequence
from core.contracts.parts import ActionTokens
from core.registry.hookspecs import Build
from core.testing.common import (
    BATCH,
    Check,
    Setup,
    expect,
    expect_close,
    expect_shape,
    generator,
    normal,
)
from core.testing.every_part import PartUnderTest, checks_of
from core.testing.stand_in import batch, mask_all

# (vision (B T N D), text (B M D), proprioception (B T P))
Inputs = tuple[TokenGroup, TokenGroup, Tensor]
# number of real text tokens of each sample
TEXT_LENGTHS = [2 + i for i in range(BATCH)]


def checks(build: Build, config: Any, setup: Setup) -> list[Check]:
    """Return the checks of an action-token strategy."""
    arguments = {
        "width": setup.width,
        "action": setup.action,
        "proprio_dim": setup.proprio_dim,
        "text_prefix": setup.text_prefix,
    }
    part = PartUnderTest(ActionTokens, build, config, arguments, partial(read_in_type, setup=setup))
    tests = (
        sequence_is_well_formed,
        samples_are_independent,
        padding_is_not_seen,
        later_frames_are_not_seen,
        observation_and_instruction_are_seen,
        text_prefix_stands_before_the_images,
        window_is_frame_by_frame,
        past_actions_are_seen_from_their_frame_on,
        losses_are_scalar_terms,
        masked_actions_are_not_seen,
    )
    return checks_of(part, tests, setup)


def read_in_type(strategy: ActionTokens, dtype: torch.dtype, setup: Setup) -> Tensor:
    """Return the readout (B T Q D) in acting and in training, and the losses, in one tensor.

    The test inputs are of the floating-point type `dtype`.
    """
    acting = readout(strategy, *inputs(setup, dtype))
    training = lay_out_targets(strategy, batch(setup), setup, dtype)
    outputs = (acting, mixed_readout(training), *training.losses.values())
    return torch.cat([x.flatten().float() for x in outputs])


def sequence_is_well_formed(strategy: ActionTokens, setup: Setup) -> None:
    """Sequences have the right shapes and types, their frames in order, and a valid readout."""
    sequence = lay_out(strategy, *inputs(setup), past=past_actions(setup))
    expect_shape(sequence.tokens, (None, None, setup.width), "sequence.tokens")
    _expect_labels(sequence)
    mask = sequence.mask
    if mask is None:
        mask = torch.ones_like(sequence.frame, dtype=torch.bool)
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
    if strategy.causal and sequence.block is not None:
        rising = (sequence.block.diff(dim=1) > 0) | ~mask[:, 1:]
        expect(
            bool(rising.all()),
            "sequence.block",
            "each token a block of its own, as causal = True says",
            "others",
        )
    _expect_readout(sequence, mask, (BATCH, setup.action.window, strategy.count))


def _expect_labels(sequence: TokenSequence) -> None:
    """Check shape (S L) and type of each label of the tokens; mask and block may be None."""
    for name, dtype in (
        ("mask", torch.bool),
        ("frame", torch.int64),
        ("kind", torch.int64),
        ("block", torch.int64),
    ):
        label = getattr(sequence, name)
        if label is not None or name not in ("mask", "block"):
            expect_shape(label, tuple(sequence.tokens.shape[:2]), f"sequence.{name}")
            expect(label.dtype == dtype, f"sequence.{name}", str(dtype), str(label.dtype))


def _expect_readout(sequence: TokenSequence, mask: Tensor, shape: tuple[int, int, int]) -> None:
    """Check that each index in `readout` is that of a real action token of the right frame.

    shape: the shape (B T Q) that `readout` must have.
    """
    readout = sequence.readout
    expect(tuple(readout.shape) == shape, "sequence.readout", f"shape {shape}", str(readout.shape))
    expect(readout.dtype == torch.int64, "sequence.readout", "torch.int64", str(readout.dtype))
    batch_size, window, _ = shape
    frames_per_sequence = batch_size * window // len(sequence.tokens)
    frames = torch.arange(window)[:, None] % frames_per_sequence
    expect(
        bool((sequence.frame.flatten()[readout] == frames).all()),
        "sequence.frame",
        "action tokens in the frame that they are read for",
        "another frame",
    )
    readable = ((sequence.kind == TokenKind.ACTION) & mask).flatten()[readout]
    expect(bool(readable.all()), "sequence.readout", "places of action tokens", "other places")


@torch.no_grad()
def samples_are_independent(strategy: ActionTokens, setup: Setup) -> None:
    """A sample gives the same readout alone, without padding, as in a padded batch."""
    vision, text, proprio = inputs(setup)
    together = readout(strategy, vision, text, proprio)
    for i, words in enumerate(TEXT_LENGTHS):
        row = slice(i, i + 1)
        alone = readout(
            strategy,
            TokenGroup(vision.tokens[row]),
            TokenGroup(text.tokens[row, :words]),
            proprio[row],
        )
        expect_close(alone, together[row], f"readout of sample {i} alone, against the padded batch")


@torch.no_grad()
def padding_is_not_seen(strategy: ActionTokens, setup: Setup) -> None:
    """The contents of the text's padding do not change the readout."""
    vision, text, proprio = inputs(setup)
    assert text.mask is not None
    other = replace(text, tokens=torch.where(text.mask[..., None], text.tokens, 7.0))
    expected = readout(strategy, vision, text, proprio)
    expect_close(
        readout(strategy, vision, other, proprio),
        expected,
        "readout after a change of the text's padding",
    )


@torch.no_grad()
def later_frames_are_not_seen(strategy: ActionTokens, setup: Setup) -> None:
    """Changing a frame and all later frames does not change the readouts of earlier frames."""
    vision, text, proprio = inputs(setup)
    before = readout(strategy, vision, text, proprio)
    for t in range(1, setup.action.window):
        images, numbers = vision.tokens.clone(), proprio.clone()
        images[:, t:] += 1
        numbers[:, t:] += 1
        after = readout(strategy, TokenGroup(images), text, numbers)
        expect_close(after[:, :t], before[:, :t], f"readouts before frame {t} after its change")


def observation_and_instruction_are_seen(strategy: ActionTokens, setup: Setup) -> None:
    """The readout of a frame depends on all images of the frame and on the whole instruction."""
    vision, text, proprio = inputs(setup)
    for t in range(setup.action.window):
        images, words = vision.tokens.clone().requires_grad_(), text.tokens.clone().requires_grad_()
        window = readout(strategy, TokenGroup(images), replace(text, tokens=words), proprio)
        frame = window[:, t]
        torch.autograd.backward((frame * normal(*frame.shape, seed=3)).sum())
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


def text_prefix_stands_before_the_images(strategy: ActionTokens, setup: Setup) -> None:
    """The first `text_prefix` tokens of the instruction, such as <bos>, come before all images."""
    vision, text, proprio = inputs(setup)
    words = text.tokens.clone().requires_grad_()
    sequence = lay_out(strategy, vision, replace(text, tokens=words), proprio)
    is_image = sequence.kind == TokenKind.VISION
    before = torch.arange(is_image.shape[1]) < is_image.int().argmax(1, keepdim=True)  # (S L)
    numbers = normal(*sequence.tokens.shape, seed=3)
    torch.autograd.backward((sequence.tokens * before[..., None] * numbers).sum())
    assert words.grad is not None
    expect(
        bool(words.grad[:, : setup.text_prefix].any(-1).all()),
        "tokens before the first image",
        f"the first {setup.text_prefix} of the instruction: text.tokens[:, :text_prefix]",
        "not all of them",
    )


@torch.no_grad()
def window_is_frame_by_frame(strategy: ActionTokens, setup: Setup) -> None:
    """The last `context` frames up to a frame give it the same readout as the whole window."""
    vision, text, proprio = inputs(setup)
    window = readout(strategy, vision, text, proprio)
    for t in range(setup.action.window):
        last = slice(max(0, t + 1 - strategy.context), t + 1)
        acting = readout(strategy, TokenGroup(vision.tokens[:, last]), text, proprio[:, last])
        expect_close(
            acting[:, -1],
            window[:, t],
            f"readout of frame {t} with context {strategy.context}, against the window",
        )


@torch.no_grad()
def past_actions_are_seen_from_their_frame_on(strategy: ActionTokens, setup: Setup) -> None:
    """Past actions change the readouts of their frame, and none before; unknown ones change none.

    This is checked if the strategy reads past actions and has action tokens.
    """
    if not (strategy.reads_past and strategy.count):
        return
    past = past_actions(setup)

    def read(actions: Tensor) -> Tensor:
        sequence = lay_out(strategy, *inputs(setup), past=replace(past, actions=actions))
        return mixed_readout(sequence)

    before = read(past.actions)
    for t in range(setup.action.window):
        changed = past.actions.clone()
        changed[:, t] += 1
        after = read(changed)
        if t:
            what = f"readouts before frame {t} after a change of its past action"
            expect_close(after[:, :t], before[:, :t], what)
        for row, known in enumerate(past.known[:, t].tolist()):
            is_same = torch.equal(after[row, t], before[row, t])
            expect(
                is_same != known,
                f"readout of frame {t}",
                "to see its past action" if known else "not to see an unknown past action",
                "the same" if is_same else "another one after a change",
            )


def losses_are_scalar_terms(strategy: ActionTokens, setup: Setup) -> None:
    """In training, the layout's losses are finite scalars, the same terms whatever is masked."""
    targets = batch(setup)
    terms = lay_out_targets(strategy, targets, setup).losses
    without_actions = replace(targets, actions=None, action_mask=None)
    for name, term in terms.items():
        expect_shape(term, (), f"losses['{name}']")
        expect(bool(term.isfinite()), f"losses['{name}']", "a finite number", str(term.detach()))
    for when, other in {
        "all actions are masked": mask_all(targets),
        "the batch has no actions": without_actions,
    }.items():
        others = lay_out_targets(strategy, other, setup).losses
        expect(
            set(others) == set(terms), f"losses if {when}", f"{sorted(terms)}", f"{sorted(others)}"
        )
        finite = all(bool(term.isfinite()) for term in others.values())
        expect(finite, f"losses if {when}", "finite numbers", "infinity or NaN")


@torch.no_grad()
def masked_actions_are_not_seen(strategy: ActionTokens, setup: Setup) -> None:
    """In training, the contents of masked actions change neither the tokens nor the losses."""
    targets = batch(setup)
    assert targets.actions is not None
    assert targets.action_mask is not None
    changed = torch.where(targets.action_mask, targets.actions, 1 - targets.actions)
    expected = lay_out_targets(strategy, targets, setup)
    received = lay_out_targets(strategy, replace(targets, actions=changed), setup)
    expect_close(received.tokens, expected.tokens, "tokens after a change of masked actions")
    for name, term in expected.losses.items():
        expect_close(
            received.losses[name], term, f"losses['{name}'] after a change of masked actions"
        )


def lay_out_targets(
    strategy: ActionTokens, targets: Batch, setup: Setup, dtype: torch.dtype = torch.float32
) -> TokenSequence:
    """Lay out the test inputs as in training, where the layout is given the target actions."""
    return lay_out(strategy, *inputs(setup, dtype), targets=targets, past=past_actions(setup))


def lay_out(
    strategy: ActionTokens,
    vision: TokenGroup,
    text: TokenGroup,
    proprio: Tensor,
    *,
    targets: Batch | None = None,
    past: PastActions | None = None,
    rows: list[int] | None = None,
) -> TokenSequence:
    """Call `layout` as the policy does: with past actions only if the strategy reads them."""
    further = {"past": past} if strategy.reads_past else {}
    layout: Any = strategy.layout  # of which most take no past actions
    draws = generator() if rows is None else generator(rows)
    sequence: TokenSequence = layout(vision, text, proprio, targets, draws, **further)
    return sequence


def past_actions(setup: Setup) -> PastActions:
    """Return random past actions; those of the first frame of all samples but one are unknown."""
    known = torch.ones(BATCH, setup.action.window, dtype=torch.bool)
    known[1:, 0] = False
    return PastActions(normal(*known.shape, setup.action.dim, seed=23), known)


def readout(
    strategy: ActionTokens, vision: TokenGroup, text: TokenGroup, proprio: Tensor
) -> Tensor:
    """Lay out sequences as in acting, and return their mixed action tokens (B T Q D)."""
    return mixed_readout(lay_out(strategy, vision, text, proprio, rows=[0] * len(vision.tokens)))


def mixed_readout(sequence: TokenSequence) -> Tensor:
    """Mix the tokens of sequences, and return the mixed action tokens (B T Q D).

    There is no backbone. Instead, a weighted mean of all tokens that a token may see is added to
    it; a seen token's weight grows with its position. So a wrong mask, frame, block or position
    changes the result.
    """
    tokens, length = sequence.tokens, sequence.tokens.shape[1]
    mask = attention_mask(sequence)
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool).tril().view(1, 1, length, length)
    position = torch.arange(1, length + 1).sqrt().to(tokens.dtype)
    weights = mask.squeeze(1).to(tokens.dtype) * position  # (S L L)
    seen = tokens
    if sequence.position_embedding is not None:
        seen = tokens + sequence.position_embedding
    hidden = tokens + weights @ seen / weights.sum(-1, keepdim=True).clamp(min=1)
    return hidden.flatten(0, 1)[sequence.readout]


def inputs(setup: Setup, dtype: torch.dtype = torch.float32) -> Inputs:
    """Return random vision tokens, padded text tokens and proprioception."""
    window, width = setup.action.window, setup.width
    vision = TokenGroup(normal(BATCH, window, 4, width, seed=5).to(dtype))
    mask = torch.arange(max(TEXT_LENGTHS)) < torch.tensor(TEXT_LENGTHS)[:, None]
    text = TokenGroup(normal(BATCH, max(TEXT_LENGTHS), width, seed=6).to(dtype), mask)
    return vision, text, normal(BATCH, window, setup.proprio_dim, seed=7)
