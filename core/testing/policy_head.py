"""Contract tests of policy heads."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.context import ContextSpec
from core.contracts import Batch, PolicyHead
from core.hookspecs import Build
from core.registry import call_build
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
from core.testing.stand_in import SPEC, WORDS, Steady, context_of, newest_frame, windows


def checks(build: Build, config: Any, given: Given) -> list[Check]:
    """Return the checks of a policy head."""
    spec = ContextSpec(
        width=given.width,
        action_tokens=given.tokens,
        vision_width=given.vision_width,
        proprio_dim=given.proprio_dim,
        layers=SPEC,
        vocabulary=WORDS,
        embodiments=given.embodiments,
        features=given.features,
    )
    offered = {"context": spec, "action": given.action}
    subject = Subject(partial(call_build, build, config, offered), partial(_run, given=given))
    own = (
        actions_have_their_shape,
        loss_is_scalar_terms,
        masked_actions_do_not_count,
        samples_are_independent,
        later_frames_are_not_seen,
        window_is_frame_by_frame,
        state_is_rows,
    )
    return [*(Check(check.__name__, partial(check, subject, given)) for check in own), *checks_of_every_part(subject)]


def actions_have_their_shape(subject: Subject, given: Given) -> None:
    """Actions (B T H A) for every frame of the window."""
    action = given.action
    actions = subject.build()(context_of(given, windows(given)), generator())
    expect_shape(actions, (BATCH, action.window, action.horizon, action.dim), "actions")
    expect(actions.is_floating_point(), "actions", "floating-point numbers", str(actions.dtype))


def loss_is_scalar_terms(subject: Subject, given: Given) -> None:
    """`loss` returns named, finite, differentiable scalars."""
    terms = subject.build().loss(context_of(given, windows(given)), batch(given), generator())
    expect(isinstance(terms, dict) and bool(terms), "loss", "a dict of at least one named term", repr(terms))
    for name, term in terms.items():
        expect_shape(term, (), f"loss['{name}']")
        expect(bool(term.isfinite()), f"loss['{name}']", "a finite number", str(term.detach()))
        expect(term.requires_grad, f"loss['{name}']", "a term with a gradient", "one without")


@torch.no_grad()
def masked_actions_do_not_count(subject: Subject, given: Given) -> None:
    """Masked actions, past an end or of a dimension that is not there, do not count; where all are, it is finite."""
    head: PolicyHead = subject.build()
    if not head.needs_actions:
        return
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
    """A sample alone gives what it gives in a batch, its noise with it."""
    head: PolicyHead = subject.build()
    together = head(context_of(given, windows(given)), generator())
    for i in range(BATCH):
        alone = head(context_of(given, windows(given)[i : i + 1], rows=[i]), generator([i]))
        expect_close(alone, together[i : i + 1], f"actions of sample {i} alone, against the batch")


@torch.no_grad()
def later_frames_are_not_seen(subject: Subject, given: Given) -> None:
    """A change of what one frame shows leaves the actions before it as they were."""
    head: PolicyHead = subject.build()
    before = head(context_of(given, windows(given)), generator())
    for t in range(1, given.action.window):
        changed = windows(given)
        changed[:, t:] += normal(*changed[:, t:].shape, seed=15)
        after = head(context_of(given, changed), generator())
        expect_close(after[:, :t], before[:, :t], f"actions before frame {t} after its change")


@torch.no_grad()
def window_is_frame_by_frame(subject: Subject, given: Given) -> None:
    """`act`, frame after frame, gives what `forward` gives for the window, given the same noise for every frame.

    So for windows that are one sequence, and for frames that are one each. Noise has rows, then frames: (B T ...).
    """
    head: PolicyHead = subject.build()
    for interleaved in (True, False):
        context = context_of(given, windows(given), interleaved=interleaved)
        window, state = head(context, Steady(range(BATCH))), head.initial_state(BATCH)
        for t in range(given.action.window):
            actions, state = head.act(newest_frame(context, t, interleaved), state, Steady(range(BATCH)))
            expect_shape(actions, (BATCH, given.action.horizon, given.action.dim), "actions of a step")
            expect_close(actions, window[:, t], f"actions of step {t}, against forward over the window")


@torch.no_grad()
def state_is_rows(subject: Subject, given: Given) -> None:
    """The state is tensors (B ...): a row that begins anew beside others acts as an episode does from its start."""
    head: PolicyHead = subject.build()
    context = context_of(given, windows(given))
    state = head.initial_state(BATCH)
    for name, value in state.items():
        sound = isinstance(value, Tensor) and len(value) == BATCH
        expect(sound, f"initial_state({BATCH})['{name}']", f"a tensor of {BATCH} rows", repr(value)[:80])
    fresh, _ = head.act(newest_frame(context, 0, True), state, Steady(range(BATCH)))
    for t in range(given.action.window):
        _, state = head.act(newest_frame(context, t, True), state, Steady(range(BATCH)))
    initial = head.initial_state(BATCH)
    state = {name: torch.cat([initial[name][:1], value[1:]]) for name, value in state.items()}
    again, _ = head.act(newest_frame(context, 0, True), state, Steady(range(BATCH)))
    expect_close(again[:1], fresh[:1], "actions of a row that begins anew while the others go on")


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
    return torch.stack(list(head.loss(context_of(given, windows(given)), known, generator()).values()))


def _run(head: PolicyHead, dtype: torch.dtype, given: Given) -> Tensor:
    """Actions, and the loss terms: what both calls of a head give, in one tensor."""
    context = context_of(given, windows(given), dtype=dtype)
    terms = head.loss(context, batch(given), generator()).values()
    actions: Tensor = head(context, generator())
    return torch.cat([actions.flatten().float(), *(term.flatten().float() for term in terms)])
