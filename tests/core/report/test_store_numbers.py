"""The numbers of a store, by feature."""

import numpy as np

from core.report.store_numbers import names_by_feature, read_numbers
from core.store.store import EpisodeStore


def test_names_and_numbers_belong_together(store: EpisodeStore) -> None:
    names, numbers = names_by_feature(store.info), read_numbers(store, 1)
    assert list(names) == list(numbers) == ["action", "proprio"]
    length = int(store.length[1])
    for feature in names:
        assert numbers[feature].shape == (length, len(names[feature]))
    np.testing.assert_array_equal(numbers["proprio"], store.proprio(1, 0, length))
