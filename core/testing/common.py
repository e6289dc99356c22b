"""What all contract tests use: the checks themselves, inputs and comparisons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Literal, TypeVar
from unittest import SkipTest

import torch
from torch import Tensor, nn

from core.contracts.batch import TokenGroup
from core.contracts.generator import Generator
from core.contracts.parts import ActionSpec, Backbone
from core.episodes.episode import Feature

T = TypeVar("T")

BATCH = 3
# rounding error of float32 arithmetic, relative to the largest number that is compared
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Setup:
    """The policy around a part under test, as core describes that policy to the part.

    An exporter is given episodes with these cameras, features, and numbers of dimensions.

    cameras: {camera: (C, Y, X)}.
    text_width: width of the text tokens that a vision encoder may condition on.
    width: width of the backbone.
    vision_width: width of the vision encoder's tokens, which a policy head may read; at most
        `width`.
    proprio_dim: number of dimensions of the proprioception.
    text_prefix: number of tokens at the start of every instruction that must stand before the
        image tokens.
    tokens: number of action tokens that a policy head reads in each frame.
    vocabulary: number of tokens that a policy head scores with `context.logits`.
    embodiments: names of the stores that a policy is trained on.
    features: {name: feature}, the named features that a vision encoder or a policy head may read.
    action: window, horizon and dimensions of the actions.
    formulation: whether each frame of a policy head's context is a sequence ("policy_head"), or
        each window ("interleaved"); some checks try both.
    backbone: what computes a policy head's context, in evaluation mode and with the width `width`;
        None: a small backbone of the checks' own, which offers everything.
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
    vocabulary: int = 11
    embodiments: tuple[str, ...] = ("first", "second")
    features: Mapping[str, Feature] = field(default_factory=dict)
    action: ActionSpec = field(
        default_factory=lambda: ActionSpec(window=3, horizon=4, dim=5, binary=(3,))
    )
    formulation: Literal["policy_head", "interleaved"] = "interleaved"
    backbone: Backbone | None = None


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


def first_then(first: Check, others: Sequence[Check]) -> list[Check]:
    """Return all checks; if the first one fails, the others are skipped (unittest.SkipTest).

    So a component that cannot be built fails one check, and not every check for one reason.
    """

    @cache
    def failure() -> Exception | None:
        try:
            first()
        except Exception as error:  # noqa: BLE001 (a plugin can raise anything)
            return error
        return None

    def run_first() -> None:
        if (error := failure()) is not None:
            raise error

    def run(check: Check) -> None:
        if failure() is not None:
            raise SkipTest(f"the check '{first}' fails")
        check()

    return [Check(first.name, run_first), *(Check(c.name, partial(run, c)) for c in others)]


def attempt(what: str, expected: str, call: Callable[[], T]) -> T:
    """Return what `call` returns; if it raises, raise AssertionError with the error's message."""
    try:
        return call()
    except AssertionError:
        raise
    except Exception as error:
        received = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        raise AssertionError(f"{what}: expected {expected}, received {received}") from error


def expect(holds: bool, what: str, expected: str, received: str) -> None:
    """Raise AssertionError, which says what was expected and received, if `holds` is false."""
    if not holds:
        raise AssertionError(f"{what}: expected {expected}, received {received}")


def expect_shape(x: Tensor, shape: tuple[int | None, ...], what: str) -> None:
    """Check a tensor's shape; None in the expected shape allows every size except zero."""
    expect(isinstance(x, Tensor), what, "a tensor", f"a {type(x).__name__}")
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
    expect(isinstance(group, TokenGroup), "output", "a TokenGroup", type(group).__name__)
    return group.tokens if group.mask is None else group.tokens * group.mask.unsqueeze(-1)


def expect_width(part: nn.Module, width: int) -> None:
    """Check that the part's attribute `width` is the width of its output."""
    declared = getattr(part, "width", None)
    expect(declared == width, "width", f"the width of the output, {width}", repr(declared))
