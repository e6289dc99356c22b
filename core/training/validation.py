"""Validation on held-out episodes, compared with the best constant action of each task.

A policy whose error is not below the constant's has not shown that it looks at anything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.contracts.batch import Batch
from core.contracts.generator import VALIDATION, Generator
from core.errors import JoineryError
from core.policy.policy import Policy


@dataclass(frozen=True)
class Validation:
    """Masked mean squared errors over the normalised action chunks.

    error: error of the policy over all tasks.
    constant: error of the best constant action of each task; the constant is fitted to the same
        episodes.
    by_task: {task: error of the policy}.
    head_error: mean of `PolicyHead.validation_error`; None for heads that do not define it.
    """

    error: float
    constant: float
    by_task: Mapping[str, float]
    head_error: float | None = None

    @property
    def selection_error(self) -> float:
        """The error by which the best checkpoint is chosen: the one with the lowest error."""
        return self.error if self.head_error is None else self.head_error

    @property
    def improvement(self) -> float:
        """How far `error` lies below `constant`, as a fraction of `constant`."""
        return 1.0 - self.error / self.constant if self.constant else 0.0


@torch.no_grad()
def validate(
    fabric: Fabric,
    policy: Policy,
    batches: Iterable[Batch],
    task_of: Mapping[str, str],
    action_dim: int,
) -> Validation:
    """Measure the policy on the batches of every process.

    task_of: {episode: task}.
    action_dim: action dimensions (A).

    Raises JoineryError if the head returns anything but one error for each sample.
    """
    policy.eval()
    tasks = sorted(set(task_of.values()))
    # on the device from the start: a process may have no batch at all
    moments = torch.zeros(len(tasks), 4, action_dim, device=fabric.device)
    head_sum_and_count = torch.zeros(2, device=fabric.device)
    for number, batch in enumerate(batches):
        samples = len(batch.episodes)
        task_index = [tasks.index(task_of[episode]) for episode in batch.episodes]
        # the key does not depend on the step: every validation draws the same noise
        key = (VALIDATION, number, fabric.global_rank)
        generator = Generator.shared(key, fabric.device)
        # not through Fabric's module, which would wait for a batch of every other process
        with fabric.autocast():
            context = policy.context(batch, generator)
            prediction = policy.policy_head(context, generator)
            head_errors = policy.policy_head.validation_error(context, batch, generator)
        rows = torch.tensor(task_index, device=fabric.device)
        moments.index_add_(0, rows, _moments(prediction, batch))
        if head_errors is not None:
            if head_errors.shape != (samples,):
                raise JoineryError(
                    f"policy_head: validation_error gave {tuple(head_errors.shape)} for {samples} "
                    "samples; one figure for each is expected: mend the plugin"
                )
            count = head_errors.new_tensor(samples, dtype=torch.float32)
            head_sum_and_count += torch.stack([head_errors.float().sum(), count])
    policy.train()
    moments = torch.as_tensor(fabric.all_reduce(moments, reduce_op="sum"))
    validation = _summarise(moments.double().cpu(), tasks)
    head_sum_and_count = torch.as_tensor(fabric.all_reduce(head_sum_and_count, reduce_op="sum"))
    head_sum, head_count = head_sum_and_count.tolist()
    return replace(validation, head_error=head_sum / head_count) if head_count else validation


def _moments(prediction: Tensor, batch: Batch) -> Tensor:
    """Sum over each sample's unmasked entries -> (B 4 A).

    The four sums are of ones, squared errors, targets and squared targets.
    """
    assert batch.actions is not None
    assert batch.action_mask is not None
    weights = batch.action_mask.float()
    squared_error = (prediction.float() - batch.actions) ** 2
    terms = (torch.ones_like(squared_error), squared_error, batch.actions, batch.actions**2)
    return torch.stack([(term * weights).sum(dim=(1, 2)) for term in terms], dim=1)


def _summarise(moments: Tensor, tasks: list[str]) -> Validation:
    """Compute the errors from the moments (tasks 4 A).

    The best constant is the mean of the targets, and its error is their variance.
    """
    entries, squared_error, total, squares = moments.unbind(1)
    variance = (squares - total**2 / entries.clamp(min=1)).clamp(min=0)
    by_task = squared_error.sum(-1) / entries.sum(-1).clamp(min=1)
    return Validation(
        error=float(squared_error.sum() / entries.sum()),
        constant=float(variance.sum() / entries.sum()),
        by_task=dict(zip(tasks, by_task.tolist(), strict=True)),
    )
