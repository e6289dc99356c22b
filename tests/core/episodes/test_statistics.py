import numpy as np
from hypothesis import given, settings, strategies as st

from core.episodes.statistics import GRID, Statistics


def test_statistics_of_one_array_equal_numpy() -> None:
    array = np.random.default_rng(0).normal(3, 2, (500, 3)).astype(np.float32)
    statistics, exact = Statistics.of(array), array.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, exact.mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.std, exact.std(0), rtol=1e-13)
    np.testing.assert_array_equal(statistics.min, exact.min(0))
    np.testing.assert_array_equal(statistics.max, exact.max(0))
    np.testing.assert_allclose(
        statistics.quantile(0.01), np.quantile(exact, 0.01, axis=0), rtol=1e-12
    )


@settings(deadline=None)  # the first example pays for what is imported
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 99))
def test_merging_equals_the_whole(lengths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    sets = [random.normal(random.normal(0, 5), random.uniform(0.1, 3), (n, 2)) for n in lengths]
    merged, whole = Statistics.merge([Statistics.of(rows) for rows in sets]), np.concatenate(sets)
    assert merged.count == len(whole)
    np.testing.assert_allclose(merged.mean, whole.mean(0), atol=1e-12)
    np.testing.assert_allclose(merged.std, whole.std(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(merged.min, whole.min(0))
    np.testing.assert_array_equal(merged.max, whole.max(0))


def test_merged_quantiles_are_off_by_a_step_of_the_grid_at_most() -> None:
    random = np.random.default_rng(1)
    sets = [random.normal(shift, 1, (n, 1)) for shift, n in ((-4, 3000), (0, 500), (9, 6000))]
    merged, whole = (
        Statistics.merge([Statistics.of(rows) for rows in sets]),
        np.sort(np.concatenate(sets)[:, 0]),
    )
    for q in (0.01, 0.1, 0.5, 0.9, 0.99):
        rank = np.searchsorted(whole, merged.quantile(q)[0]) / len(whole)
        assert abs(rank - q) <= GRID[1]


def test_a_two_state_dimension_keeps_its_two_values() -> None:
    sets = [np.repeat([[-1.0], [1.0]], n, axis=0) for n in ([90, 10], [30, 70])]
    merged = Statistics.merge([Statistics.of(rows) for rows in sets])
    assert (
        sum(-1 < value < 1 for value in merged.quantiles[0]) <= 3
    )  # interpolated, where the step lies
    assert merged.quantile(0.5)[0] == -1.0  # 120 of 200
    assert merged.quantile(0.7)[0] == 1.0


def test_a_constant_far_from_zero_has_no_deviation() -> None:
    array = np.full((1000, 1), 12345.678, np.float32)
    halves = Statistics.merge([Statistics.of(array[:400]), Statistics.of(array[400:])])
    assert halves.std[0] == 0.0


def test_merging_one_changes_nothing() -> None:
    statistics = Statistics.of(np.random.default_rng(2).normal(size=(50, 2)))
    merged = Statistics.merge([statistics])
    np.testing.assert_allclose(merged.quantiles, statistics.quantiles, rtol=1e-12)


def test_no_dimensions_are_fine() -> None:
    assert Statistics.merge([Statistics.of(np.zeros((5, 0), np.float32))] * 2).dim == 0


def test_scattered_dimensions_stand_at_their_columns_and_the_rest_is_zero() -> None:
    array = np.random.default_rng(3).normal(size=(40, 2))
    scattered = Statistics.of(array).scatter([3, 1], width=4)
    wide = np.zeros((40, 4))
    wide[:, [3, 1]] = array
    expected = Statistics.of(wide)
    assert scattered.count == expected.count
    np.testing.assert_allclose(scattered.mean, expected.mean, atol=1e-15)
    np.testing.assert_allclose(scattered.std, expected.std, atol=1e-15)
    np.testing.assert_allclose(scattered.quantiles, expected.quantiles, atol=1e-15)
