"""Statistics of many rows in little memory, and of images by their histograms."""

import numpy as np
import pytest

from plugins.datasets.lerobot import statistics
from plugins.datasets.lerobot.statistics import Histogram, RunningStatistics

pytest.importorskip("PIL")


def test_statistics_of_many_rows_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ROWS", 500)
    monkeypatch.setattr(statistics, "BLOCKS", 5)
    random, running, everything = np.random.default_rng(0), RunningStatistics(), []
    for _ in range(400):
        everything.append(random.normal(size=(20, 2)))
        running.add(everything[-1])
        assert len(running.all_blocks()) <= 5
    rows, found = np.concatenate(everything), running.statistics()
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.std, rows.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal([found.min, found.max], [rows.min(axis=0), rows.max(axis=0)])
    for q in (0.01, 0.1, 0.5, 0.9, 0.99):
        np.testing.assert_allclose(found.quantile(q), np.quantile(rows, q, axis=0), atol=0.05)


def test_histograms_of_images_give_exact_statistics() -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 200, (7, 5, 6, 3), dtype=np.uint8)
    summary = (Histogram.of(frames[:3]) + Histogram.of(frames[3:])).summary()
    values = frames.reshape(-1, 3) / 255
    assert summary["count"] == [7]
    for name, function in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        expected = function(values, axis=0).reshape(3, 1, 1)
        np.testing.assert_allclose(summary[name], expected, rtol=1e-12)
    median = np.quantile(values, 0.5, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(summary["q50"], median.reshape(3, 1, 1), rtol=1e-12)
