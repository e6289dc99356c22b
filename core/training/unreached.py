"""Finds trainable weights that the loss does not depend on, before training begins.

Such weights never train. If several processes train, each waits for the gradients of all weights,
so a weight without a gradient would end the run at its second step.
"""

from collections.abc import Iterator, Sequence

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

# number of names of weights that a message lists
NAMED = 4


def unreached_weights(module: nn.Module, loss: Tensor) -> list[str]:
    """Return the names of a module's trainable weights to which `loss` would send no gradient."""
    reached: set[int] = set()
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        # nodes of weights, and they alone, hold the tensor whose gradient they accumulate
        if (weight := getattr(node, "variable", None)) is not None:
            reached.add(id(weight))
        waiting.extend(parent for parent, _ in node.next_functions)
    return [
        name
        for name, weight in module.named_parameters()
        if weight.requires_grad and id(weight) not in reached
    ]


def describe_unreached(names: Sequence[str]) -> Iterator[str]:
    """Yield a line that names weights which no loss reaches; nothing, if there are none."""
    if names:
        listed = ", ".join(names[:NAMED])
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield (
            f"{len(names)} weights do not train, unless a part uses them for other inputs than "
            f"the trial before training: {listed}{more}"
        )


def search_for_gradients(fabric: Fabric, *, needed: bool) -> None:
    """Let all processes search in each step for weights without a gradient, if any of them must.

    The search takes time, so it is not made if it is not needed. Call this function before Fabric
    wraps the policy.

    needed: whether this process knows of a weight without a gradient.
    """
    if not isinstance(fabric.strategy, DDPStrategy):
        return
    count = fabric.all_reduce(torch.tensor(float(needed), device=fabric.device), reduce_op="sum")
    if torch.as_tensor(count).item():
        fabric.strategy._ddp_kwargs["find_unused_parameters"] = True
