"""Contract tests of policy heads."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.batch import Batch
from core.contracts.context import Context
from core.contracts.parts import PolicyHead
from core.registry.hookspecs import Build
from core.testing.carried_state import (
    acting_continues_from_carried_state,
    carried_state_is_reset_by_row,
    loss_reads_the_carried_state,
    windows_with_carried_state_are_one_window,
)
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
from core.testing.stand_in import (
    EVERYTHING,
    OBSERVATION_TOKENS,
    Steady,
    batch,
    both_formulations,
    context_for,
    context_of,
    context_spec,
    mask_all,
    newest_frame,
    padding,
    windows,
)


def checks(build: Build, config: Any, setup: Setup) -> list[Check]:
    """Return the checks of a policy head."""
    arguments = {"context": context_spec(setup), "action": setup.action}
    part = PartUnderTest(
        PolicyHead,
        build,
        config,
        arguments,
        run=partial(actions_and_loss, setup=setup),
        loss=partial(total_loss, setup=setup),
    )
    tests = (
        needs_are_known,
        loss_is_scalar_terms,
        loss_terms_keep_their_names,
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
    """Return the actions and all loss terms in one tensor, for test inputs of type `dtype`.

    Raises AssertionError unless `forward` returns actions (B T H A) for every frame of the window.
    """
    action = setup.action
    context = context_of(setup, windows(setup), needs=head.needs, dtype=dtype)
    actions: Tensor = head(context, generator())
    expect_shape(actions, (BATCH, action.window, action.horizon, action.dim), "actions")
    expect(actions.is_floating_point(), "actions", "floating-point numbers", str(actions.dtype))
    terms = loss_terms(head, context, batch(setup))
    return torch.cat([x.flatten().float() for x in (actions, *terms.values())])


def total_loss(head: PolicyHead, setup: Setup) -> Tensor:
    """Return the sum of the loss terms for the test inputs."""
    terms = loss_terms(head, context_for(head, setup), batch(setup))
    return torch.stack(list(terms.values())).sum()


def loss_terms(
    head: PolicyHead, context: Context, targets: Batch, rows: Sequence[int] = range(BATCH)
) -> dict[str, Tensor]:
    """Return the terms of the loss; raise AssertionError unless they are a dict of tensors.

    rows: rows of the test batch, from which the noise follows.
    """
    terms = head.loss(context, targets, generator(rows))
    valid = isinstance(terms, dict) and bool(terms)
    expect(
        valid and all(isinstance(term, Tensor) for term in terms.values()),
        "loss",
        "a dict of at least one named scalar tensor",
        repr(terms)[:80],
    )
    return terms


def needs_are_known(head: PolicyHead, setup: Setup) -> None:  # noqa: ARG001 (called as the others)
    """`needs` names only what a context can give.

    In the other tests, the context has vision, memory and words only if the head needs them.
    """
    unknown = sorted(set(head.needs) - EVERYTHING)
    expect(not unknown, "needs", f"names among {sorted(EVERYTHING)}", f"{unknown}")


def loss_is_scalar_terms(head: PolicyHead, setup: Setup) -> None:
    """`loss` returns named, finite, differentiable scalars."""
    for name, term in loss_terms(head, context_for(head, setup), batch(setup)).items():
        expect_shape(term, (), f"loss['{name}']")
        expect(bool(term.isfinite()), f"loss['{name}']", "a finite number", str(term.detach()))
        expect(term.requires_grad, f"loss['{name}']", "a term with a gradient", "one without")


def loss_terms_keep_their_names(head: PolicyHead, setup: Setup) -> None:
    """Every batch gives the same terms, in training and in evaluation, whatever it holds.

    Core adds "total" to them, and puts the names of parts in front of others with a slash.
    """
    context, targets = context_for(head, setup), batch(setup)
    names = set(loss_terms(head, context, targets))
    reserved = [name for name in names if name == "total" or "/" in name]
    expect(not reserved, "names of terms", 'others than "total", without a slash', f"{reserved}")
    others = {
        "if all actions are masked": loss_terms(head, context, mask_all(targets)),
        "with other noise": loss_terms(head, context, targets, range(BATCH, 2 * BATCH)),
        "in training mode": loss_terms(head.train(), context, targets),
    }
    for when, terms in others.items():
        expect(set(terms) == names, f"loss terms {when}", f"{sorted(names)}", f"{sorted(terms)}")


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
    for given in both_formulations(setup):
        context = context_for(head, given)
        window = head(context, Steady(range(BATCH)))
        state = head.initial_state(BATCH)
        for t in range(setup.action.window):
            frame = newest_frame(context, t)
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
    fresh, _ = head.act(newest_frame(context, 0), state, Steady(range(BATCH)))
    for t in range(setup.action.window):
        _, state = head.act(newest_frame(context, t), state, Steady(range(BATCH)))
    initial = head.initial_state(BATCH)
    expect(
        set(state) == set(initial),
        "the state after `act`",
        f"the keys {sorted(initial)}",
        f"{sorted(state)}",
    )
    state = {name: torch.cat([initial[name][:1], value[1:]]) for name, value in state.items()}
    again, _ = head.act(newest_frame(context, 0), state, Steady(range(BATCH)))
    expect_close(again[:1], fresh[:1], "actions of a row that begins anew while the others go on")


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
