"""Noise of heads that sample, end to end: it depends on a row's seed and step, on nothing else."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from core import Batch
from core.policy.policy import Policy
from core.training.validation import validate
from tests.strangers import batch_of, build, perturbed

ROWS, STEPS = 16, 4
SEEDS = torch.arange(100, 100 + ROWS)


@pytest.fixture(params=["small_flow", "expert"])
def policy(request, tmp_path) -> Policy:
    """A policy whose backbone sees a history, so that a row can start a new one."""
    head = f'name = "{request.param}"'
    return perturbed(build(tmp_path, head, "action_tokens.formulation=interleaved", window=2))


def observation(policy: Policy, step: int, rows: slice = slice(None)) -> Batch:
    """Return what some of the 16 rows observe at a step."""
    batch = batch_of(policy, STEPS, ROWS)
    return replace(
        batch,
        images={name: x[rows, step : step + 1] for name, x in batch.images.items()},
        text_ids=batch.text_ids[rows],
        text_mask=batch.text_mask[rows],
        proprio=batch.proprio[rows, step : step + 1],
    )


@torch.no_grad()
def act(
    policy: Policy, seeds: Tensor, rows: slice = slice(None), steps: Sequence[int] = range(STEPS)
) -> Tensor:
    """Return actions (steps B H A) of rows that start an episode at the first step."""
    state, actions = policy.initial_state(seeds), []
    for step in steps:
        chunk, state = policy.act(observation(policy, step, rows), state)
        actions.append(chunk)
    return torch.stack(actions)


def test_actions_do_not_depend_on_how_many_rows_act(policy):
    together = act(policy, SEEDS)
    assert torch.equal(act(policy, SEEDS), together)
    for size in (1, 4):
        groups = [slice(start, start + size) for start in range(0, ROWS, size)]
        separate = torch.cat([act(policy, SEEDS[rows], rows) for rows in groups], dim=1)
        torch.testing.assert_close(separate, together, rtol=1e-5, atol=1e-5)


def test_another_seed_or_step_draws_other_noise(policy):
    together, other = act(policy, SEEDS), act(policy, SEEDS + ROWS)
    assert (together - other).abs().amax(dim=(0, 2, 3)).min() > 1e-2  # of every row
    one = slice(0, 1)
    state = policy.initial_state(SEEDS[one])
    with torch.no_grad():
        first, state = policy.act(observation(policy, 0, one), state)
        again, _ = policy.act(observation(policy, 0, one), replace(state, history={}))
    assert (first - again).abs().max() > 1e-2  # the same frame, a step later


@torch.no_grad()
def test_a_row_that_is_reset_acts_as_from_a_fresh_start(policy):
    state = policy.initial_state(SEEDS)
    for step in (0, 1):
        _, state = policy.act(observation(policy, step), state)
    rows = torch.arange(ROWS) == 5
    state, received = policy.reset(state, rows, SEEDS + ROWS), []
    for step in (2, 3):
        chunk, state = policy.act(observation(policy, step), state)
        received.append(chunk)
    fresh, ongoing = act(policy, SEEDS + ROWS, steps=(2, 3)), act(policy, SEEDS)[2:]
    expected = torch.where(rows[:, None, None], fresh, ongoing)
    torch.testing.assert_close(torch.stack(received), expected, rtol=1e-5, atol=1e-5)
    assert (fresh - ongoing)[:, rows].abs().max() > 1e-2


def test_rows_can_be_reset_before_the_first_step(policy):
    rows = torch.arange(ROWS) % 2 == 0
    state = policy.reset(policy.initial_state(SEEDS), rows, SEEDS + ROWS)
    with torch.no_grad():
        received, _ = policy.act(observation(policy, 0), state)
    expected = act(policy, torch.where(rows, SEEDS + ROWS, SEEDS), steps=[0])[0]
    assert torch.equal(received, expected)


def test_validation_draws_the_same_noise_every_time(policy):
    batches = [batch_of(policy, 2, 5), batch_of(policy, 2, 3)]
    task_of = {name: "one task" for batch in batches for name in batch.episodes}
    fabric = Fabric(accelerator="cpu", devices=1)
    measured = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        measured.append(validate(fabric, policy, batches, task_of, action_dim=4))
    assert measured[0] == measured[1]
    assert measured[0].selection_error == measured[0].head_error > 0
