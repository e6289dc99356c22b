"""Contract tests of every kind of part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import get_annotations
from typing import Any

import torch
from torch import Tensor, nn

from core.registry.components import call_build, missing_arguments
from core.registry.hookspecs import Build
from core.testing.common import Check, attempt, expect, expect_equal, first_then, normal

TRAINING_STEPS = 5
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class PartUnderTest:
    """How to build a part, and how to run the part on the test inputs for its kind of part.

    contract: the abstract class of its kind of part.
    plugin_build, config, offered: the part is built as `plugin_build(config, **offered)`; `offered`
        holds what core offers to its kind of part.
    run: runs the part; it is called with the part and the floating-point type of the inputs, and
        returns all outputs of the part in one tensor.
    loss: returns the scalar that training minimises; None for a part without a loss of its own,
        which learns to return random numbers.
    """

    contract: type[nn.Module]
    plugin_build: Build
    config: Any
    offered: Mapping[str, Any]
    run: Callable[[Any, torch.dtype], Tensor]
    loss: Callable[[Any], Tensor] | None = None

    def build(self, seed: int = 0) -> Any:
        """Build the part in evaluation mode, without changing the global random state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return call_build(self.plugin_build, self.config, self.offered).eval()

    def loss_of(self, module: Any) -> Tensor:
        """Return what a training step on the test inputs minimises, a scalar."""
        if self.loss is not None:
            return self.loss(module)
        output = self.run(module, torch.float32)
        return (output - normal(*output.shape, seed=20)).square().mean()


def checks_of(
    part: PartUnderTest, tests: Sequence[Callable[..., None]], *arguments: Any
) -> list[Check]:
    """Return the checks of one part: the tests for its kind of part, and the tests for every part.

    tests: the tests for this kind of part; each test is called with a newly built part and
        `arguments`.
    """

    def build_and_test(test: Callable[..., None]) -> None:
        test(part.build(), *arguments)

    common_tests = (
        gradients_reach_every_parameter,
        loss_falls_in_training,
        state_dict_round_trip,
        bfloat16_is_finite,
        output_is_repeatable,
        nothing_is_drawn_from_the_global_generator,
    )
    return first_then(
        Check("builds_and_runs", partial(builds_and_runs, part)),
        [
            *(Check(test.__name__, partial(build_and_test, test)) for test in tests),
            *(Check(test.__name__, partial(test, part)) for test in common_tests),
        ],
    )


def builds_and_runs(part: PartUnderTest) -> None:
    """`build` returns an instance of the abstract class, which runs on the test inputs."""
    contract = part.contract.__name__
    missing = missing_arguments(part.plugin_build, part.offered)
    offered = ", ".join(["config", *part.offered])
    expect(not missing, "build", f"no other arguments than {offered}", ", ".join(missing))
    module = attempt("build", f"a {contract}", part.build)
    expect(
        isinstance(module, part.contract), "build", f"a {contract}", f"a {type(module).__name__}"
    )
    unset = [name for name in get_annotations(part.contract) if not hasattr(module, name)]
    expect(not unset, f"attributes of the {contract}", f"self.{', self.'.join(unset)}", "none")
    attempt("the first call", "a result", partial(part.run, module, torch.float32))


def gradients_reach_every_parameter(part: PartUnderTest) -> None:
    """Every parameter that requires a gradient gets a gradient that is not zero."""
    module = part.build()
    if not _trainable(module):
        return
    # Change all weights a little, because a layer whose weights are zero passes no gradient to the
    # layers before it.
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter += 0.02 * normal(*parameter.shape, seed=index).to(parameter.dtype)
    output = part.run(module, torch.float32)
    torch.autograd.backward((output * normal(*output.shape, seed=1)).sum())
    without_gradient = [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    expect(
        not without_gradient,
        "gradients",
        "one that is not zero for every parameter that is not frozen by requires_grad_(False)",
        f"none for {without_gradient}",
    )


def loss_falls_in_training(part: PartUnderTest) -> None:
    """A few steps of AdamW on one batch make its loss smaller, and keep all weights finite."""
    module = part.build()
    if not _trainable(module):
        return
    before = part.loss_of(module).item()
    after = min(_train(part, module))
    expect(
        after < before,
        f"loss of one batch in {TRAINING_STEPS} steps of AdamW",
        f"less than the {before:.4g} before",
        f"{after:.4g} at best",
    )
    broken = [name for name, x in module.state_dict().items() if not _is_finite(x)]
    expect(
        not broken, "weights and buffers after training", "finite numbers", f"others in {broken}"
    )


@torch.no_grad()
def state_dict_round_trip(part: PartUnderTest) -> None:
    """The state dict holds all that a part has learned, and all that its training passes changed.

    An attribute that is neither a parameter nor a persistent buffer is missing in checkpoints.
    """
    module, other = part.build(seed=0), part.build(seed=1)
    with torch.random.fork_rng(devices=[]):  # dropout draws
        part.run(module.train(), torch.float32)
    module.eval()
    attempt(
        "load_state_dict of another instance",
        "no error",
        partial(other.load_state_dict, module.state_dict(), strict=True),
    )
    expected, received = part.run(module, torch.float32), part.run(other, torch.float32)
    expect_equal(received, expected, "output after loading the state dict of another instance")


@torch.no_grad()
def bfloat16_is_finite(part: PartUnderTest) -> None:
    """A part runs and gives finite outputs if its weights and inputs are bfloat16."""
    output = part.run(part.build().to(torch.bfloat16), torch.bfloat16)
    expect(
        bool(output.isfinite().all()), "output in bfloat16", "finite numbers", "infinities or NaN"
    )


@torch.no_grad()
def output_is_repeatable(part: PartUnderTest) -> None:
    """A part keeps no state between calls, and the same seed builds the same network."""
    module = part.build()
    first, again = part.run(module, torch.float32), part.run(module, torch.float32)
    rebuilt = part.run(part.build(), torch.float32)
    expect_equal(again, first, "output of a second call")
    expect_equal(rebuilt, first, "output of a part built again from the same seed")


@torch.no_grad()
def nothing_is_drawn_from_the_global_generator(part: PartUnderTest) -> None:
    """A part draws its random numbers from the generator that it is called with."""
    module = part.build()
    outputs = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            outputs.append(part.run(module, torch.float32))
    expect_equal(
        outputs[1],
        outputs[0],
        "output after another torch.manual_seed: draw from the generator argument",
    )


def _train(part: PartUnderTest, module: nn.Module) -> list[float]:
    """Train on the test inputs in training mode; return the losses, each in evaluation mode."""
    optimizer = torch.optim.AdamW(_trainable(module), lr=LEARNING_RATE)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        for _ in range(TRAINING_STEPS):
            loss = part.loss_of(module.train())
            expect(loss.requires_grad, "loss", "one with a gradient", "one without")
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(part.loss_of(module.eval()).item())
    return losses


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _is_finite(x: object) -> bool:
    return not isinstance(x, Tensor) or bool(x.isfinite().all())
