"""Validation on held-out episodes, beside the best constant action of each task: a policy must beat
that to be one.
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
    """Masked mean squared errors over the normalised chunk, all tasks together and by task.

    error: the policy's. constant: that of the best constant action per task, fitted to these very
    episodes.
    own: the mean of the figure that the policy head brings itself (`PolicyHead.validation_error`),
    if it does.
    """

    error: float
    constant: float
    by_task: Mapping[str, float]
    own: float | None = None

    @property
    def figure(self) -> float:
        """What says which checkpoint is best; lower is better."""
        return self.error if self.own is None else self.own

    @property
    def improvement(self) -> float:
        """How far the policy's error lies below the constant's, as a fraction of it."""
        return 1.0 - self.error / self.constant if self.constant else 0.0


@torch.no_grad()
def validate(
    fabric: Fabric,
    policy: Policy,
    batches: Iterable[Batch],
    task_of: Mapping[str, str],
    action_dim: int,
) -> Validation:
    """Measure the policy on every batch of every process. task_of: {episode: task}."""
    policy.eval()
    tasks = sorted(set(task_of.values()))
    sums = torch.zeros(
        len(tasks), 4, action_dim, device=fabric.device
    )  # a process may have no batch of its own
    own = torch.zeros(2, device=fabric.device)  # sum and number of the head's own figures
    for number, batch in enumerate(batches):
        index = torch.tensor(
            [tasks.index(task_of[e]) for e in batch.episodes], device=fabric.device
        )
        key = (VALIDATION, number, fabric.global_rank)  # the same noise at every validation
        generator = Generator.shared(key, fabric.device)
        with (
            fabric.autocast()
        ):  # and not by Fabric's module: with several processes that waits for the others' batches
            context = policy.context(batch, generator)
            predicted = policy.policy_head(context, generator)
            figures = policy.policy_head.validation_error(context, batch, generator)
        sums.index_add_(0, index, _moments(predicted, batch))
        if figures is not None:
            _raise_unless_per_sample(figures, len(batch.episodes))
            own += torch.stack(
                [figures.float().sum(), figures.new_tensor(len(figures), dtype=torch.float32)]
            )
    policy.train()
    total, count = torch.as_tensor(fabric.all_reduce(own, reduce_op="sum")).tolist()
    measured = _summarise(
        torch.as_tensor(fabric.all_reduce(sums, reduce_op="sum")).double().cpu(), tasks
    )
    return replace(measured, own=total / count) if count else measured


def _raise_unless_per_sample(figures: Tensor, samples: int) -> None:
    if figures.shape != (samples,):
        raise JoineryError(
            f"policy_head: validation_error gave {tuple(figures.shape)} for {samples} samples; one figure for each is "
            "expected: mend the plugin"
        )


def _moments(predicted: Tensor, batch: Batch) -> Tensor:
    """Per sample and dimension: entries, squared error, target, squared target -> (B 4 A)."""
    assert batch.actions is not None
    assert batch.action_mask is not None
    weights = batch.action_mask.float()
    squared_error = (predicted.float() - batch.actions) ** 2
    moments = (torch.ones_like(squared_error), squared_error, batch.actions, batch.actions**2)
    return torch.stack([(m * weights).sum(dim=(1, 2)) for m in moments], dim=1)


def _summarise(sums: Tensor, tasks: list[str]) -> Validation:
    """sums (tasks 4 A) -> errors. The best constant is the mean, and its error the variance."""
    entries, squared_error, total, squares = sums.unbind(1)
    variance = (squares - total**2 / entries.clamp(min=1)).clamp(min=0)
    by_task = squared_error.sum(-1) / entries.sum(-1).clamp(min=1)
    return Validation(
        error=float(squared_error.sum() / entries.sum()),
        constant=float(variance.sum() / entries.sum()),
        by_task=dict(zip(tasks, by_task.tolist(), strict=True)),
    )
