"""The numbers of a store, by feature."""

import numpy as np

from core.report.store_numbers import has_outliers, names_by_feature, read_numbers
from core.store.store import EpisodeStore


def test_names_and_numbers_belong_together(store: EpisodeStore) -> None:
    names, numbers = names_by_feature(store.info), read_numbers(store, 1)
    assert list(names) == list(numbers) == ["action", "proprio"]
    length = int(store.length[1])
    for feature in names:
        assert numbers[feature].shape == (length, len(names[feature]))
    np.testing.assert_array_equal(numbers["proprio"], store.proprio(1, 0, length))


def test_outliers_lie_more_than_five_spans_away() -> None:
    assert has_outliers(0, 0, 1, 6.1)
    assert has_outliers(-5.1, 0, 1, 1)
    assert not has_outliers(-5, 0, 1, 6)
    assert not has_outliers(0, 1, 1, 9)  # a dimension that hardly ever changes has no span
