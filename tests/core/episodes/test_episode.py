import re

import numpy as np
import pytest

from core.episodes.episode import ActionConvention
from core.errors import DataError

CONVENTION = ActionConvention(
    ("x", "y"), mode="delta", frame="world", rotation="none", scale=(0.02, 0.02), rate=10.0
)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 2)])
def test_an_action_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        DataError, match=re.escape(f"an action of shape {shape}: expected (2,), x, y")
    ):
        CONVENTION.check(np.zeros(shape))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(DataError, match="an action that is not finite"):
        CONVENTION.check(np.array([0.5, number], np.float32))


@pytest.mark.parametrize("action", [np.zeros(2, np.float32), [1e9, -1e9]])
def test_an_action_beyond_the_limits_is_the_environments_matter(action: np.ndarray) -> None:
    CONVENTION.check(action)
