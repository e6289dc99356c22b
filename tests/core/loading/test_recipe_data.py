import numpy as np
import pytest

from core.episodes.normalization import Normalizer
from core.loading.recipe_data import action_spec
from tests.core.episodes.test_normalization import ACTIONS, BINARY, METHODS, STATISTICS


@pytest.mark.parametrize("method", METHODS)
def test_the_spec_says_what_is_binary_and_bounded(method: str) -> None:
    normalizer = Normalizer.fit(STATISTICS, BINARY, method)
    spec = action_spec(normalizer, window=8, horizon=10)
    assert (spec.window, spec.horizon, spec.dim, spec.binary) == (8, 10, 4, (3,))
    assert spec.bounded == (method in ("clip_range", "min_max"))
    assert spec.bounded == (np.abs(normalizer.normalize(3 * ACTIONS)).max() <= 1)
