"""Contract tests of the state that a policy head carries from window to window."""

from dataclasses import replace

import torch

from core.contracts.context import Context
from core.contracts.parts import PolicyHead
from core.testing.common import BATCH, Setup, expect, expect_close, generator
from core.testing.stand_in import (
    Steady,
    batch,
    both_formulations,
    context_for,
    newest_frame,
    some_frames,
)


@torch.no_grad()
def windows_with_carried_state_are_one_window(head: PolicyHead, setup: Setup) -> None:
    """For a head that carries: two windows, the second with carried state, equal one long window.

    Every frame of a row gets the same noise, as in `window_is_frame_by_frame`.
    """
    for given, t in _splits(head, setup):
        context = context_for(head, given)
        together = head(context, Steady(range(BATCH)))
        first, second = _two_windows(head, context, t)
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
    for given, t in _splits(head, setup):
        context = context_for(head, given)
        together = head(context, Steady(range(BATCH)))
        state = _two_windows(head, context, t)[1].state
        assert state is not None
        for i in range(t, setup.action.window):
            frame = newest_frame(context, i)
            actions, state = head.act(frame, state, Steady(range(BATCH)))
            expect_close(
                actions, together[:, i], f"actions of step {i}, from the state after {t} frames"
            )


@torch.no_grad()
def carried_state_is_reset_by_row(head: PolicyHead, setup: Setup) -> None:
    """For a head that carries: a row with the initial state begins anew, and the others go on."""
    for given, t in _splits(head, setup):
        context = context_for(head, given)
        _, second = _two_windows(head, context, t)
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


def _splits(head: PolicyHead, setup: Setup) -> list[tuple[Setup, int]]:
    """Return the ways to split the test window in two; none if nothing carries.

    Each is (the setup in one of both formulations, number of frames of the first part).
    """
    if not head.carries:
        return []
    lengths = range(1, setup.action.window)
    return [(given, t) for given in both_formulations(setup) for t in lengths]


def _two_windows(head: PolicyHead, context: Context, t: int) -> tuple[Context, Context]:
    """Split a window: its first t frames, and the others with the state after these."""
    first = some_frames(context, slice(None, t))
    second = some_frames(context, slice(t, None))
    return first, replace(second, state=head.next_state(first))
