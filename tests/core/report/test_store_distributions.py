"""How the values of each dimension are counted, and in which unit they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from core.episodes.episode import Episode
from core.report import store_distributions
from core.report.store_distributions import (
    BINS,
    UNKNOWN_UNIT,
    action_units,
    measure_dimensions,
)
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import make_episodes, make_info, make_store


def store_of(path: Path, episodes: list[Episode]) -> EpisodeStore:
    with StoreWriter(path, make_info()) as writer:
        for episode in episodes:
            writer.append(episode)
    return EpisodeStore(path)


def all_numbers(store: EpisodeStore, feature: str) -> np.ndarray:
    read = store.actions if feature == "action" else store.proprio
    return np.concatenate(
        [read(episode, 0, int(store.length[episode])) for episode in range(len(store))]
    )


def test_every_frame_is_counted_once(store: EpisodeStore) -> None:
    measured = measure_dimensions(store)
    assert [dimension.name for dimension in measured] == [
        *store.info.action.names,
        *store.info.proprio,
    ]
    for dimension in measured:
        values = all_numbers(store, dimension.feature)[:, dimension.index]
        assert (dimension.low, dimension.high) == (values.min(), values.max())
        assert dimension.counts.tolist() == np.histogram(values, BINS)[0].tolist()
        assert dimension.counts.sum() == store.frame_count
        assert (dimension.outside, dimension.not_finite) == (0, 0)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.integers(1, 100))
def test_counts_do_not_depend_on_how_much_is_read_at_once(
    store: EpisodeStore, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_dimensions(store)
    monkeypatch.setattr(store_distributions, "ROWS", rows)
    in_blocks = measure_dimensions(store)
    assert [dimension.counts.tolist() for dimension in in_blocks] == [
        dimension.counts.tolist() for dimension in whole
    ]


def test_outliers_are_counted_and_not_drawn(tmp_path: Path) -> None:
    episodes = make_episodes(20, make_info())
    episodes[3].actions[5, 0] = 1e4
    x = measure_dimensions(store_of(tmp_path / "store.zarr", episodes))[0]
    assert x.outside == 1
    assert x.high < 10
    assert x.counts.sum() == sum(map(len, episodes)) - 1


def test_a_dimension_that_never_changes(tmp_path: Path) -> None:
    episodes = make_episodes(3, make_info())
    for episode in episodes:
        episode.proprio[:, 1] = 7
    p1 = measure_dimensions(store_of(tmp_path / "store.zarr", episodes))[5]
    assert (p1.name, p1.low, p1.high) == ("p1", 7, 7)
    assert p1.counts.max() == sum(map(len, episodes))


@pytest.mark.parametrize("lost", [slice(4, 6), slice(None)])
def test_numbers_that_are_not_finite_are_counted_apart(tmp_path: Path, lost: slice) -> None:
    episodes = make_episodes(2, make_info())
    with StoreWriter(tmp_path / "store.zarr", make_info()) as writer:
        for episode in [writer.encode(episode) for episode in episodes]:
            episode.actions[lost, 1] = np.nan
            writer.append_encoded(episode)
    y = measure_dimensions(EpisodeStore(tmp_path / "store.zarr"))[1]
    assert y.not_finite == sum(len(episode.actions[lost]) for episode in episodes)
    assert y.counts.sum() + y.not_finite == sum(map(len, episodes))
    assert np.isfinite([y.low, y.high]).all()


def test_units_of_actions() -> None:
    action = make_info().action
    gripper = "gripper: -1 closed, 1 open"
    assert action_units(action) == [*["1.0 is 0.02 m"] * 3, gripper]
    joints = replace(action, frame="joint", scale=(1.0,) * 4, grippers=())
    assert action_units(joints) == ["rad"] * 4


def test_units_of_proprioception_are_those_that_are_recorded(tmp_path: Path) -> None:
    info = replace(make_info(), proprio_units=("rad", "", "1"))
    store = make_store(tmp_path / "store.zarr", episodes=1, info=info)
    dimensions = [d for d in measure_dimensions(store) if d.feature == "proprio"]
    assert [d.unit for d in dimensions] == ["rad", UNKNOWN_UNIT, ""]


def test_a_dimension_beside_a_rotation_has_its_own_unit() -> None:
    names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    gripper = replace(make_info().action.grippers[0], dimension=6)
    action = replace(
        make_info().action,
        names=names,
        rotation="euler_xyz",
        scale=(0.02,) * 3 + (0.1,) * 3 + (1.0,),
        grippers=(gripper,),
    )
    position, angle = ["1.0 is 0.02 m"] * 3, ["1.0 is 0.1 rad"] * 3
    assert action_units(action) == [*position, *angle, "gripper: -1 closed, 1 open"]
    unclear = replace(action, rotation="quaternion_xyzw", scale=(0.02,) * 7)
    assert action_units(unclear)[0] == "1.0 is 0.02 m or none"
    last = (replace(gripper, dimension=7),)
    quaternion = replace(unclear, names=(*names, "w"), scale=(1.0,) * 8, grippers=last)
    assert action_units(quaternion)[:7] == ["m"] * 3 + [""] * 4


def test_a_store_without_proprioception(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", info=make_info(proprio=0))
    assert [dimension.feature for dimension in measure_dimensions(store)] == ["action"] * 4
