"""Contract tests of policy heads."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts import Batch, PolicyHead
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


def checks(build: Build, config: Any, given: Given) -> list[Check]:
    """Return the checks of a policy head."""
    subject = Subject(partial(build, config, width=given.width, action=given.action), partial(_run, given=given))
    own = (
        actions_have_their_shape,
        loss_is_scalar_terms,
        masked_actions_do_not_count,
        samples_are_independent,
        later_frames_are_not_seen,
        window_is_frame_by_frame,
    )
    return [*(Check(check.__name__, partial(check, subject, given)) for check in own), *checks_of_every_part(subject)]


def actions_have_their_shape(subject: Subject, given: Given) -> None:
    """(B T Q D) -> (B T H A) for every frame of the window."""
    action = given.action
    actions = subject.build()(readout(given))
    expect_shape(actions, (BATCH, action.window, action.horizon, action.dim), "actions")
    expect(actions.is_floating_point(), "actions", "floating-point numbers", str(actions.dtype))


def loss_is_scalar_terms(subject: Subject, given: Given) -> None:
    """`loss` returns named, finite, differentiable scalars."""
    terms = subject.build().loss(readout(given), batch(given))
    expect(bool(terms), "loss", "at least one named term", "none")
    for name, term in terms.items():
        expect_shape(term, (), f"loss['{name}']")
        expect(bool(term.isfinite()), f"loss['{name}']", "a finite number", str(term.detach()))
        expect(term.requires_grad, f"loss['{name}']", "a term with a gradient", "one without")


@torch.no_grad()
def masked_actions_do_not_count(subject: Subject, given: Given) -> None:
    """Masked actions, past an end or of a dimension that is not there, do not count; where all are, it is finite."""
    head: PolicyHead = subject.build()
    known = batch(given)
    assert known.actions is not None
    assert known.action_mask is not None
    other = replace(known, actions=torch.where(known.action_mask, known.actions, 1 - known.actions))
    nothing = replace(known, action_mask=torch.zeros_like(known.action_mask))
    expected, received = _losses(head, given, known), _losses(head, given, other)
    expect_close(received, expected, "loss after a change of masked actions")
    finite = bool(_losses(head, given, nothing).isfinite().all())
    expect(finite, "loss where all actions are masked", "a finite number", "infinity or NaN")


@torch.no_grad()
def samples_are_independent(subject: Subject, given: Given) -> None:
    """A sample alone gives what it gives in a batch."""
    head: PolicyHead = subject.build()
    together = head(readout(given))
    for i in range(BATCH):
        alone = head(readout(given)[i : i + 1])
        expect_close(alone, together[i : i + 1], f"actions of sample {i} alone, against the batch")


@torch.no_grad()
def later_frames_are_not_seen(subject: Subject, given: Given) -> None:
    """A change of one frame's readout leaves the actions before it as they were."""
    head: PolicyHead = subject.build()
    before = head(readout(given))
    for t in range(1, given.action.window):
        changed = readout(given)
        changed[:, t:] += 1
        expect_close(head(changed)[:, :t], before[:, :t], f"actions before frame {t} after its change")


@torch.no_grad()
def window_is_frame_by_frame(subject: Subject, given: Given) -> None:
    """`step`, frame after frame from state None, gives what `forward` gives for the window."""
    head: PolicyHead = subject.build()
    window, state = head(readout(given)), None
    for t in range(given.action.window):
        actions, state = head.step(readout(given)[:, t], state)
        expect_close(actions, window[:, t], f"actions of step {t}, against forward over the window")
    fresh, _ = head.step(readout(given)[:, 0], None)
    expect_close(fresh, window[:, 0], "actions of the first step of a second episode")


def readout(given: Given) -> Tensor:
    """Random readout (B T Q D)."""
    return normal(BATCH, given.action.window, given.tokens, given.width, seed=8)


def batch(given: Given) -> Batch:
    """A batch of which a head reads the actions and their mask (B T H A)."""
    action = given.action
    lead = (BATCH, action.window)
    actions = normal(*lead, action.horizon, action.dim, seed=9).clamp(-1, 1)
    actions[..., list(action.binary)] = (actions[..., list(action.binary)] > 0).float()
    mask = torch.ones(*lead, action.horizon, action.dim, dtype=torch.bool)
    mask[0, -1, 1:] = False
    mask[-1, :, -1] = False
    mask[-1, ..., 0] = False  # a sample of a robot that has no such dimension
    return Batch(
        images={},
        instructions=[""] * BATCH,
        text_ids=torch.zeros(BATCH, 1, dtype=torch.int64),
        text_mask=None,
        proprio=None,
        actions=actions,
        action_mask=mask,
    )


def _losses(head: PolicyHead, given: Given, known: Batch) -> Tensor:
    return torch.stack(list(head.loss(readout(given), known).values()))


def _run(head: PolicyHead, dtype: torch.dtype, given: Given) -> Tensor:
    """Actions, and the loss terms: what both calls of a head give, in one tensor."""
    terms = head.loss(readout(given).to(dtype), batch(given)).values()
    actions: Tensor = head(readout(given).to(dtype))
    return torch.cat([actions.flatten().float(), *(term.flatten().float() for term in terms)])
