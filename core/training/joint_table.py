"""The joint-training table: parameters, gradient and update of each part in one step.

The table shows that all parts train together.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.policy.policy import Policy
from core.policy.quantization import parameter_count
from core.system.tables import NumberTable
from core.training.optimizer import modules_of


@dataclass(frozen=True)
class JointRow:
    """One row of the table: one part in one step.

    parameters: number of the part's parameters, trainable or not.
    trainable: number of trainable parameters.
    gradient_norm: norm of the part's gradient, as the optimiser used it.
    update: norm of the change of the trainable weights, divided by the weights' norm before the
        step.
    """

    part: str
    parameters: int
    trainable: int
    learning_rate: float
    gradient_norm: float
    update: float


class JointTable:
    """Measures the gradient and the update of each part in one optimiser step.

    During a measured step, a copy of the trainable weights is held in memory.

    step, rows: the step of the newest measurement, and one row for each part.
    losses: {part that trains: {term of the loss: norm of its gradient}}, see `loss_gradients`.
    """

    def __init__(self, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
        self.modules = modules_of(policy)
        self.optimizer = optimizer
        self.step = 0
        self.rows: list[JointRow] = []
        self.losses: Mapping[str, Mapping[str, float]] = {}

    @contextmanager
    def measure(self, step: int) -> Iterator[None]:
        """Measure the `optimizer.step()` inside the `with` block; set `step` and `rows`."""
        self.step = step
        trainable = {
            name: [p for p in module.parameters() if p.requires_grad]
            for name, module in self.modules.items()
        }
        before = {
            name: [p.detach().clone() for p in parameters] for name, parameters in trainable.items()
        }
        gradients = {
            name: _norm([p.grad for p in parameters]) for name, parameters in trainable.items()
        }
        yield
        self.rows = [
            self._row(name, module, gradients[name], before[name], trainable[name])
            for name, module in self.modules.items()
        ]

    def _row(
        self,
        name: str,
        module: nn.Module,
        gradient_norm: Tensor,
        before: Sequence[Tensor],
        after: Sequence[Tensor],
    ) -> JointRow:
        # computed one tensor at a time, because the differences of all tensors together would take
        # as much memory as the part's weights
        changes = [
            torch.linalg.vector_norm(new.detach() - old)
            for old, new in zip(before, after, strict=True)
        ]
        change = torch.stack(changes).norm() if changes else torch.zeros(())
        groups = self.optimizer.param_groups if after else []
        rates = [group["lr"] for group in groups if group["part"] == name]
        return JointRow(
            part=name,
            parameters=sum(parameter_count(p) for p in module.parameters()),
            trainable=sum(p.numel() for p in after),
            learning_rate=max(rates, default=0.0),
            gradient_norm=float(gradient_norm),
            update=float(change / _norm(before).clamp(min=1e-12)),
        )


def render(joint_table: JointTable) -> list[NumberTable]:
    """Return the newest measurement as tables for the console.

    The second table is there if the loss has several terms.
    """
    terms = list(dict.fromkeys(term for of_part in joint_table.losses.values() for term in of_part))
    table = NumberTable(("part", *terms), title="gradient norm of each loss, after that step")
    for part, norms in joint_table.losses.items():
        table.add_row(part.replace("_", " "), *(f"{norms[term]:.2e}" for term in terms))
    return [_render_parts(joint_table), *([table] if terms else [])]


def _render_parts(joint_table: JointTable) -> NumberTable:
    table = NumberTable(
        ("part", "parameters", "trains", "learning rate", "gradient norm", "rel. update"),
        title=f"joint training, step {joint_table.step}",
        left=("trains",),
    )
    for row in joint_table.rows:
        trains = "partly" if row.trainable else "frozen" if row.parameters else "-"
        if row.trainable and row.trainable == row.parameters:
            trains = "yes"
        numbers = (f"{row.learning_rate:.2e}", f"{row.gradient_norm:.2e}", f"{row.update:.2e}")
        table.add_row(row.part.replace("_", " "), f"{row.parameters:,}", trains, *numbers)
    return table


def _norm(tensors: Sequence[Tensor | None]) -> Tensor:
    """Return the norm of all tensors together, on their device; it is zero if all are None."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.nn.utils.get_total_norm(present) if present else torch.zeros(())
