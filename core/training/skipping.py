"""Steps that are skipped because their loss or gradient is NaN or infinite.

`train.not_finite = "skip"` leaves weights, optimiser and averages of such a step as they are. With
`precision = "16-mixed"`, Fabric's loss scaler skips steps, too, while it looks for the right scale.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.contracts.batch import State
from core.contracts.parts import PolicyHead
from core.errors import TrainingError
from core.policy.policy import Policy
from core.recipe.train_section import TrainConfig


@dataclass
class Skipping:
    """Finds the steps that must be skipped, and counts those that were.

    total: number of steps of the run that were skipped.
    in_a_row: number of the newest steps that were all skipped.
    """

    fabric: Fabric
    policy: Policy
    config: TrainConfig
    total: int = 0
    in_a_row: int = 0
    _buffers: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False)

    @property
    def scales_loss(self) -> bool:
        """Whether a loss scaler skips steps: with 16-mixed, which Fabric replaces on the CPU."""
        return getattr(self.fabric.strategy.precision, "scaler", None) is not None

    def begin_step(self) -> None:
        """Remember what a forward pass may change: the buffers of modules in training mode.

        Those are the running statistics of batch normalisation, and codebooks, for example.
        """
        if self.config.not_finite == "skip":
            self._buffers = [
                (buffer, buffer.clone())
                for module in self.policy.modules()
                if module.training
                for buffer in module.buffers(recurse=False)
            ]

    def allows_update(
        self,
        losses: Sequence[Mapping[str, Tensor]],
        gradient_norm: Tensor | None,
        carried: list[State | None],
    ) -> bool:
        """Return whether all values of a step are finite; all processes get the same answer.

        With "skip", this waits for the device. If a value is not finite, what the forward pass has
        changed is as before, and rows of `carried` that are not finite begin afresh.

        losses: those of each micro-batch.
        carried: the policy head's state of each micro-batch (B ...), changed in place.
        """
        if self.config.not_finite == "stop":
            return True
        values = [terms["total"].detach().float() for terms in losses]
        if gradient_norm is not None:
            values.append(gradient_norm)
        finite = torch.stack(values).isfinite().all().float()
        if torch.as_tensor(self.fabric.all_reduce(finite, reduce_op="min")).item():
            return True
        for buffer, before in self._buffers:
            buffer.copy_(before)
        carried[:] = [_finite_rows(self.policy.policy_head, state) for state in carried]
        return False

    def is_skipped(self, values: Mapping[str, float]) -> bool:
        """Return whether a step was skipped, from its values, averaged over all processes."""
        may_fail = ["total"] if self.config.not_finite == "skip" else []
        if self.config.not_finite == "skip" or self.scales_loss:
            may_fail.append("gradient_norm")
        return not all(math.isfinite(values[name]) for name in may_fail if name in values)

    def count(self, step: int, is_skipped: bool) -> None:
        """Count a step; raises TrainingError if too many in a row were skipped, or all of a run."""
        self.total += is_skipped
        self.in_a_row = self.in_a_row + 1 if is_skipped else 0
        if self.in_a_row > self.config.max_skipped or self.in_a_row >= self.config.steps:
            if self.scales_loss:
                remedy = 'set train.precision = "bf16-mixed" or "32-true", or lower'
            else:
                remedy = "look at the batches' episodes, or lower"
            raise TrainingError(
                f"step {step}: the last {self.in_a_row} steps were skipped, because their loss or "
                f"gradient was not finite; {remedy} the learning rate, and go on with --resume "
                "--with-changes (or begin again, if there is no checkpoint yet)"
            )


def _finite_rows(head: PolicyHead, state: State | None) -> State | None:
    """Return a state (B ...) in which rows with numbers that are not finite are initial again."""
    if state is None:
        return None
    rows = len(next(iter(state.values())))
    finite = torch.stack([x.reshape(rows, -1).isfinite().all(1) for x in state.values()]).all(0)
    initial = head.initial_state(rows)
    return {
        name: torch.where(finite.view(-1, *[1] * (x.ndim - 1)), x, initial[name].to(x.dtype))
        for name, x in state.items()
    }
