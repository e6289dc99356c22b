"""Random numbers as an argument: a row's are its own, a batch's are those of its key."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from core import Generator
from core.contracts.generator import TRAINING, VALIDATION

CPU = torch.device("cpu")
KEYS = st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 10_000)), min_size=1, max_size=5)


@given(KEYS, st.integers(0, 4))
def test_a_rows_numbers_depend_on_nothing_but_its_key(keys, row):
    row %= len(keys)
    together, alone = Generator.by_row(keys, CPU), Generator.by_row([keys[row]], CPU)
    # Each draw continues the stream of the row.
    for draw in ("normal", "uniform", "normal"):
        expected = getattr(together, draw)(len(keys), 3, 2)[row]
        assert torch.equal(getattr(alone, draw)(1, 3, 2)[0], expected)


@given(KEYS)
def test_other_seeds_and_steps_give_other_numbers(keys):
    drawn = {key: Generator.by_row([key], CPU).normal(1, 4).numpy().tobytes() for key in keys}
    assert len(set(drawn.values())) == len(set(keys))


def test_a_rows_numbers_are_those_of_philox():
    drawn = Generator.by_row([(7, 3)], CPU).normal(1, 5)
    expected = np.random.Generator(
        np.random.Philox(key=np.array([7, 3], np.uint64))
    ).standard_normal(5, np.float32)
    np.testing.assert_array_equal(drawn[0].numpy(), expected)


def test_numbers_are_spread_as_they_should_be():
    for generator in (
        Generator.shared((1,), CPU),
        Generator.by_row([(i, 0) for i in range(100)], CPU),
    ):
        normal, uniform = generator.normal(100, 1000), generator.uniform(100, 1000)
        assert abs(float(normal.mean())) < 0.02
        assert abs(float(normal.std()) - 1) < 0.02
        assert 0 <= float(uniform.min()) < 0.001 < 0.999 < float(uniform.max()) < 1
        assert normal.dtype == uniform.dtype == torch.float32


def test_a_batchs_numbers_are_a_function_of_its_key():
    first, again, other = (
        Generator.shared(key, CPU).normal(3, 2) for key in ((1, 2), (1, 2), (1, 3))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert TRAINING != VALIDATION


def test_nothing_is_drawn_from_or_left_in_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Generator.shared((1,), CPU).normal(2, 2)
    Generator.by_row([(1, 1)], CPU).uniform(1, 2)
    assert torch.equal(torch.rand(3), expected)


def test_a_draw_that_does_not_begin_with_the_rows_is_refused():
    with pytest.raises(
        ValueError, match=r"expected 2 rows as the first size of a draw, got 6; draw \(rows, frames"
    ):
        Generator.by_row([(0, 0), (1, 0)], CPU).normal(6, 3)
