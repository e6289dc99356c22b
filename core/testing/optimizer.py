"""Contract tests of optimisers."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.registry.components import call_build, missing_arguments
from core.registry.hookspecs import Build
from core.testing.common import Check, attempt, expect, first_then, normal
from core.training.optimizer import find_problem

STEPS = 4
LEARNING_RATE = 1e-2


class Toy(nn.Module):
    """A network with parameters of every role: an embedding, a kernel, a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 6)
        self.kernel = nn.Conv1d(6, 6, 3, padding=1, bias=False)
        self.layer = nn.Linear(6, 4)
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(0.5 * normal(*parameter.shape, seed=number))

    def loss(self, step: int) -> Tensor:
        """Return the mean squared error of words and targets that depend on the step alone."""
        generator = torch.Generator().manual_seed(step)
        words = torch.randint(5, (8, 3), generator=generator)
        hidden = self.kernel(self.words(words).transpose(1, 2)).mean(-1)
        error: Tensor = (self.layer(hidden) - torch.randn(8, 4, generator=generator)).square()
        return error.mean()


@dataclass(frozen=True)
class Training:
    """A network and the optimiser under test."""

    model: Toy
    optimizer: torch.optim.Optimizer

    def steps(self, first: int, count: int) -> None:
        """Make steps as core does: set the learning rate, compute gradients, call `step`."""
        for step in range(first, first + count):
            for group in self.optimizer.param_groups:
                group["lr"] = group["full_lr"] * (1 - step / 100)
            self.optimizer.zero_grad()
            torch.autograd.backward(self.model.loss(step))
            self.optimizer.step()


@dataclass(frozen=True)
class OptimizerUnderTest:
    """How to build the optimiser under test."""

    plugin_build: Build
    config: Any

    def offered(self, model: Toy) -> dict[str, Any]:
        """Return what core offers to the optimiser of a network."""
        members = {
            ("embedding", 0.1): [model.words.weight],
            ("matrix", 0.1): [model.kernel.weight, model.layer.weight],
            ("vector", 0.0): [model.layer.bias],
        }
        rates = {"lr": LEARNING_RATE, "full_lr": LEARNING_RATE}
        groups = [
            {"part": "toy", "role": role, "params": parameters, "weight_decay": decay, **rates}
            for (role, decay), parameters in members.items()
        ]
        return {"groups": groups, "betas": (0.9, 0.95)}

    def train(self, model: Toy | None = None) -> Training:
        """Build the optimiser of a network, a new one by default."""
        model = model or Toy()
        return Training(model, call_build(self.plugin_build, self.config, self.offered(model)))


def checks(build: Build, config: Any) -> list[Check]:
    """Return the checks of an optimiser."""
    optimizer = OptimizerUnderTest(build, config)
    tests = (
        loss_falls,
        learning_rate_is_read_at_every_step,
        parameters_without_gradient_stay,
        state_is_tensors,
        resumed_training_is_the_same,
    )
    return first_then(
        Check("holds_each_parameter_once", partial(holds_each_parameter_once, optimizer)),
        [Check(test.__name__, partial(test, optimizer)) for test in tests],
    )


def holds_each_parameter_once(optimizer: OptimizerUnderTest) -> None:
    """`build` returns an optimiser of all given parameters, in groups with the given keys."""
    model = Toy()
    missing = missing_arguments(optimizer.plugin_build, optimizer.offered(model))
    expect(not missing, "build", "no other arguments than config, groups, betas", f"{missing}")
    training = attempt("build", "a torch.optim.Optimizer", partial(optimizer.train, model))
    problem = find_problem(training.optimizer, list(model.parameters()))
    expect(problem is None, "build", "a torch.optim.Optimizer of the given groups", f"{problem}")
    attempt("step()", "no error", partial(training.steps, 0, 1))


def loss_falls(optimizer: OptimizerUnderTest) -> None:
    """Steps on one batch make its loss smaller."""
    training = optimizer.train()
    before = training.model.loss(0).item()
    for _ in range(STEPS):
        training.steps(0, 1)
    after = training.model.loss(0).item()
    expect(after < before, f"loss after {STEPS} steps", f"less than {before:.4g}", f"{after:.4g}")


def learning_rate_is_read_at_every_step(optimizer: OptimizerUnderTest) -> None:
    """With lr = 0 in all groups, no weight changes: the schedule sets `lr` before each step."""
    training = optimizer.train()
    training.steps(0, 1)
    before = copy.deepcopy(training.model.state_dict())
    for group in training.optimizer.param_groups:
        group["lr"] = 0.0
    training.optimizer.step()
    _expect_weights(training.model, before, "weights after a step with lr = 0")


def parameters_without_gradient_stay(optimizer: OptimizerUnderTest) -> None:
    """A parameter whose `grad` is None is left alone, and so is every weight if all are."""
    training = optimizer.train()
    training.steps(0, 1)
    before = copy.deepcopy(training.model.state_dict())
    training.optimizer.zero_grad(set_to_none=True)
    attempt("step() without gradients", "no error", training.optimizer.step)
    _expect_weights(training.model, before, "weights after a step without gradients")


def state_is_tensors(optimizer: OptimizerUnderTest) -> None:
    """All state is tensors in `state[parameter]`: that is what checkpoints hold."""
    training = optimizer.train()
    training.steps(0, 2)
    parameters = set(training.model.parameters())
    for owner, entries in training.optimizer.state.items():
        of_parameter = isinstance(owner, Tensor) and owner in parameters
        expect(of_parameter, "keys of `state`", "parameters of the groups", repr(owner)[:80])
        others = [name for name, value in entries.items() if not isinstance(value, Tensor)]
        expect(
            not others, "state[parameter]", "tensors", f"others in {', '.join(map(str, others))}"
        )


def resumed_training_is_the_same(optimizer: OptimizerUnderTest) -> None:
    """A new optimiser with the tensors of `state[parameter]` goes on bit for bit."""
    whole, first = optimizer.train(), optimizer.train()
    whole.steps(0, 2 * STEPS)
    first.steps(0, STEPS)
    resumed = optimizer.train(copy.deepcopy(first.model))
    pairs = zip(first.model.parameters(), resumed.model.parameters(), strict=True)
    for mine, other in pairs:
        for name, value in first.optimizer.state.get(mine, {}).items():
            resumed.optimizer.state[other][name] = value.clone()
    resumed.steps(STEPS, STEPS)
    what = f"weights after {STEPS} steps, a checkpoint and {STEPS} more steps"
    _expect_weights(resumed.model, whole.model.state_dict(), what)


def _expect_weights(model: nn.Module, expected: Mapping[str, Tensor], what: str) -> None:
    """Check that all weights are these, bit by bit."""
    others = [name for name, x in model.state_dict().items() if not torch.equal(x, expected[name])]
    expect(not others, what, "the same", f"others in {', '.join(others)}")
