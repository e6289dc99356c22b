"""Contract tests of policy heads."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.batch import Batch
from core.contracts.context import Context, ContextSpec
from core.contracts.parts import PolicyHead
from core.registry.components import call_build
from core.registry.hookspecs import Build
from core.testing.common import (
    BATCH,
    Check,
    PartUnderTest,
    Setup,
    checks_of,
    expect,
    expect_close,
    expect_shape,
    generator,
    normal,
)
from core.testing.stand_in import (
    EVERYTHING,
    OBSERVATION_TOKENS,
    SPEC,
    VOCABULARY,
    Steady,
    context_of,
    newest_frame,
    padding,
    some_frames,
    windows,
)


def checks(build: Build, config: Any, setup: Setup) -> list[Check]:
    """Return the checks of a policy head."""
    spec = ContextSpec(
        width=setup.width,
        action_tokens=setup.tokens,
        vision_width=setup.vision_width,
        proprio_dim=setup.proprio_dim,
        layers=SPEC,
        vocabulary=VOCABULARY,
        embodiments=setup.embodiments,
        features=setup.features,
    )
    arguments = {"context": spec, "action": setup.action}
    part = PartUnderTest(
        partial(call_build, build, config, arguments), partial(actions_and_loss, setup=setup)
    )
    tests = (
        needs_are_known,
        actions_have_their_shape,
        loss_is_scalar_terms,
        masked_actions_do_not_count,
        samples_are_independent,
        padding_is_not_seen,
        later_frames_are_not_seen,
        window_is_frame_by_frame,
        state_is_rows,
        windows_with_carried_state_are_one_window,
        acting_continues_from_carried_state,
        carried_state_is_reset_by_row,
        loss_reads_the_carried_state,
        validation_error_is_a_figure_per_sample,
    )
    return checks_of(part, tests, setup)


def actions_and_loss(head: PolicyHead, dtype: torch.dtype, setup: Setup) -> Tensor:
    """Return the actions and all loss terms in one tensor, for test inputs of type `dtype`."""
    context = context_of(setup, windows(setup), needs=head.needs, dtype=dtype)
    terms = head.loss(context, batch(setup), generator()).values()
    actions: Tensor = head(context, generator())
    return torch.cat([actions.flatten().float(), *(term.flatten().float() for term in terms)])


def context_for(head: PolicyHead, setup: Setup) -> Context:
    """Return the context of the test windows, with only the fields that the head needs."""
    return context_of(setup, windows(setup), needs=head.needs)


def needs_are_known(head: PolicyHead, setup: Setup) -> None:  # noqa: ARG001 (called as the others)
    """`needs` names only what a context can give.

    In the other tests, the context has vision, memory and words only if the head needs them.
    """
    unknown = sorted(set(head.needs) - EVERYTHING)
    expect(not unknown, "needs", f"names among {sorted(EVERYTHING)}", f"{unknown}")


def actions_have_their_shape(head: PolicyHead, setup: Setup) -> None:
    """`forward` returns actions (B T H A) for every frame of the window."""
    action = setup.action
    actions = head(context_for(head, setup), generator())
    expect_shape(actions, (BATCH, action.window, action.horizon, action.dim), "actions")
    expect(actions.is_floating_point(), "actions", "floating-point numbers", str(actions.dtype))


def loss_is_scalar_terms(head: PolicyHead, setup: Setup) -> None:
    """`loss` returns named, finite, differentiable scalars."""
    terms = head.loss(context_for(head, setup), batch(setup), generator())
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
def masked_actions_do_not_count(head: PolicyHead, setup: Setup) -> None:
    """Masked actions do not change the loss; the loss is finite even if all actions are masked."""
    if not head.needs_actions:
        return
    targets = batch(setup)
    assert targets.actions is not None
    assert targets.action_mask is not None
    changed_actions = torch.where(targets.action_mask, targets.actions, 1 - targets.actions)

    def losses(targets: Batch) -> Tensor:
        terms = head.loss(context_for(head, setup), targets, generator())
        return torch.stack(list(terms.values()))

    expected, received = losses(targets), losses(replace(targets, actions=changed_actions))
    expect_close(received, expected, "loss after a change of masked actions")
    finite = bool(losses(mask_all(targets)).isfinite().all())
    expect(finite, "loss where all actions are masked", "a finite number", "infinity or NaN")


@torch.no_grad()
def samples_are_independent(head: PolicyHead, setup: Setup) -> None:
    """A sample gives the same actions alone as in a batch, if the noise is the same."""
    together = head(context_for(head, setup), generator())
    for i in range(BATCH):
        own_context = context_of(setup, windows(setup)[i : i + 1], needs=head.needs, rows=[i])
        alone = head(own_context, generator([i]))
        expect_close(alone, together[i : i + 1], f"actions of sample {i} alone, against the batch")


@torch.no_grad()
def padding_is_not_seen(head: PolicyHead, setup: Setup) -> None:
    """The contents of the padding tokens do not change the actions."""
    before = head(context_for(head, setup), generator())
    tokens = windows(setup)
    observation = tokens[:, :, :OBSERVATION_TOKENS]
    noise = 7 * normal(*observation.shape, seed=19)
    tokens[:, :, :OBSERVATION_TOKENS] = torch.where(padding()[:, None, :, None], noise, observation)
    context = context_of(setup, tokens, needs=head.needs)
    # In these tests, `context.vision` has no padding, so it must stay as it was.
    vision = context_for(head, setup).vision
    expect_close(
        head(replace(context, vision=vision), generator()),
        before,
        "actions after a change of the padding",
    )


@torch.no_grad()
def later_frames_are_not_seen(head: PolicyHead, setup: Setup) -> None:
    """Changing a frame and all later frames does not change the actions of earlier frames."""
    before = head(context_for(head, setup), generator())
    for t in range(1, setup.action.window):
        tokens = windows(setup)
        tokens[:, t:] += normal(*tokens[:, t:].shape, seed=15)
        after = head(context_of(setup, tokens, needs=head.needs), generator())
        expect_close(after[:, :t], before[:, :t], f"actions before frame {t} after its change")


@torch.no_grad()
def window_is_frame_by_frame(head: PolicyHead, setup: Setup) -> None:
    """`act`, called frame by frame, returns the same actions as `forward` for the whole window.

    This is checked for both layouts: a window is one sequence, or each frame is a separate
    sequence. Every frame of a row gets the same noise; for this, the head must draw all random
    numbers in the shape (B T ...).
    """
    for interleaved in (True, False):
        context = context_of(setup, windows(setup), needs=head.needs, interleaved=interleaved)
        window = head(context, Steady(range(BATCH)))
        state = head.initial_state(BATCH)
        for t in range(setup.action.window):
            frame = newest_frame(context, t, interleaved)
            actions, state = head.act(frame, state, Steady(range(BATCH)))
            expect_shape(
                actions, (BATCH, setup.action.horizon, setup.action.dim), "actions of a step"
            )
            expect_close(
                actions, window[:, t], f"actions of step {t}, against forward over the window"
            )


@torch.no_grad()
def state_is_rows(head: PolicyHead, setup: Setup) -> None:
    """The state of a head consists of tensors (B ...).

    So one row of the batch can start a new episode while the other rows continue.
    """
    context = context_for(head, setup)
    state = head.initial_state(BATCH)
    for name, value in state.items():
        expect(
            isinstance(value, Tensor) and len(value) == BATCH,
            f"initial_state({BATCH})['{name}']",
            f"a tensor of {BATCH} rows",
            repr(value)[:80],
        )
    fresh, _ = head.act(newest_frame(context, 0, True), state, Steady(range(BATCH)))
    for t in range(setup.action.window):
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
def windows_with_carried_state_are_one_window(head: PolicyHead, setup: Setup) -> None:
    """For a head that carries: two windows, the second with carried state, equal one long window.

    Every frame of a row gets the same noise, as in `window_is_frame_by_frame`.
    """
    for interleaved, t in _splits(head, setup):
        context = context_of(setup, windows(setup), needs=head.needs, interleaved=interleaved)
        together = head(context, Steady(range(BATCH)))
        first, second = _two_windows(head, context, t, interleaved)
        parts = [head(part, Steady(range(BATCH))) for part in (first, second)]
        where = f"actions of {t} frames and then the others with carried state, against one window"
        expect_close(torch.cat(parts, dim=1), together, where)
        initial = replace(first, state=head.initial_state(BATCH))
        expect_close(
            head(initial, Steady(range(BATCH))),
            parts[0],
            "actions with the initial state, against those without a state",
        )
        for name, whole in head.next_state(context).items():
            where = f"next_state['{name}'] after two windows, against one window"
            expect_close(head.next_state(second)[name], whole, where)


@torch.no_grad()
def acting_continues_from_carried_state(head: PolicyHead, setup: Setup) -> None:
    """For a head that carries: `act` goes on from the state after a window as `forward` does."""
    for interleaved, t in _splits(head, setup):
        context = context_of(setup, windows(setup), needs=head.needs, interleaved=interleaved)
        together = head(context, Steady(range(BATCH)))
        state = _two_windows(head, context, t, interleaved)[1].state
        assert state is not None
        for i in range(t, setup.action.window):
            frame = newest_frame(context, i, interleaved)
            actions, state = head.act(frame, state, Steady(range(BATCH)))
            expect_close(
                actions, together[:, i], f"actions of step {i}, from the state after {t} frames"
            )


@torch.no_grad()
def carried_state_is_reset_by_row(head: PolicyHead, setup: Setup) -> None:
    """For a head that carries: a row with the initial state begins anew, and the others go on."""
    for interleaved, t in _splits(head, setup):
        context = context_of(setup, windows(setup), needs=head.needs, interleaved=interleaved)
        _, second = _two_windows(head, context, t, interleaved)
        initial = head.initial_state(BATCH)
        assert second.state is not None
        expect(
            set(second.state) == set(initial),
            "next_state",
            f"the keys {sorted(initial)}",
            f"{sorted(second.state)}",
        )
        mixed = {n: torch.cat([initial[n][:1], x[1:]]) for n, x in second.state.items()}
        fresh, going_on, received = (
            head(replace(second, state=state), Steady(range(BATCH)))
            for state in (None, second.state, mixed)
        )
        expect_close(received[:1], fresh[:1], "actions of a row that begins anew")
        expect_close(received[1:], going_on[1:], "actions of the other rows, which go on")


@torch.no_grad()
def loss_reads_the_carried_state(head: PolicyHead, setup: Setup) -> None:
    """For a head that carries: the loss of a window depends on the state before the window."""
    if not head.carries:
        return
    context, targets = context_for(head, setup), batch(setup)
    losses = []
    for state in (None, head.next_state(context)):
        terms = head.loss(replace(context, state=state), targets, generator())
        losses.append(torch.stack(list(terms.values())))
    expect(
        not torch.equal(losses[0], losses[1]),
        "loss with a carried state",
        "another than without one",
        "the same",
    )


def _splits(head: PolicyHead, setup: Setup) -> list[tuple[bool, int]]:
    """Return the ways to split the test window in two, for both layouts; none if nothing carries.

    Each is (whether the window is one sequence, number of frames of the first part).
    """
    if not head.carries:
        return []
    return [(layout, t) for layout in (True, False) for t in range(1, setup.action.window)]


def _two_windows(
    head: PolicyHead, context: Context, t: int, interleaved: bool
) -> tuple[Context, Context]:
    """Split a window: its first t frames, and the others with the state after these."""
    first = some_frames(context, slice(None, t), interleaved)
    second = some_frames(context, slice(t, None), interleaved)
    return first, replace(second, state=head.next_state(first))


@torch.no_grad()
def validation_error_is_a_figure_per_sample(head: PolicyHead, setup: Setup) -> None:
    """If a head defines `validation_error`, it returns one finite error for each sample.

    The errors have the shape (B), and the error of a sample does not depend on other samples.
    """
    targets = batch(setup)
    assert targets.actions is not None
    assert targets.action_mask is not None
    context = context_for(head, setup)
    errors = head.validation_error(context, targets, generator())
    if errors is None:
        return
    expect_shape(errors, (BATCH,), "validation_error")
    masked = head.validation_error(context, mask_all(targets), generator())
    assert masked is not None
    expect(
        bool(masked.isfinite().all()),
        "validation_error where all is masked",
        "finite numbers",
        "others",
    )
    for i in range(BATCH):
        row = slice(i, i + 1)
        alone = context_of(setup, windows(setup)[row], needs=head.needs, rows=[i])
        own_targets = replace(
            targets, actions=targets.actions[row], action_mask=targets.action_mask[row]
        )
        error = head.validation_error(alone, own_targets, generator([i]))
        assert error is not None
        expect_close(error, errors[row], f"validation_error of sample {i} alone, against the batch")


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
