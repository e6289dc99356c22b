"""What the contract tests share: their inputs, their comparisons, and the checks that hold for
every kind of part.
"""

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
TOLERANCE = 1e-5  # of float32 arithmetic, relative to the largest number that is compared


@dataclass(frozen=True)
class Given:
    """What core tells a part when it builds it.

    cameras: (C, Y, X) by name.
    text_width: of the text tokens that a vision encoder may condition on.
    width: of the backbone.
    vision_width: of the vision tokens that a policy head may read before the backbone; at most
    `width`.
    proprio_dim: numbers of proprioception per frame.
    text_prefix: words of every instruction that stand before the images.
    tokens: action tokens per frame that a policy head reads.
    embodiments: names of the stores that a policy is trained on.
    features: what a vision encoder or a policy head may read beside, by name.
    action: window, horizon and dimensions.
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
    """One contract test: call it; it raises AssertionError where the part breaks the contract."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Run the check."""
        self.run()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Subject:
    """A part under test: how it is made, and how it runs on the inputs of its kind in some
    floating-point type.
    """

    make: Callable[[], Any]
    run: Callable[[Any, torch.dtype], Tensor]

    def build(self, seed: int = 0) -> Any:
        """Make the part in evaluation mode, without touching the caller's random numbers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().eval()


def checks_of_every_part(subject: Subject) -> list[Check]:
    """Return the checks that do not depend on the kind."""
    checks = (
        gradients_reach_every_parameter,
        state_dict_round_trip,
        bfloat16_is_finite,
        output_is_repeatable,
        nothing_is_drawn_from_the_global_generator,
    )
    return [Check(check.__name__, partial(check, subject)) for check in checks]


def gradients_reach_every_parameter(subject: Subject) -> None:
    """Training moves every parameter that asks for it."""
    part = subject.build()
    if not any(parameter.requires_grad for parameter in part.parameters()):
        return
    with torch.no_grad():  # away from zeros at the start, behind which no gradient passes yet
        for index, parameter in enumerate(part.parameters()):
            parameter += 0.02 * normal(*parameter.shape, seed=index).to(parameter.dtype)
    output = subject.run(part, torch.float32)
    torch.autograd.backward((output * normal(*output.shape, seed=1)).sum())
    dead = [
        name
        for name, p in part.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    expect(
        not dead,
        "gradients",
        "one that is not zero for every trainable parameter",
        f"none for {dead}",
    )


def state_dict_round_trip(subject: Subject) -> None:
    """Everything that a part learned is in its state dict, and nothing else is needed."""
    part, other = subject.build(seed=0), subject.build(seed=1)
    other.load_state_dict(part.state_dict(), strict=True)
    with torch.no_grad():
        expected, received = subject.run(part, torch.float32), subject.run(other, torch.float32)
    expect_equal(received, expected, "output after loading the state dict of another instance")


def bfloat16_is_finite(subject: Subject) -> None:
    """A part runs when its weights and inputs are bfloat16."""
    with torch.no_grad():
        output = subject.run(subject.build().to(torch.bfloat16), torch.bfloat16)
    expect(
        bool(output.isfinite().all()), "output in bfloat16", "finite numbers", "infinities or NaN"
    )


def output_is_repeatable(subject: Subject) -> None:
    """A part keeps nothing from one call to the next, and one seed builds one network."""
    part = subject.build()
    with torch.no_grad():
        first, again = subject.run(part, torch.float32), subject.run(part, torch.float32)
        rebuilt = subject.run(subject.build(), torch.float32)
    expect_equal(again, first, "output of a second call")
    expect_equal(rebuilt, first, "output of a part built again from the same seed")


def nothing_is_drawn_from_the_global_generator(subject: Subject) -> None:
    """A part that needs random numbers takes them from the generator that it is given."""
    part = subject.build()
    outputs = []
    for seed in (0, 1):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            outputs.append(subject.run(part, torch.float32))
    expect_equal(
        outputs[1],
        outputs[0],
        "output after another torch.manual_seed: draw from the generator argument",
    )


def expect(holds: bool, what: str, expected: str, received: str) -> None:
    """Raise AssertionError unless it holds."""
    if not holds:
        raise AssertionError(f"{what}: expected {expected}, received {received}")


def expect_shape(x: Tensor, shape: tuple[int | None, ...], what: str) -> None:
    """Compare a shape; None stands for any size but zero."""
    same = x.ndim == len(shape) and all(
        n > 0 and n == (m or n) for n, m in zip(x.shape, shape, strict=True)
    )
    shown = ", ".join("any" if size is None else str(size) for size in shape)
    expect(same, what, f"shape ({shown})", f"{tuple(x.shape)}")


def expect_group(group: TokenGroup, shape: tuple[int | None, ...], what: str) -> None:
    """Check the tokens (... N D) and their mask (... N)."""
    expect_shape(group.tokens, shape, what)
    expect(
        group.tokens.is_floating_point(), what, "floating-point numbers", str(group.tokens.dtype)
    )
    if group.mask is not None:
        expect_shape(group.mask, tuple(group.tokens.shape[:-1]), f"mask of {what}")
        expect(group.mask.dtype == torch.bool, f"mask of {what}", "bool", str(group.mask.dtype))


def expect_close(received: Tensor, expected: Tensor, what: str) -> None:
    """Compare within the rounding of float32."""
    expect_shape(received, tuple(expected.shape), what)
    scale = max(1.0, float(expected.abs().max()))
    worst = float((received - expected).abs().max()) / scale
    expect(worst <= TOLERANCE, what, f"a difference of at most {TOLERANCE:.0e}", f"{worst:.1e}")


def expect_equal(received: Tensor, expected: Tensor, what: str) -> None:
    """Compare bit by bit."""
    expect_shape(received, tuple(expected.shape), what)
    expect(torch.equal(received, expected), what, "the same numbers", "others")


def generator(rows: Sequence[int] = range(BATCH)) -> Generator:
    """A fresh generator for rows of a batch, the same numbers every time."""
    return Generator.by_row([(row, 0) for row in rows], torch.device("cpu"))


def features(given: Given) -> dict[str, Tensor]:
    """Random features {name: (B T ...)} in the types in which they are recorded."""
    lead = (BATCH, given.action.window)
    return {
        name: (100 * normal(*lead, *feature.shape, seed=17 + number).abs()).to(
            getattr(torch, feature.dtype)
        )
        for number, (name, feature) in enumerate(sorted(given.features.items()))
    }


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers that do not depend on, nor change, the global random state."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def padded(group: TokenGroup) -> Tensor:
    """Return the tokens with padding set to zero: what the padding holds is nobody's business."""
    return group.tokens if group.mask is None else group.tokens * group.mask.unsqueeze(-1)


def expect_width(part: nn.Module, width: int) -> None:
    """Check that the part declares the width of its output."""
    declared = getattr(part, "width", None)
    expect(declared == width, "width", f"the width of the output, {width}", repr(declared))
