"""Contract tests of policy heads."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.batch import Batch
from core.contracts.context import ContextSpec
from core.contracts.parts import PolicyHead
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
from core.testing.stand_in import (
    EVERYTHING,
    OBSERVED,
    SPEC,
    WORDS,
    Steady,
    context_of,
    newest_frame,
    padding,
    windows,
)


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
        needs_are_known,
        actions_have_their_shape,
        loss_is_scalar_terms,
        masked_actions_do_not_count,
        samples_are_independent,
        padding_is_not_seen,
        later_frames_are_not_seen,
        window_is_frame_by_frame,
        state_is_rows,
        validation_error_is_a_figure_per_sample,
    )
    return [
        *(Check(check.__name__, partial(check, subject, given)) for check in own),
        *checks_of_every_part(subject),
    ]


def needs_are_known(subject: Subject, given: Given) -> None:  # noqa: ARG001 (all checks are called alike)
    """`needs` names what a context has; the other checks show the head that alone."""
    head: PolicyHead = subject.build()
    unknown = sorted(set(head.needs) - EVERYTHING)
    expect(not unknown, "needs", f"names among {sorted(EVERYTHING)}", f"{unknown}")


def actions_have_their_shape(subject: Subject, given: Given) -> None:
    """Actions (B T H A) for every frame of the window."""
    action = given.action
    head: PolicyHead = subject.build()
    actions = head(context_of(given, windows(given), needs=head.needs), generator())
    expect_shape(actions, (BATCH, action.window, action.horizon, action.dim), "actions")
    expect(actions.is_floating_point(), "actions", "floating-point numbers", str(actions.dtype))


def loss_is_scalar_terms(subject: Subject, given: Given) -> None:
    """`loss` returns named, finite, differentiable scalars."""
    head: PolicyHead = subject.build()
    terms = head.loss(
        context_of(given, windows(given), needs=head.needs), batch(given), generator()
    )
    expect(
        isinstance(terms, dict) and bool(terms),
        "loss",
        "a dict of at least one named term",
        repr(terms),
    )
    for name, term in terms.items():
        expect_shape(term, (), f"loss['{name}']")
        expect(bool(term.isfinite()), f"loss['{name}']", "a finite number", str(term.detach()))
        expect(term.requires_grad, f"loss['{name}']", "a term with a gradient", "one without")


@torch.no_grad()
def masked_actions_do_not_count(subject: Subject, given: Given) -> None:
    """Masked actions, past an end or of a dimension that is not there, do not count; where all are,
    it is finite.
    """
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
    together = head(context_of(given, windows(given), needs=head.needs), generator())
    for i in range(BATCH):
        alone = head(
            context_of(given, windows(given)[i : i + 1], needs=head.needs, rows=[i]), generator([i])
        )
        expect_close(alone, together[i : i + 1], f"actions of sample {i} alone, against the batch")


@torch.no_grad()
def padding_is_not_seen(subject: Subject, given: Given) -> None:
    """What the padding among the tokens holds changes nothing."""
    head: PolicyHead = subject.build()
    before = head(context_of(given, windows(given), needs=head.needs), generator())
    changed = windows(given)
    observed = changed[:, :, :OBSERVED]
    lacking = padding()[:, None, :, None]
    changed[:, :, :OBSERVED] = torch.where(lacking, 7 * normal(*observed.shape, seed=19), observed)
    context = context_of(given, changed, needs=head.needs)
    vision = context_of(
        given, windows(given), needs=head.needs
    ).vision  # of which these tokens are no padding
    expect_close(
        head(replace(context, vision=vision), generator()),
        before,
        "actions after a change of the padding",
    )


@torch.no_grad()
def later_frames_are_not_seen(subject: Subject, given: Given) -> None:
    """A change of what one frame shows leaves the actions before it as they were."""
    head: PolicyHead = subject.build()
    before = head(context_of(given, windows(given), needs=head.needs), generator())
    for t in range(1, given.action.window):
        changed = windows(given)
        changed[:, t:] += normal(*changed[:, t:].shape, seed=15)
        after = head(context_of(given, changed, needs=head.needs), generator())
        expect_close(after[:, :t], before[:, :t], f"actions before frame {t} after its change")


@torch.no_grad()
def window_is_frame_by_frame(subject: Subject, given: Given) -> None:
    """`act`, frame after frame, gives what `forward` gives for the window, given the same noise for
    every frame.

    So for windows that are one sequence, and for frames that are one each. Noise has rows, then
    frames: (B T ...).
    """
    head: PolicyHead = subject.build()
    for interleaved in (True, False):
        context = context_of(given, windows(given), needs=head.needs, interleaved=interleaved)
        window, state = head(context, Steady(range(BATCH))), head.initial_state(BATCH)
        for t in range(given.action.window):
            actions, state = head.act(
                newest_frame(context, t, interleaved), state, Steady(range(BATCH))
            )
            expect_shape(
                actions, (BATCH, given.action.horizon, given.action.dim), "actions of a step"
            )
            expect_close(
                actions, window[:, t], f"actions of step {t}, against forward over the window"
            )


@torch.no_grad()
def state_is_rows(subject: Subject, given: Given) -> None:
    """The state is tensors (B ...): a row that begins anew beside others acts as an episode does
    from its start.
    """
    head: PolicyHead = subject.build()
    context = context_of(given, windows(given), needs=head.needs)
    state = head.initial_state(BATCH)
    for name, value in state.items():
        sound = isinstance(value, Tensor) and len(value) == BATCH
        expect(
            sound,
            f"initial_state({BATCH})['{name}']",
            f"a tensor of {BATCH} rows",
            repr(value)[:80],
        )
    fresh, _ = head.act(newest_frame(context, 0, True), state, Steady(range(BATCH)))
    for t in range(given.action.window):
        _, state = head.act(newest_frame(context, t, True), state, Steady(range(BATCH)))
    initial = head.initial_state(BATCH)
    expect(
        set(state) == set(initial),
        "the state after `act`",
        f"the keys {sorted(initial)}",
        f"{sorted(state)}",
    )
    state = {name: torch.cat([initial[name][:1], value[1:]]) for name, value in state.items()}
    again, _ = head.act(newest_frame(context, 0, True), state, Steady(range(BATCH)))
    expect_close(again[:1], fresh[:1], "actions of a row that begins anew while the others go on")


@torch.no_grad()
def validation_error_is_a_figure_per_sample(subject: Subject, given: Given) -> None:
    """A head's own figure, if it has one: (B), finite even where all is masked, each sample's a
    matter of its own.
    """
    head: PolicyHead = subject.build()
    known = batch(given)
    assert known.actions is not None
    assert known.action_mask is not None
    nothing = replace(known, action_mask=torch.zeros_like(known.action_mask))
    context = context_of(given, windows(given), needs=head.needs)
    figures = head.validation_error(context, known, generator())
    if figures is None:
        return
    expect_shape(figures, (BATCH,), "validation_error")
    masked = head.validation_error(context, nothing, generator())
    assert masked is not None
    expect(
        bool(masked.isfinite().all()),
        "validation_error where all is masked",
        "finite numbers",
        "others",
    )
    for i in range(BATCH):
        alone = context_of(given, windows(given)[i : i + 1], needs=head.needs, rows=[i])
        own = replace(
            known, actions=known.actions[i : i + 1], action_mask=known.action_mask[i : i + 1]
        )
        figure = head.validation_error(alone, own, generator([i]))
        assert figure is not None
        expect_close(
            figure, figures[i : i + 1], f"validation_error of sample {i} alone, against the batch"
        )


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
    return torch.stack(
        list(
            head.loss(
                context_of(given, windows(given), needs=head.needs), known, generator()
            ).values()
        )
    )


def _run(head: PolicyHead, dtype: torch.dtype, given: Given) -> Tensor:
    """Actions, and the loss terms: what both calls of a head give, in one tensor."""
    context = context_of(given, windows(given), needs=head.needs, dtype=dtype)
    terms = head.loss(context, batch(given), generator()).values()
    actions: Tensor = head(context, generator())
    return torch.cat([actions.flatten().float(), *(term.flatten().float() for term in terms)])
