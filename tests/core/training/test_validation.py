import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from core import Batch, PolicyError
from core.policy.boundary import Boundary
from core.training.validation import validate
from tests.contexts import context_from

TASK_OF = {"a0": "a", "a1": "a", "b0": "b"}


class Constant(torch.nn.Module):
    """A policy whose head always predicts 0.25.

    head_error: the head's `validation_error`, a function of the generator.
    """

    def __init__(self, head_error=lambda generator: None):
        super().__init__()
        self.policy_head = ConstantHead(head_error)
        self.boundary = Boundary()

    def context(self, batch, generator):
        return context_from(torch.zeros(*batch.actions.shape[:2], 1, 1))


class ConstantHead(torch.nn.Module):
    def __init__(self, head_error):
        super().__init__()
        self.head_error = head_error

    def forward(self, context, generator):
        return torch.full((*context.frame.shape, 2, 4), 0.25)

    def validation_error(self, context, batch, generator):
        return self.head_error(generator)


def random_batch(seed, episodes):
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randn(len(episodes), 3, 2, 4, generator=generator)
    mask = (torch.rand(len(episodes), 3, 2, 1, generator=generator) > 0.3).expand(-1, -1, -1, 4)
    return Batch({}, [], torch.zeros(1, 1), None, None, actions, mask, episodes=episodes)


def test_errors_equal_numpy_in_float64():
    batches = [random_batch(0, ["a0", "b0"]), random_batch(1, ["b0", "a1", "a0"])]
    validation = validate(
        Fabric(accelerator="cpu", devices=1), Constant(), batches, TASK_OF, action_dim=4
    )
    by_task = {"a": [], "b": []}
    for batch in batches:
        for episode, actions, mask in zip(
            batch.episodes, batch.actions, batch.action_mask, strict=True
        ):
            by_task[TASK_OF[episode]].append(actions[mask[..., 0]].double().numpy())
    rows = {task: np.concatenate(parts) for task, parts in by_task.items()}
    errors = {task: ((x - 0.25) ** 2).mean() for task, x in rows.items()}
    everything = np.concatenate(list(rows.values()))
    constant = sum(((x - x.mean(0)) ** 2).sum() for x in rows.values()) / everything.size
    np.testing.assert_allclose(validation.error, ((everything - 0.25) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(validation.constant, constant, rtol=1e-5)
    np.testing.assert_allclose(
        [validation.by_task[t] for t in "ab"], [errors[t] for t in "ab"], rtol=1e-5
    )
    np.testing.assert_allclose(validation.improvement, 1 - validation.error / validation.constant)


def test_a_head_may_bring_a_figure_of_its_own_and_draws_the_same_noise_every_time():
    batches = [random_batch(0, ["a0", "b0"]), random_batch(1, ["b0", "a1"])]
    fabric = Fabric(accelerator="cpu", devices=1)
    policy = Constant(lambda generator: generator.normal(2))
    first, second = (validate(fabric, policy, batches, TASK_OF, action_dim=4) for _ in range(2))
    assert first == second
    assert first.selection_error == first.head_error != first.error
    plain = validate(fabric, Constant(), batches, TASK_OF, action_dim=4)
    assert plain.head_error is None
    assert plain.selection_error == plain.error == first.error


def test_a_head_that_returns_no_error_per_sample_is_named():
    policy = Constant(lambda generator: torch.zeros(3))
    message = r"^policy_head: validation_error returned float32 \(3,\); .* \(B\) = \(2,\)"
    with pytest.raises(PolicyError, match=message):
        validate(
            Fabric(accelerator="cpu", devices=1),
            policy,
            [random_batch(0, ["a0", "b0"])],
            TASK_OF,
            action_dim=4,
        )


def test_a_task_of_which_nothing_is_held_out_has_no_error():
    """An error of zero would look like a perfect policy."""
    fabric = Fabric(accelerator="cpu", devices=1)
    validation = validate(
        fabric, Constant(), [random_batch(0, ["a0", "a1"])], TASK_OF, action_dim=4
    )
    assert list(validation.by_task) == ["a"]
