"""Keeps bfloat16 weights in float32, too, so that an optimiser's small updates are not lost.

A bfloat16 number has eight significant bits. An update smaller than about 1/512 of a weight rounds
to nothing, and AdamW's updates are as small as the learning rate. So the optimiser changes float32
copies of the weights, and the weights are these copies, rounded (Micikevicius et al. 2018).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

# name of a weight's float32 copy in the optimiser's state, and in checkpoints
MASTER = "master"

Groups = list[dict[str, Any]]


class MasterWeights(torch.optim.Optimizer):
    """An optimiser of bfloat16 weights: another optimiser, any, changes float32 copies of them.

    To its users it is one optimiser that holds the weights themselves. Its state of a weight is
    the other optimiser's state of the copy, and the copy. A state without the copy, as that of a
    checkpoint of Joinery 0.1, continues from the rounded weight.

    build: makes the other optimiser from parameter groups.
    groups: parameter groups of the weights.
    """

    def __init__(
        self, build: Callable[[Groups], torch.optim.Optimizer], groups: Sequence[dict[str, Any]]
    ) -> None:
        copies = {
            weight: nn.Parameter(weight.detach().float())
            for group in groups
            for weight in group["params"]
        }
        weights = {copy: weight for weight, copy in copies.items()}
        self.optimizer = build(
            [{**group, "params": [copies[w] for w in group["params"]]} for group in groups]
        )
        own_groups = [
            {**group, "params": [weights[copy] for copy in group["params"]]}
            for group in self.optimizer.param_groups
        ]
        super().__init__(own_groups, {})
        self._copies = copies
        for weight, copy in copies.items():
            self.optimizer.state[copy] = self.state[weight]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step of the other optimiser, and round its weights.

        closure: computes the loss and its gradients anew; it is called once, before the step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for weight, copy in self._copies.items():
            # the other optimiser takes an empty state for that of a first step
            master = self.state[weight].pop(MASTER, None)
            copy.data = weight.detach().float() if master is None else master
            copy.grad = None if weight.grad is None else weight.grad.float()
        for group, own_group in zip(self.optimizer.param_groups, self.param_groups, strict=True):
            group["lr"] = own_group["lr"]
        self.optimizer.step()
        for weight, copy in self._copies.items():
            if copy.grad is not None:
                weight.copy_(copy)
                copy.grad = None
            self.state[weight][MASTER] = copy.data
        return loss
