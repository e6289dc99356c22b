"""A store as the policy sees it: names, conventions, rate, image sizes, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.episodes.renaming import NewNames
from core.errors import DataError
from core.loading.view import StoreView, common_info, view_of
from core.store.store import EpisodeStore
from tests.factories import MOVING, STILL, make_info, make_store
from tests.mixtures import ACTIONS, views_of


def test_a_policy_sees_the_union_under_the_first_ones_conventions(
    stores: list[EpisodeStore],
) -> None:
    first, second = views_of(stores)
    assert first.info == second.info
    assert list(first.info.cameras) == sorted([STILL, MOVING])
    assert first.info.cameras[STILL].height == 32
    assert first.info.action.names == ("x", "y", "z", "gripper", "w")
    assert first.info.proprio == ("p0", "p1", "p2")
    assert set(second.recorded) == {STILL}
    assert first.conversion.has_dimension.tolist() == [True, True, True, True, False]


def test_converted_statistics_are_those_of_the_converted_numbers(
    stores: list[EpisodeStore],
) -> None:
    second = views_of(stores)[1]
    whole = np.concatenate(
        [stores[1].actions(e, 0, int(stores[1].length[e])) for e in range(4)]
    ).astype(np.float64)
    converted = whole * [1, 1, 2, -1, 1]
    statistics = second.statistics["action"]
    np.testing.assert_allclose(statistics.mean, converted.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(statistics.std, converted.std(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.min, converted.min(0), rtol=1e-6)
    assert (second.statistics["proprio"].mean[2], second.statistics["proprio"].std[2]) == (0, 0)


def test_bigger_images_are_resized_as_pillow_does(stores: list[EpisodeStore]) -> None:
    second = views_of(stores)[1]
    frames, whole = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 40, 40, 3), np.uint8)
    second.read_frames(STILL, 0, 1, frames)
    stores[1].read_frames("side", 0, 1, 3, whole)
    for resized, recorded in zip(frames, whole, strict=True):
        expected = Image.fromarray(recorded).resize((32, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resized, np.asarray(expected))


def test_a_store_without_any_of_the_cameras_is_refused(stores: list[EpisodeStore]) -> None:
    info = common_info([stores[0].info], ())
    with pytest.raises(DataError, match="has none of"):
        view_of(
            stores[1],
            NewNames({}, ACTIONS).rename(stores[1].info),
            {},
            replace(info, action=stores[1].info.action),
            (),
        )


def test_statistics_of_a_store_that_only_lacks_something_are_its_own(
    stores: list[EpisodeStore],
) -> None:
    first = views_of(stores)[0]
    assert first.conversion.columns == [0, 1, 2, 3]
    assert first.statistics["action"] == stores[0].statistics["action"].scatter([0, 1, 2, 3], 5)
    converted = np.concatenate(
        [first.actions(np.array([e]), np.arange(11)[None])[0] for e in range(6)]
    )
    assert not converted[:, 4].any()
    assert views_of(stores)[1].conversion.columns is None


def test_the_second_arm_keeps_its_own_actions_at_another_rate(tmp_path: Path) -> None:
    """Both arms' numbers have the same names; the last of each two frames counts."""
    one_arm = make_info().action
    action = replace(
        one_arm,
        names=one_arm.names * 2,
        scale=one_arm.scale * 2,
        mode="absolute",
        frame="joint",
        grippers=(),
    )
    slow = replace(make_info(), action=action)
    fast = replace(slow, fps=20.0, action=replace(action, rate=20.0))
    common = common_info([slow, fast], ())
    assert len(common.action.names) == 8
    store = make_store(tmp_path / "fast.zarr", info=fast)
    view = view_of(store, fast, {}, common, ())
    found = view.actions(np.array([0]), np.array([[0, 4]]))[0]
    np.testing.assert_array_equal(found, store.actions(0, 0, 6)[[1, 5]])


@pytest.mark.parametrize("camera", [STILL, MOVING])
def test_slower_frames_of_either_codec(tmp_path: Path, camera: str) -> None:
    info = make_info()
    fast = replace(info, fps=30.0, action=replace(info.action, rate=30.0))
    store = make_store(tmp_path / "fast.zarr", 1, info=fast)
    view = view_of(store, store.info, {}, info, ())
    slower, whole = np.zeros((3, 32, 32, 3), np.uint8), np.zeros((11, 32, 32, 3), np.uint8)
    view.read_frames(camera, 0, 1, slower)
    store.read_frames(camera, 0, 0, 11, whole)
    np.testing.assert_array_equal(slower, whole[[1, 4, 7]])


def test_a_plain_view_is_the_store_as_it_is(store: EpisodeStore) -> None:
    view = StoreView.plain(store)
    assert (view.info, view.period) == (store.info, 1)
    frames = np.arange(4)[None]
    np.testing.assert_array_equal(view.actions(np.array([2]), frames)[0], store.actions(2, 0, 4))
    images, expected = np.zeros((2, 3, 32, 32, 3), np.uint8)
    view.read_frames(MOVING, 1, 2, images)
    store.read_frames(MOVING, 1, 2, 5, expected)
    np.testing.assert_array_equal(images, expected)
    assert list(StoreView.plain(store, [STILL]).recorded) == [STILL]


def test_a_store_without_an_episode_of_one_period_is_refused(tmp_path: Path) -> None:
    info = make_info()
    fast = replace(info, fps=1000.0, action=replace(info.action, rate=1000.0))
    store = make_store(tmp_path / "fast.zarr", 2, info=fast)
    view = view_of(store, store.info, {}, info, ())
    with pytest.raises(DataError, match="no episode has 100 frames"):
        _ = view.statistics


def test_the_policy_has_the_units_that_a_store_knows(stores: list[EpisodeStore]) -> None:
    first, second = (replace(store.info, features={}) for store in stores)
    known = replace(first, proprio_units=("rad", "", "N"))
    assert common_info([known, second], ()).proprio_units == ("rad", "", "N")
    assert common_info([second, known], ()).proprio_units == ("rad", "", "N")
    assert common_info([first, second], ()).proprio_units == ()
    other = replace(first, proprio_units=("deg", "", ""))
    with pytest.raises(DataError, match="proprio: 'p0' is in deg, the policy's is in rad"):
        view_of(stores[0], other, {}, common_info([known], ()), ())
    view_of(stores[0], first, {}, common_info([known], ()), ())
