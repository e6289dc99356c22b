"""From a recipe to its datasets, mixtures and loaders, and what is refused on the way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.episodes.normalization import Normalizer
from core.errors import ConfigError, DataError
from core.loading.opening import open_data
from core.loading.training_data import TrainingData, action_spec
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.core.episodes.test_normalization import ACTIONS, BINARY, METHODS, STATISTICS
from tests.core.recipe.test_recipe import MINIMAL
from tests.factories import (
    MOVING,
    STILL,
    make_episodes,
    make_info,
    make_store,
    with_actions,
)


def opened(folder: Path, data: str, *overrides: str) -> TrainingData:
    """Open the data of a small recipe whose [data] holds these lines."""
    path = folder / "recipe.toml"
    path.write_text(MINIMAL.replace('path = "episodes.zarr"', data), encoding="utf-8")
    return open_data(load_recipe(path, overrides, load_plugins()))


def two_stores(stores: list[EpisodeStore]) -> str:
    first, second = (store.path for store in stores)
    return f"""
window = 2
[[data.stores]]
path = "{first}"
name = "ours"
weight = 3.0
[[data.stores]]
path = "{second}"
name = "lab"
weight = 1.0
cameras = {{ {STILL} = "side" }}
actions = {{ gripper = "grip" }}
"""


def test_a_store_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.path: .*gone\.zarr: no episode store here"):
        opened(tmp_path, 'path = "gone.zarr"')
    store = make_store(tmp_path / "here.zarr", 2)
    stores = f"""[[data.stores]]\npath = "{store.path}"\n[[data.stores]]\npath = "gone.zarr"\n"""
    with pytest.raises(DataError, match=r"^data\.stores\.1\.path: .*gone\.zarr: no episode store"):
        opened(tmp_path, stores)


@pytest.mark.parametrize("method", METHODS)
def test_the_spec_says_what_is_binary_and_bounded(method: str) -> None:
    normalizer = Normalizer.fit(STATISTICS, BINARY, method)
    spec = action_spec(normalizer, window=8, horizon=10)
    assert (spec.window, spec.horizon, spec.dim, spec.binary) == (8, 10, 4, (3,))
    assert spec.bounded == (method in ("clip_range", "min_max", "quantile_clipped"))
    assert spec.bounded == (np.abs(normalizer.normalize(3 * ACTIONS)).max() <= 1)


def test_one_store_is_a_dataset_without_a_label(stores: list[EpisodeStore], tmp_path: Path) -> None:
    data = opened(tmp_path, f'path = "{stores[0].path}"')
    assert data.embodiments == ("",)
    assert data.task_of() == {
        stores[0].episode_id(episode): stores[0].task_name(episode) for episode in range(6)
    }
    training, validation = data.loaders(lambda text: [1], 4, torch.device("cpu"))
    assert training.mixture is data.training
    assert validation.mixture is data.validation


def test_training_and_held_out_windows_share_no_episode(
    stores: list[EpisodeStore], tmp_path: Path
) -> None:
    data = opened(tmp_path, f'path = "{stores[0].path}"', "data.window=3")
    (training,), (held_out,) = data.training.members, data.validation.members
    assert set(training.windows.episodes) == {0, 1, 2, 3}
    assert set(held_out.windows.episodes) == {4, 5}
    assert (training.windows.stride, held_out.windows.stride) == (1, 3)


def test_in_episodes_windows_do_not_overlap_and_weights_count_episodes(
    stores: list[EpisodeStore], tmp_path: Path
) -> None:
    data = opened(tmp_path, two_stores(stores), "data.sampling=episodes")
    assert [member.windows.stride for member in data.training.members] == [2, 2]
    loaders = data.loaders(lambda text: [1], 4, torch.device("cpu"))
    for loader, mixture in zip(loaders, (data.training, data.validation), strict=True):
        episodes = [set(member.windows.episodes.tolist()) for member in mixture.members]
        drawn = loader.mixture.members
        assert [set(member.windows.episodes.tolist()) for member in drawn] == episodes
        assert [len(member.windows) for member in drawn] == [len(chosen) for chosen in episodes]
    shares = loaders[0].mixture.shares
    ours, lab = data.describe()
    assert ours.startswith(f"ours: {shares[0] / sum(shares):.1%} of the episodes")
    assert lab.startswith(f"lab: {shares[1] / sum(shares):.1%} of the episodes")
    frames = sum(int(batch.action_mask[:, :, 0, 0].sum()) for batch in loaders[1].once())  # type: ignore[index]
    held_out = [member.windows for member in data.validation.members]
    assert frames == sum(int(w.store.length[w.episodes].sum()) for w in held_out)


def test_several_stores_are_weighed_and_described(
    stores: list[EpisodeStore], tmp_path: Path
) -> None:
    data = opened(tmp_path, two_stores(stores))
    assert data.embodiments == ("ours", "lab")
    assert {name.partition("/")[0] for name in data.task_of()} == {"ours", "lab"}
    ours, lab = data.describe()
    share = data.training.shares[0] / len(data.training)
    assert share == pytest.approx(0.75, abs=1 / len(data.training))
    assert ours == f"ours: {share:.1%} of the samples; no action w"
    assert lab == (
        f"lab: {1 - share:.1%} of the samples; no camera {MOVING}; no proprioception p2; "
        "actions converted"
    )


def test_every_disagreement_of_recipe_and_stores_is_said(
    stores: list[EpisodeStore], tmp_path: Path
) -> None:
    text = two_stores(stores).replace('"side"', '"sid"')
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, text, f"data.cameras=['{STILL}', 'top']", "data.features=['depth']")
    mistakes = caught.value.mistakes
    assert len(mistakes) == 3
    assert mistakes[0].startswith("data.stores, 'lab': cameras: no camera 'sid'")
    assert mistakes[1].startswith("data.cameras: no camera 'top'")
    assert mistakes[2].startswith("data.features: no feature 'depth'")


def test_a_range_that_clips_nearly_everything_is_refused(tmp_path: Path) -> None:
    """Joint positions in degrees, beside a range of [-1, 1]."""
    info = make_info()
    scale = np.array([90, 90, 90, 1], np.float32)
    with StoreWriter(tmp_path / "store.zarr", info) as writer:
        for episode in make_episodes(4, info):
            writer.append(with_actions(episode, episode.actions * scale))
    data = f'path = "{tmp_path / "store.zarr"}"'
    with pytest.raises(ConfigError, match=r"clip_range would clip \d+% of action x") as failed:
        opened(tmp_path, data, "action.normalization=clip_range")
    assert len(failed.value.mistakes) == 3
    # both ways out that it names
    opened(tmp_path, data, "action.normalization=quantile_clipped")
    opened(tmp_path, data, "action.normalization=clip_range", "action.clip_range=[-300.0, 300.0]")


def test_units_that_cannot_be_are_doubted_before_training(tmp_path: Path) -> None:
    info = make_info()
    grippers = (replace(info.action.grippers[0], closed=10.0, open=20.0),)
    action = replace(info.action, frame="joint", scale=(90.0, 1.0, 1.0, 1.0), grippers=grippers)
    make_store(tmp_path / "store.zarr", info=replace(info, action=action, assumed={"frame": "why"}))
    doubts = [*opened(tmp_path, f'path = "{tmp_path / "store.zarr"}"').doubts()]
    assert doubts[0] == "warning: assumed: frame; joinery show says why"
    assert doubts[1].startswith("warning: action x reaches ")
    assert "turns; if the data are in degrees" in doubts[1]
    assert doubts[2].startswith("warning: action gripper reaches from -1 to 1, and as a gripper")
    assert doubts[2].endswith("joinery edit corrects it")


def test_actions_that_the_recipe_does_not_expect_are_refused(
    stores: list[EpisodeStore], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, f'path = "{stores[0].path}"', "action.mode=absolute", "action.rate=7.0")
    where = f"(store {stores[0].path})"
    recorded = stores[0].info.action
    way = "correct the recipe, or what is wrong in the store with joinery edit"
    assert caught.value.mistakes == [
        "action.mode: the recipe expects 'absolute', the store's actions are 'delta'; "
        f"{way} {where}",
        f"action.rate: the recipe expects 7.0, the store's actions are {recorded.rate}; {way} "
        f"{where}",
    ]
