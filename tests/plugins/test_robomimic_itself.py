"""Files that Joinery wrote, read by robomimic's own dataset class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugins.datasets.robomimic import RobomimicWriter, RobomimicWriterConfig
from tests.factories import make_episodes, make_info

HOW = "(pip install --no-deps robomimic termcolor: .ci/run does)"
pytest.importorskip("h5py", reason="needs h5py (pip install -e '.[robomimic]')")
robomimic = pytest.importorskip("robomimic.utils.dataset", reason=f"needs robomimic {HOW}")
modalities = pytest.importorskip("robomimic.utils.obs_utils")

INFO = make_info()
EPISODES = make_episodes(4, INFO)
KEYS = ("front", "wrist", "proprio")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("robomimic") / "out.hdf5"
    writer = RobomimicWriter(
        RobomimicWriterConfig(next_obs=True, validation_episodes=1), info=INFO, out=path
    )
    for episode in EPISODES:
        writer.append(episode)
    writer.finish()
    return path


def load(path: Path, **settings: Any) -> Any:
    modalities.initialize_obs_modality_mapping_from_dict(
        {"rgb": ["front", "wrist"], "low_dim": ["proprio"]}
    )
    datasets = ("actions", "rewards", "dones")
    return robomimic.SequenceDataset(
        str(path), obs_keys=KEYS, dataset_keys=datasets, seq_length=2, **settings
    )


@pytest.mark.parametrize("cache", ["all", "low_dim", None])
def test_robomimic_reads_every_step(path: Path, cache: str | None) -> None:
    dataset = load(path, hdf5_cache_mode=cache)
    steps = [(episode, t) for episode in EPISODES for t in range(len(episode))]
    assert len(dataset) == len(steps)
    for index, (episode, t) in enumerate(steps):
        # sequences of two frames, in which the last frame is repeated
        item, next_t = dataset[index], min(t + 1, len(episode) - 1)
        np.testing.assert_array_equal(item["actions"], episode.actions[[t, next_t]])
        np.testing.assert_array_equal(item["obs"]["proprio"], episode.proprio[[t, next_t]])
        np.testing.assert_array_equal(item["next_obs"]["proprio"][0], episode.proprio[next_t])
        for camera, frames in episode.images.items():
            np.testing.assert_array_equal(item["obs"][camera], frames[[t, next_t]])
            np.testing.assert_array_equal(item["next_obs"][camera][0], frames[next_t])
        assert item["dones"].tolist() == [t == len(episode) - 1, next_t == len(episode) - 1]
        assert not item["rewards"].any()


def test_robomimic_finds_the_masks(path: Path) -> None:
    assert load(path, filter_by_attribute="valid").demos == ["demo_2", "demo_3"]
    assert load(path, filter_by_attribute="train").demos == ["demo_0", "demo_1"]
