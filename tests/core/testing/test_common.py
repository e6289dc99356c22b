"""What the contract tests share: which checks a part gets, and how outputs are compared."""

from unittest import SkipTest

import pytest
import torch

from core import TokenGroup
from core.testing import Setup, checks_for
from core.testing.common import (
    Check,
    attempt,
    expect_close,
    expect_equal,
    expect_group,
    expect_shape,
    first_then,
    normal,
)
from tests.core.testing.failing import failures
from tests.core.testing.test_policy_head import Head


def test_a_kind_without_checks_is_an_error():
    with pytest.raises(
        ValueError, match="no checks for a 'policy_heads'; there are checks for vision_encoder"
    ):
        checks_for("policy_heads", Head, None)


def test_the_setup_reaches_the_part():
    widths = []

    def build(config, *, context, action):
        widths.append(context.width)
        return Head(config, context=context, action=action)

    for check in checks_for("policy_head", build, None, Setup(width=12, tokens=1)):
        check()
    assert set(widths) == {12}


def test_checks_leave_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    failures("policy_head", Head)
    assert torch.equal(torch.rand(4), expected)


def test_the_others_are_skipped_if_the_first_check_fails():
    calls = []

    def fail():
        calls.append("first")
        raise AssertionError("no")

    first, other = first_then(Check("first", fail), [Check("other", lambda: calls.append("other"))])
    with pytest.raises(SkipTest, match="the check 'first' fails"):
        other()
    for _ in range(2):
        with pytest.raises(AssertionError, match="no"):
            first()
    assert calls == ["first"]


def test_the_others_run_if_the_first_check_holds():
    calls = []
    checks = first_then(
        Check("first", lambda: calls.append("first")),
        [Check("other", lambda: calls.append("other"))],
    )
    for check in reversed(checks):
        check()
    assert calls == ["first", "other"]
    assert [str(check) for check in checks] == ["first", "other"]


def test_an_error_becomes_a_line_with_its_cause():
    with pytest.raises(AssertionError) as caught:
        attempt("x", "a number", lambda: 1 / 0)
    assert str(caught.value) == "x: expected a number, received ZeroDivisionError: division by zero"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert attempt("x", "a number", lambda: 3) == 3


def test_a_check_shows_its_name():
    assert str(Check("shape_is_kept", lambda: None)) == "shape_is_kept"


@pytest.mark.parametrize(
    ("shape", "holds"),
    [
        ((2, 3), True),
        ((2, None), True),
        ((2, 4), False),
        ((2, 3, 1), False),
    ],
)
def test_a_shape_may_leave_sizes_open(shape, holds):
    if holds:
        expect_shape(torch.zeros(2, 3), shape, "x")
    else:
        with pytest.raises(AssertionError, match=r"x: expected shape \(.*\), received \(2, 3\)"):
            expect_shape(torch.zeros(2, 3), shape, "x")


def test_an_open_size_is_not_zero():
    with pytest.raises(AssertionError, match=r"expected shape \(2, any\), received \(2, 0\)"):
        expect_shape(torch.zeros(2, 0), (2, None), "x")


def test_numbers_may_differ_by_rounding_relative_to_the_largest():
    x = 1000 * torch.ones(3)
    expect_close(x + 5e-3, x, "x")
    with pytest.raises(AssertionError, match="a difference of at most 1e-05"):
        expect_close(x + 5e-2, x, "x")
    with pytest.raises(AssertionError, match="the same numbers"):
        expect_equal(x + 5e-3, x, "x")


def test_nan_is_not_close_to_anything():
    with pytest.raises(AssertionError):
        expect_close(torch.full((2,), torch.nan), torch.zeros(2), "x")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (TokenGroup(torch.zeros(2, 3, 4).long()), "floating-point numbers"),
        (TokenGroup(torch.zeros(2, 3, 4), torch.ones(2, 2).bool()), "mask of x"),
        (TokenGroup(torch.zeros(2, 3, 4), torch.ones(2, 3)), "mask of x: expected bool"),
    ],
)
def test_a_group_that_does_not_fit_its_mask_or_type_fails(group, message):
    with pytest.raises(AssertionError, match=message):
        expect_group(group, (2, None, 4), "x")


def test_normal_numbers_follow_from_their_seed_alone():
    assert torch.equal(normal(2, 3, seed=1), normal(2, 3, seed=1))
    assert not torch.equal(normal(2, 3, seed=1), normal(2, 3, seed=2))
