"""A head trained alone, on a context that does not learn; and whether it overfits one batch.

`assert_overfits_one_batch(LSTMHead, LSTMConfig())` belongs in the tests of every head.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from core import Batch, Context, Generator, PolicyHead, masked_mse
from core.registry.components import call_build
from core.registry.hookspecs import Build
from core.testing import Setup
from core.testing.stand_in import batch, context_of, context_spec, windows

# what may remain of the error before training
REMAINDER = 0.05


def assert_overfits_one_batch(
    build: Build,
    config: Any,
    setup: Setup | None = None,
    *,
    steps: int = 200,
    learning_rate: float = 1e-2,
) -> None:
    """Train a head on one batch; its squared error must fall below 5 % of what it was at first.

    The error is that of the actions that the head returns, whatever its loss is. A head that
    samples must have learned that there is one chunk for each observation.
    """
    setup = setup or Setup()
    head = build_head(build, config, setup)
    targets, context = batch(setup), context_without_gradient(head, setup, windows(setup))
    before = error(head, context, targets)
    train(head, context, [targets] * steps, learning_rate)
    after = error(head, context, targets)
    assert after < REMAINDER * before, (
        f"squared error {before:.4f} before {steps} steps on one batch, and {after:.4f} after "
        f"them: {after / before:.1%}, and at most {REMAINDER:.0%} may remain"
    )


def build_head(build: Build, config: Any, setup: Setup) -> PolicyHead:
    """Build a head, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head: PolicyHead = call_build(
            build, config, {"context": context_spec(setup), "action": setup.action}
        )
    return head


@torch.no_grad()
def context_without_gradient(
    head: PolicyHead, setup: Setup, tokens: Tensor, rows: Iterable[int] = range(3)
) -> Context:
    """Return the context of windows (B T n D), as `context_of` does, for training a head alone."""
    return context_of(setup, tokens, needs=head.needs, rows=list(rows))


def train(
    head: PolicyHead, context: Context, batches: Iterable[Batch], learning_rate: float
) -> None:
    """Take one step of Adam for each batch; the learning rate falls linearly to almost nothing."""
    batches = list(batches)
    optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.02, total_iters=len(batches))
    head.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        for step, targets in enumerate(batches):
            terms = head.loss(context, targets, Generator.shared((1, step), torch.device("cpu")))
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            schedule.step()
    head.eval()


@torch.no_grad()
def error(head: PolicyHead, context: Context, targets: Batch) -> float:
    """Return the mean squared error of a head's actions where they are not masked."""
    assert targets.actions is not None
    assert targets.action_mask is not None
    keys = [(row, 0) for row in range(len(targets.actions))]
    actions = head.eval()(context, Generator.by_row(keys, torch.device("cpu")))
    return masked_mse(actions, targets.actions, targets.action_mask).item()
