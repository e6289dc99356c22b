"""The gradient of each term of the loss in each part: which loss teaches which part."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from core.contracts.batch import Batch, State
from core.contracts.generator import Generator
from core.policy.policy import Policy
from core.training.optimizer import modules_of


@dataclass(frozen=True)
class StepInputs:
    """What a training step computed its losses from; of several micro-batches, the last one.

    key: the key of the step's random numbers.
    state: the policy head's state before the windows, as in `Policy.forward`.
    counted: whose terms count, as in `Policy.forward`.
    terms: names of the terms of the loss, without their sum.
    """

    batch: Batch
    key: Sequence[int]
    state: State | None
    counted: Collection[str]
    terms: Collection[str]


def loss_gradients(
    fabric: Fabric, policy: Policy, inputs: StepInputs
) -> dict[str, dict[str, float]]:
    """Return {part that trains: {term: norm of its gradient}}; empty if there is a single term.

    The gradients are those of one micro-batch in this process, neither clipped nor averaged, with
    the present weights and the random numbers of the training step, except that dropout drops other
    units. Each term takes a pass of its own, because the backward pass of a compiled block cannot
    run twice.

    Nothing changes: neither the gradients that the parameters hold, nor the buffers, nor the random
    numbers of later steps.
    """
    if len(inputs.terms) < 2:
        return {}
    trainable = {
        name: [parameter for parameter in module.parameters() if parameter.requires_grad]
        for name, module in modules_of(policy).items()
    }
    norms: dict[str, dict[str, float]] = {part: {} for part, own in trainable.items() if own}
    for term in sorted(inputs.terms):
        with torch.random.fork_rng(), _buffers_kept(policy):
            generator = Generator.shared(inputs.key, fabric.device)
            with fabric.autocast():
                losses = policy(inputs.batch, generator, inputs.state, inputs.counted).losses
            # a faulty head can leave the term out this time; the next step's checks will name it
            loss = losses.get(term, torch.zeros(()))
            squares = iter(_squared_norms(loss, [p for own in trainable.values() for p in own]))
        for part in norms:
            norms[part][term] = sum(next(squares) for _ in trainable[part]) ** 0.5
    return norms


def _squared_norms(loss: Tensor, parameters: Sequence[Tensor]) -> list[float]:
    """Return the squared norm of the loss's gradient in each parameter."""
    if not loss.requires_grad:  # all that the loss depends on is frozen
        return [0.0] * len(parameters)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    zero = torch.zeros((), device=loss.device)
    norms = [zero if g is None else torch.linalg.vector_norm(g).float() for g in gradients]
    squares: list[float] = torch.stack(norms).double().square().tolist()  # one wait for the device
    return squares


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Undo what the `with` block does to buffers, such as the statistics of batch norms."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in before:
                buffer.copy_(values)
