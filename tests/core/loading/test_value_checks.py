"""A recipe's normalisation beside the values that the data have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.episodes.episode import Episode, StoreInfo
from core.episodes.normalization import Method, Normalizer, ProprioNormalizer
from core.loading.dataset import Dataset
from core.loading.value_checks import doubtful_normalization, meaningless_normalization
from core.loading.view import StoreView
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import make_info

RANDOM = np.random.default_rng(0)
LENGTH = 400


def dataset(path: Path, actions: np.ndarray, method: Method, **settings: object) -> Dataset:
    """A dataset with these actions, which are the proprioception, too."""
    names = ("x", "y", "z", "gripper")
    info: StoreInfo = replace(make_info(("front",), size=16), proprio=names)
    images = np.zeros((LENGTH, 16, 16, 3), np.uint8)
    numbers = actions.astype(np.float32)
    with StoreWriter(path, info) as writer:
        writer.append(Episode("0", "reach", "reach", {"front": images}, numbers, numbers))
    view = StoreView.plain(EpisodeStore(path))
    statistics = view.statistics
    return Dataset(
        view,
        Normalizer.fit(statistics["action"], info.action, method, **settings),  # type: ignore[arg-type]
        ProprioNormalizer.fit(statistics["proprio"]),
    )


def actions() -> np.ndarray:
    """Three dimensions in [-1, 1], and a gripper that opens and closes."""
    numbers = RANDOM.uniform(-1, 1, (LENGTH, 4))
    numbers[:, 3] = np.where(np.arange(LENGTH) % 50 < 25, -1.0, 1.0)
    return numbers


@pytest.mark.parametrize("method", ["none", "clip_range", "min_max", "quantile", "mean_std"])
def test_sound_values_are_not_doubted(tmp_path: Path, method: Method) -> None:
    data = dataset(tmp_path / "a.zarr", actions(), method)
    assert [*meaningless_normalization(data), *doubtful_normalization(data)] == []


def test_a_range_that_clips_most_values_has_no_meaning(tmp_path: Path) -> None:
    numbers = actions()
    numbers[:, 1] *= 90
    data = dataset(tmp_path / "a.zarr", numbers, "clip_range")
    (line,) = meaningless_normalization(data)
    assert "clip_range would clip 99% of action y, which reaches from -8" in line
    assert 'choose "quantile_clipped", or set action.clip_range' in line
    wide = dataset(tmp_path / "b.zarr", numbers, "clip_range", clip_range=(-90.0, 90.0))
    assert [*meaningless_normalization(wide), *doubtful_normalization(wide)] == []


def test_a_range_that_clips_many_values_is_doubted(tmp_path: Path) -> None:
    data = dataset(tmp_path / "a.zarr", actions(), "clip_range", clip_range=(-0.8, 0.8))
    assert [*meaningless_normalization(data)] == []
    lines = [*doubtful_normalization(data)]
    assert [line.partition(" of ")[2][:9] for line in lines] == [
        "action x,",
        "action y,",
        "action z,",
    ]


def test_outliers_squeeze_the_usual_values(tmp_path: Path) -> None:
    numbers = actions()
    numbers[7, 2] = 1_000
    (line,) = doubtful_normalization(dataset(tmp_path / "a.zarr", numbers, "min_max"))
    assert "98 % of action z fill only 0.2% of [-1, 1]" in line
    assert [
        *doubtful_normalization(dataset(tmp_path / "b.zarr", numbers, "quantile_clipped"))
    ] == []


def test_outliers_are_huge_targets_without_clipping(tmp_path: Path) -> None:
    numbers = actions()
    numbers[7, 2] = 1_000
    (line,) = doubtful_normalization(dataset(tmp_path / "a.zarr", numbers, "quantile"))
    assert "with quantile, outliers of action z are 1,0" in line
    assert 'choose "quantile_clipped"' in line


def test_noise_is_not_to_be_stretched(tmp_path: Path) -> None:
    numbers = actions()
    numbers[:, 0] = 3 + RANDOM.normal(0, 1e-5, LENGTH)
    action, proprio = doubtful_normalization(dataset(tmp_path / "a.zarr", numbers, "quantile"))
    assert action.startswith("action x hardly changes, and normalisation stretches it ")
    assert "name it in action.constant" in action
    assert "name it in data.constant_proprio" in proprio
    calm = dataset(tmp_path / "b.zarr", numbers, "quantile", constant=[0])
    (line,) = doubtful_normalization(calm)
    assert line == proprio
    normalized = calm.action_normalizer.normalize(numbers.astype(np.float32))
    assert np.abs(normalized[:, 0]).max() < 1e-3
    back = calm.action_normalizer.unnormalize(normalized)
    np.testing.assert_allclose(back[:, 0], numbers[:, 0], atol=1e-5)
