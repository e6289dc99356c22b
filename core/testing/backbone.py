"""Contract tests of backbones."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts import Backbone, TokenGroup, TokenSequence
from core.hookspecs import Build
from core.testing.common import (
    BATCH,
    Check,
    Given,
    Subject,
    checks_of_every_part,
    expect,
    expect_close,
    expect_shape,
    normal,
)
from core.tokens import pack

PER_FRAME = 4  # three tokens of observation, one action token


def checks(build: Build, config: Any, given: Given) -> list[Check]:
    """Return the checks of a backbone."""
    subject = Subject(partial(build, config), partial(_run, window=given.action.window))
    own = (
        shape_is_kept,
        samples_are_independent,
        padding_is_not_seen,
        no_mask_is_a_full_mask,
        later_frames_are_not_seen,
        all_observations_are_seen,
        what_is_read_is_what_forward_gives,
    )
    window = given.action.window
    return [*(Check(check.__name__, partial(check, subject, window)) for check in own), *checks_of_every_part(subject)]


def shape_is_kept(subject: Subject, window: int) -> None:
    """(S L width) -> (S L width)."""
    backbone: Backbone = subject.build()
    tokens = sequence(backbone.width, window).tokens
    hidden = backbone(sequence(backbone.width, window))
    expect_shape(hidden, tuple(tokens.shape), "hidden states")
    expect(hidden.is_floating_point(), "hidden states", "floating-point numbers", str(hidden.dtype))


@torch.no_grad()
def samples_are_independent(subject: Subject, window: int) -> None:
    """A sequence alone, and without padding, gives what it gives in a padded batch."""
    backbone: Backbone = subject.build()
    together = sequence(backbone.width, window)
    hidden = backbone(together)
    for i in range(BATCH):
        alone = backbone(_alone(together, i))
        expect_close(
            alone, hidden[i : i + 1, : alone.shape[1]], f"hidden states of sequence {i} alone, against a batch"
        )


@torch.no_grad()
def padding_is_not_seen(subject: Subject, window: int) -> None:
    """What the padding holds changes nothing."""
    backbone: Backbone = subject.build()
    before = sequence(backbone.width, window)
    assert before.mask is not None
    after = replace(before, tokens=torch.where(before.mask[..., None], before.tokens, 7.0))
    expected, received = backbone(before)[before.mask], backbone(after)[before.mask]
    expect_close(received, expected, "hidden states of real tokens after a change of the padding")


@torch.no_grad()
def no_mask_is_a_full_mask(subject: Subject, window: int) -> None:
    """`mask=None` means that all tokens are real, for windows and for single frames."""
    backbone: Backbone = subject.build()
    for frames in (window, 1):
        unmasked = sequence(backbone.width, frames, padded=False)
        masked = replace(unmasked, mask=torch.ones(unmasked.tokens.shape[:2], dtype=torch.bool))
        expect_close(backbone(unmasked), backbone(masked), f"hidden states of {frames} frames, no mask against ones")


@torch.no_grad()
def later_frames_are_not_seen(subject: Subject, window: int) -> None:
    """A change of one frame leaves the frames before it as they were."""
    backbone: Backbone = subject.build()
    before = sequence(backbone.width, window)
    assert before.mask is not None
    for t in range(1, window):
        later = (before.frame >= t)[..., None]
        after = replace(before, tokens=torch.where(later, before.tokens + 1, before.tokens))
        kept = (before.frame < t) & before.mask
        expect_close(backbone(after)[kept], backbone(before)[kept], f"hidden states before frame {t} after its change")


def all_observations_are_seen(subject: Subject, window: int) -> None:
    """The last action token sees the observation of every frame of its sequence."""
    backbone: Backbone = subject.build()
    whole = sequence(backbone.width, window, padded=False)
    tokens = whole.tokens.clone().requires_grad_()
    hidden = backbone(replace(whole, tokens=tokens)).flatten(0, 1)[whole.readout[:, -1]]
    torch.autograd.backward((hidden * normal(*hidden.shape, seed=3)).sum())
    assert tokens.grad is not None
    unseen = sorted(set(whole.frame[~whole.is_action & ~tokens.grad.any(-1)].tolist()))
    expect(not unseen, "the last action token", "to depend on every observation", f"none in frames {unseen}")


def what_is_read_is_what_forward_gives(subject: Subject, window: int) -> None:
    """`read` is `forward` at the action tokens, and sends back the same gradient."""
    backbone: Backbone = subject.build()
    whole = sequence(backbone.width, window)
    received = []
    for run in (lambda given: backbone(given).flatten(0, 1)[given.readout], backbone.read):
        tokens = whole.tokens.clone().requires_grad_()
        readout = run(replace(whole, tokens=tokens))
        torch.autograd.backward((readout * normal(*readout.shape, seed=8)).sum())
        received.append((readout.detach(), tokens.grad))
    (expected, gradient), (read, read_gradient) = received
    assert gradient is not None
    assert read_gradient is not None
    expect_close(read, expected, "what `read` gives, against `forward` at the action tokens")
    expect_close(read_gradient, gradient, "the gradient through `read`, against that through `forward`")


def sequence(width: int, window: int, *, padded: bool = True) -> TokenSequence:
    """Random packed sequences (B T*4 width); if padded, the second and third lack tokens of their first frame."""
    length = window * PER_FRAME
    mask = torch.ones(BATCH, length, dtype=torch.bool)
    mask[1, 1:3] = False
    mask[2, 0] = False
    group = TokenGroup(normal(BATCH, length, width, seed=4), mask if padded else None)
    index = torch.arange(length)
    readout = torch.arange(BATCH * length).view(BATCH, window, PER_FRAME)[..., -1:]  # (B T 1)
    is_action = index % PER_FRAME == PER_FRAME - 1
    return pack(group, index // PER_FRAME, is_action, readout)


def _alone(together: TokenSequence, i: int) -> TokenSequence:
    """Return one sequence without its padding."""
    assert together.mask is not None
    row, length = slice(i, i + 1), int(together.mask[i].sum())
    return TokenSequence(
        tokens=together.tokens[row, :length],
        mask=None,
        frame=together.frame[row, :length],
        is_action=together.is_action[row, :length],
        readout=together.readout[row] - i * together.tokens.shape[1],
    )


def _run(backbone: Backbone, dtype: torch.dtype, window: int) -> Tensor:
    whole = sequence(backbone.width, window)
    assert whole.mask is not None
    hidden: Tensor = backbone(replace(whole, tokens=whole.tokens.to(dtype)))
    return hidden * whole.mask[..., None]
