"""Chunks of a known distribution with two modes, and whether those that a head samples follow it.

Whatever the observation shows, the demonstrator goes one of two ways: 30 % of the chunks lie around
-0.5 in every continuous number of every step, with closed grippers, and 70 % around 0.5, with open
grippers. `assert_two_modes(GMMHead, config)` belongs in the tests of every head that samples: a
head that regresses the mean of all chunks stands between the modes, where no chunk lies, and one
that decides each number by itself tears chunks apart.
"""

import math
from typing import Any

import torch
from torch import Tensor

from core import ActionSpec, Batch, Generator, PolicyHead
from core.registry.hookspecs import Build
from core.testing import Setup
from core.testing.stand_in import windows
from tests.one_batch import build_head, context_without_gradient, train

CENTRE = 0.5
SHARE = 0.7  # of the upper mode
SPREAD = 0.08  # standard deviation of every continuous number within a mode
CONTINUOUS = Setup(action=ActionSpec(window=2, horizon=3, dim=2))
MIXED = Setup(action=ActionSpec(window=2, horizon=3, dim=3, binary=(1,)))
ROWS, SAMPLED_ROWS = 64, 512
# what sampled chunks may differ by; 512 rows of two frames are 1,024 chunks
SHARE_ERROR = 0.08
SPREADS = (0.6 * SPREAD, 1.6 * SPREAD)
FARTHEST = 3.5 * SPREAD  # from the mode's centre; one of 2,000 normal numbers lies farther away
STRAYS = 0.03


def assert_two_modes(
    build: Build,
    config: Any,
    steps: int = 300,
    *,
    setup: Setup = MIXED,
    learning_rate: float = 3e-3,
) -> None:
    """Train a head alone on chunks with two modes, and check 1,024 chunks that it samples.

    setup: `MIXED`, `CONTINUOUS`, or another one for a head that wants other sizes.

    Raises AssertionError with all that differs: the modes' shares, the spread within them, and how
    many chunks lie in between or are torn apart.
    """
    head = train_on_two_modes(build, config, steps, setup=setup, learning_rate=learning_rate)
    check_samples(head, setup)


def train_on_two_modes(
    build: Build, config: Any, steps: int, *, setup: Setup = MIXED, learning_rate: float
) -> PolicyHead:
    """Return a head that was trained alone on chunks with two modes."""
    head = build_head(build, config, setup)
    batches = [batch_of(chunks(setup.action, ROWS, seed=step)) for step in range(steps)]
    train(head, same_observation(head, setup, ROWS), batches, learning_rate)
    return head


@torch.no_grad()
def check_samples(head: PolicyHead, setup: Setup = MIXED) -> None:
    """Raise AssertionError unless 1,024 chunks that a head samples follow the distribution."""
    keys = [(row, 0) for row in range(SAMPLED_ROWS)]
    context = same_observation(head, setup, SAMPLED_ROWS)
    check_two_modes(head(context, Generator.by_row(keys, torch.device("cpu"))), setup.action)


def check_two_modes(actions: Tensor, action: ActionSpec) -> None:
    """Raise AssertionError unless chunks (B T H A) follow the distribution."""
    continuous = actions[..., list(action.continuous)].flatten(0, 1).flatten(1)  # (chunks numbers)
    binary = actions[..., list(action.binary)].flatten(0, 1).flatten(1)
    upper = continuous.mean(dim=1, keepdim=True) > 0  # (chunks 1), the mode of a chunk
    distance = continuous - torch.where(upper, CENTRE, -CENTRE)
    share, spread = upper.float().mean().item(), distance.square().mean().sqrt().item()
    between = (distance.abs() > FARTHEST).any(dim=1).float().mean().item()
    torn = ((binary > 0.5) != upper).any(dim=1).float().mean().item()
    mistakes = []
    if abs(share - SHARE) > SHARE_ERROR:
        mistakes.append(f"{share:.1%} lie in the upper mode, which has {SHARE:.0%}")
    if not SPREADS[0] < spread < SPREADS[1]:
        mistakes.append(f"the spread within modes is {spread:.3f} in place of {SPREAD}")
    if between > STRAYS:
        mistakes.append(f"{between:.1%} have numbers in between or in the other mode")
    if torn > STRAYS:
        mistakes.append(f"{torn:.1%} have a gripper of the other mode")
    assert not mistakes, f"of {len(continuous)} sampled chunks, {'; '.join(mistakes)}"


def chunks(action: ActionSpec, rows: int, seed: int) -> Tensor:
    """Return chunks of the distribution (rows T H A); every frame draws its own mode."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, action.window, action.horizon, action.dim)
    upper = torch.rand(*shape[:2], 1, 1, generator=generator) < SHARE
    noise = SPREAD * torch.randn(shape, generator=generator)
    is_binary = torch.tensor([i in action.binary for i in range(action.dim)])
    return torch.where(is_binary, upper.float(), torch.where(upper, CENTRE, -CENTRE) + noise)


def exact_actions(x: Tensor, signal: Tensor, noise: Tensor, action: ActionSpec) -> Tensor:
    """Return the mean (B T H A) of the chunks from which noisy chunks x can have come.

    It is what a perfect network knows: x = signal * chunk + noise * epsilon, with binary dimensions
    of the chunk as -1 and 1.
    """
    is_binary = torch.tensor([i in action.binary for i in range(action.dim)])
    centre = torch.where(is_binary, 1.0, CENTRE)
    spread = torch.where(is_binary, 0.0, SPREAD)
    variance = (signal * spread) ** 2 + noise**2
    # the logarithm of the odds of the upper mode, to which every number of the chunk contributes
    odds = (2 * signal * centre * x / variance).sum(dim=(-2, -1), keepdim=True)
    upper = (odds + math.log(SHARE / (1 - SHARE))).sigmoid()
    # within a mode, the share of x's distance from its centre that is not noise
    kept = signal * spread**2 / variance
    below, above = (m + kept * (x - signal * m) for m in (-centre, centre))
    return torch.lerp(below, above, upper)


def same_observation(head: Any, setup: Setup, rows: int) -> Any:
    """Return a context in which all rows show the same."""
    tokens = windows(setup)[:1].expand(rows, -1, -1, -1)
    return context_without_gradient(head, setup, tokens, rows=[0] * rows)


def batch_of(actions: Tensor) -> Batch:
    """Return a batch of these actions (B T H A), none of which is masked."""
    rows = len(actions)
    return Batch(
        images={},
        instructions=[""] * rows,
        text_ids=torch.zeros(rows, 1, dtype=torch.int64),
        text_mask=None,
        proprio=None,
        actions=actions,
        action_mask=torch.ones_like(actions, dtype=torch.bool),
    )
