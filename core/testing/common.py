"""What all contract tests use: inputs, comparisons, and the tests for every kind of part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.contracts.batch import TokenGroup
from core.contracts.generator import Generator
from core.contracts.parts import ActionSpec
from core.episodes.episode import Feature

BATCH = 3
# rounding error of float32 arithmetic, relative to the largest number that is compared
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Setup:
    """The policy around a part under test, as core describes that policy to the part.

    cameras: {camera: (C, Y, X)}.
    text_width: width of the text tokens that a vision encoder may condition on.
    width: width of the backbone.
    vision_width: width of the vision encoder's tokens, which a policy head may read; at most
        `width`.
    proprio_dim: number of dimensions of the proprioception.
    text_prefix: number of tokens at the start of every instruction that must stand before the
        image tokens.
    tokens: number of action tokens that a policy head reads in each frame.
    embodiments: names of the stores that a policy is trained on.
    features: {name: feature}, the named features that a vision encoder or a policy head may read.
    action: window, horizon and dimensions of the actions.
    """

    cameras: Mapping[str, tuple[int, int, int]] = field(
        default_factory=lambda: {"wrist": (3, 32, 32), "static": (3, 48, 64)}
    )
    text_width: int = 16
    width: int = 32
    vision_width: int = 24
    proprio_dim: int = 5
    text_prefix: int = 1
    tokens: int = 2
    embodiments: tuple[str, ...] = ("first", "second")
    features: Mapping[str, Feature] = field(default_factory=dict)
    action: ActionSpec = field(
        default_factory=lambda: ActionSpec(window=3, horizon=4, dim=5, binary=(3,))
    )


@dataclass(frozen=True)
class Check:
    """One contract test; calling it raises AssertionError if the part breaks the contract."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Run the check."""
        self.run()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class PartUnderTest:
    """How to build a part, and how to run the part on the test inputs for its kind of part.

    construct: builds the part.
    run: runs the part; it is called with the part and the floating-point type of the inputs, and
        returns all outputs of the part in one tensor.
    """

    construct: Callable[[], Any]
    run: Callable[[Any, torch.dtype], Tensor]

    def build(self, seed: int = 0) -> Any:
        """Build the part in evaluation mode, without changing the global random state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.construct().eval()


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
        state_dict_round_trip,
        bfloat16_is_finite,
        output_is_repeatable,
        nothing_is_drawn_from_the_global_generator,
    )
    return [
        *(Check(test.__name__, partial(build_and_test, test)) for test in tests),
        *(Check(test.__name__, partial(test, part)) for test in common_tests),
    ]


def gradients_reach_every_parameter(part: PartUnderTest) -> None:
    """Every parameter that requires a gradient gets a gradient that is not zero."""
    module = part.build()
    if not any(parameter.requires_grad for parameter in module.parameters()):
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
        "one that is not zero for every trainable parameter",
        f"none for {without_gradient}",
    )


@torch.no_grad()
def state_dict_round_trip(part: PartUnderTest) -> None:
    """The state dict holds everything that a part has learned."""
    module, other = part.build(seed=0), part.build(seed=1)
    other.load_state_dict(module.state_dict(), strict=True)
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


def expect(holds: bool, what: str, expected: str, received: str) -> None:
    """Raise AssertionError, which says what was expected and received, if `holds` is false."""
    if not holds:
        raise AssertionError(f"{what}: expected {expected}, received {received}")


def expect_shape(x: Tensor, shape: tuple[int | None, ...], what: str) -> None:
    """Check a tensor's shape; None in the expected shape allows every size except zero."""
    is_equal = x.ndim == len(shape) and all(
        n > 0 and n == (m or n) for n, m in zip(x.shape, shape, strict=True)
    )
    text = ", ".join("any" if size is None else str(size) for size in shape)
    expect(is_equal, what, f"shape ({text})", f"{tuple(x.shape)}")


def expect_group(group: TokenGroup, shape: tuple[int | None, ...], what: str) -> None:
    """Check the shapes and types of tokens (... N D) and of their mask (... N)."""
    expect_shape(group.tokens, shape, what)
    expect(
        group.tokens.is_floating_point(), what, "floating-point numbers", str(group.tokens.dtype)
    )
    if group.mask is not None:
        expect_shape(group.mask, tuple(group.tokens.shape[:-1]), f"mask of {what}")
        expect(group.mask.dtype == torch.bool, f"mask of {what}", "bool", str(group.mask.dtype))


def expect_close(received: Tensor, expected: Tensor, what: str) -> None:
    """Check that two tensors agree within the rounding of float32."""
    expect_shape(received, tuple(expected.shape), what)
    scale = max(1.0, float(expected.abs().max()))
    worst = float((received - expected).abs().max()) / scale
    expect(worst <= TOLERANCE, what, f"a difference of at most {TOLERANCE:.0e}", f"{worst:.1e}")


def expect_equal(received: Tensor, expected: Tensor, what: str) -> None:
    """Check that two tensors agree bit by bit."""
    expect_shape(received, tuple(expected.shape), what)
    expect(torch.equal(received, expected), what, "the same numbers", "others")


def generator(rows: Sequence[int] = range(BATCH)) -> Generator:
    """Return a new generator for these rows of a batch; it gives the same numbers every time."""
    return Generator.by_row([(row, 0) for row in rows], torch.device("cpu"))


def features(setup: Setup) -> dict[str, Tensor]:
    """Return random features {name: (B T ...)} with the types that the setup gives."""
    lead = (BATCH, setup.action.window)
    return {
        name: (100 * normal(*lead, *feature.shape, seed=17 + number).abs()).to(
            getattr(torch, feature.dtype)
        )
        for number, (name, feature) in enumerate(sorted(setup.features.items()))
    }


def normal(*shape: int, seed: int) -> Tensor:
    """Return standard normal numbers, without reading or changing the global random state."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def padded(group: TokenGroup) -> Tensor:
    """Return the tokens with padding set to zero, so that only real tokens are compared."""
    return group.tokens if group.mask is None else group.tokens * group.mask.unsqueeze(-1)


def expect_width(part: nn.Module, width: int) -> None:
    """Check that the part's attribute `width` is the width of its output."""
    declared = getattr(part, "width", None)
    expect(declared == width, "width", f"the width of the output, {width}", repr(declared))
