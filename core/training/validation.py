"""Validation on held-out episodes, compared with the best constant action of each task.

A constant action needs no observation. So only a policy with a lower error than these actions has
shown that it uses its observations.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite, nan

import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.contracts.batch import Batch
from core.contracts.generator import VALIDATION, Generator
from core.policy.policy import Policy
from core.training.carrying import state_before


@dataclass(frozen=True)
class Validation:
    """Mean squared errors of the normalised action chunks, without masked entries.

    error: error of the policy over all tasks.
    constant: error of the best constant action of each task; this action is fitted to the same
        held-out episodes.
    by_task: {task: error of the policy on that task}, for the tasks of held-out episodes.
    head_error: mean of `PolicyHead.validation_error`; None if the head does not define
        `validation_error`.
    """

    error: float
    constant: float
    by_task: Mapping[str, float]
    head_error: float | None = None

    @property
    def selection_error(self) -> float:
        """The error that decides which checkpoint is the best: the lowest error wins.

        It is NaN, which never wins, if one of the errors is not finite.
        """
        chosen = self.error if self.head_error is None else self.head_error
        return chosen if isfinite(self.error) and isfinite(chosen) else nan

    @property
    def improvement(self) -> float:
        """How far `error` lies below `constant`, as a fraction of `constant`."""
        return 1.0 - self.error / self.constant if self.constant else 0.0

    def metrics(self) -> dict[str, float]:
        """Return {key in metrics.jsonl: error}."""
        metrics = {"validation/error": self.error, "validation/constant": self.constant}
        if self.head_error is not None:
            metrics["validation/own"] = self.head_error
        for task, error in self.by_task.items():
            metrics[f"validation/error/{task}"] = error
        return metrics

    def __str__(self) -> str:
        side = "below" if self.improvement > 0 else "above"
        line = (
            f"validation error {self.error:.4f}, best constant action per task {self.constant:.4f}"
        )
        if isfinite(self.error):
            line += f": {abs(self.improvement):.0%} {side}"
        if self.head_error is not None:
            line += f"; the policy head's own figure {self.head_error:.4f}"
        return line


@torch.no_grad()
def validate(
    fabric: Fabric,
    policy: Policy,
    batches: Iterable[Batch],
    task_of: Mapping[str, str],
    action_dim: int,
    carries: bool = False,
) -> Validation:
    """Return the errors of the policy on the batches of all processes together.

    task_of: {episode id: task name}.
    action_dim: number of action dimensions (A).
    carries: whether each row's state is carried from batch to batch; the batches are then those of
        `EpisodeStreams.once`.

    Raises PolicyError if a part breaks its contract.
    """
    policy.eval()
    head, boundary = policy.policy_head, policy.boundary
    tasks = sorted(set(task_of.values()))
    # created on the device, because a process without any batch must also have these sums on its
    # device
    moments = torch.zeros(len(tasks), 4, action_dim, device=fabric.device)
    head_sum_and_count = torch.zeros(2, device=fabric.device)
    state = head.initial_state(0) if carries else None
    for number, batch in enumerate(batches):
        samples = len(batch.episodes)
        task_index = [tasks.index(task_of[episode]) for episode in batch.episodes]
        # the key does not depend on the training step, so that every validation draws the same
        # noise
        key = (VALIDATION, number, fabric.global_rank)
        generator = Generator.shared(key, fabric.device)
        # called without Fabric's wrapper, which would wait until every other process has a batch,
        # too
        with fabric.autocast():
            context = policy.context(batch, generator)
            if state is not None:
                context = replace(context, state=state_before(head, state, batch))
                state = boundary.next_state(head, context)
            prediction = boundary.predict(head, context, generator)
            head_errors = boundary.validation_error(head, context, batch, generator)
        rows = torch.tensor(task_index, device=fabric.device)
        moments.index_add_(0, rows, _moments(prediction, batch))
        if head_errors is not None:
            count = head_errors.new_tensor(samples, dtype=torch.float32)
            head_sum_and_count += torch.stack([head_errors.float().sum(), count])
    policy.train()
    moments = torch.as_tensor(fabric.all_reduce(moments, reduce_op="sum"))
    validation = _summarise(moments.double().cpu(), tasks)
    head_sum_and_count = torch.as_tensor(fabric.all_reduce(head_sum_and_count, reduce_op="sum"))
    head_sum, head_count = head_sum_and_count.tolist()
    return replace(validation, head_error=head_sum / head_count) if head_count else validation


def _moments(prediction: Tensor, batch: Batch) -> Tensor:
    """Return four sums (B 4 A) over the unmasked entries of each sample.

    The summands are: 1 (so this sum is the number of entries), squared error, target, squared
    target.
    """
    assert batch.actions is not None
    assert batch.action_mask is not None
    weights = batch.action_mask.float()
    squared_error = (prediction.float() - batch.actions) ** 2
    terms = (torch.ones_like(squared_error), squared_error, batch.actions, batch.actions**2)
    return torch.stack([(term * weights).sum(dim=(1, 2)) for term in terms], dim=1)


def _summarise(moments: Tensor, tasks: list[str]) -> Validation:
    """Compute the errors from the four sums over each task's samples, (tasks 4 A).

    The best constant action is the mean of the targets, and its error is the variance of the
    targets.
    """
    entries, squared_error, total, squares = moments.unbind(1)
    variance = (squares - total**2 / entries.clamp(min=1)).clamp(min=0)
    by_task = squared_error.sum(-1) / entries.sum(-1).clamp(min=1)
    return Validation(
        error=float(squared_error.sum() / entries.sum()),
        constant=float(variance.sum() / entries.sum()),
        by_task={
            task: error
            for task, error, count in zip(
                tasks, by_task.tolist(), entries.sum(-1).tolist(), strict=True
            )
            if count
        },
    )
