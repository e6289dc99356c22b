import gc
import pickle
import resource
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import core.store.store as store_module
from core.errors import DataError
from core.store.layout import checksum
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import (
    MOVING,
    STILL,
    images_of,
    make_episode,
    make_episodes,
    make_info,
    make_store,
)

INFO = make_info()
EPISODES = make_episodes(6, INFO)


def test_a_store_gives_back_what_was_appended(store: EpisodeStore) -> None:
    assert store.info == INFO
    assert len(store) == 6
    assert store.frame_count == sum(map(len, EPISODES))
    assert store.tasks == [("reach", "reach the red cube"), ("push", "push the puck")]
    np.testing.assert_array_equal(store.start, np.cumsum([0, *map(len, EPISODES[:-1])]))
    for e, episode in enumerate(EPISODES):
        assert (store.episode_id(e), store.task_name(e)) == (episode.id, episode.task)
        assert (store.instruction(e), store.length[e]) == (episode.instruction, len(episode))
        np.testing.assert_array_equal(store.actions(e, 0, len(episode)), episode.actions)
        np.testing.assert_array_equal(store.proprio(e, 2, 5), episode.proprio[2:5])


@pytest.mark.parametrize("segment_bytes", [1, 30_000, 2**30])
def test_any_run_of_frames_is_what_was_appended(tmp_path: Path, segment_bytes: int) -> None:
    store = make_store(tmp_path / "a.zarr", segment_bytes=segment_bytes)
    for e, episode in enumerate(EPISODES):
        for start, stop in (
            (0, len(episode)),
            (0, 1),
            (3, 9),
            (8, 11),
            (len(episode) - 1, len(episode)),
            (4, 4),
        ):
            still = images_of(store, STILL, e, start, stop)
            np.testing.assert_array_equal(still, episode.images[STILL][start:stop])
            moving = images_of(store, MOVING, e, start, stop).astype(float)
            assert start == stop or np.abs(moving - episode.images[MOVING][start:stop]).mean() < 4


def test_statistics_are_those_of_all_episodes(store: EpisodeStore) -> None:
    for name in ("action", "proprio"):
        everything = np.concatenate(
            [e.actions if name == "action" else e.proprio for e in EPISODES]
        )
        np.testing.assert_allclose(
            store.statistics[name].mean, everything.mean(0, np.float64), rtol=1e-9
        )
        np.testing.assert_allclose(
            store.statistics[name].std, everything.std(0, np.float64), rtol=1e-9
        )


def test_numbers_cannot_be_overwritten(store: EpisodeStore) -> None:
    with pytest.raises(ValueError, match="read-only"):
        store.actions(0, 0, 3)[:] = 0


def test_frames_outside_an_episode_are_refused(store: EpisodeStore) -> None:
    for start, stop in ((-1, 2), (5, 12), (4, 3)):
        with pytest.raises(IndexError):
            store.actions(0, start, stop)


def test_a_store_without_proprioception(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", info=make_info(proprio=0))
    assert store.proprio(0, 0, 5).shape == (5, 0)
    assert store.statistics["proprio"].dim == 0


def test_opening_reads_no_frames_and_no_numbers(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr")
    for name in ("cam/front", "cam/wrist", "action", "proprio"):
        for folder in (tmp_path / "a.zarr").glob(f"parts/*/{name}"):
            shutil.rmtree(folder)
    assert len(EpisodeStore(tmp_path / "a.zarr")) == 6


def test_a_local_store_prepares_nothing(store: EpisodeStore) -> None:
    def places() -> Iterator[tuple[int, int]]:
        raise AssertionError("nobody should ask")
        yield

    store.prepare([STILL], places(), 4)


def test_threads_and_processes_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        store_module, "OPEN_SEGMENTS", 2
    )  # fewer than there are segments: they close and open all the time
    store = make_store(tmp_path / "a.zarr", segment_bytes=1)
    jobs = [(camera, e) for _ in range(20) for camera in (STILL, MOVING) for e in range(6)]
    expected = [checksum(images_of(store, camera, e, 1, 10).tobytes()) for camera, e in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert (
            list(pool.map(lambda job: checksum(images_of(store, *job, 1, 10).tobytes()), jobs))
            == expected
        )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert processes.submit(_checksums, store, jobs).result() == expected


def _checksums(store: EpisodeStore, jobs: list[tuple[str, int]]) -> list[int]:
    return [checksum(images_of(store, camera, e, 1, 10).tobytes()) for camera, e in jobs]


def test_files_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "OPEN_SEGMENTS", 2)
    store = make_store(tmp_path / "a.zarr", episodes=5, segment_bytes=1)
    for e in range(5):
        images_of(store, STILL, e, 0, 3)
    held = [
        path for path in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(path.resolve())
    ]
    assert 0 < len(held) <= 2 * 3


def test_files_are_closed_with_the_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", episodes=3, segment_bytes=1)
    gc.disable()  # what only the garbage collector closes stays open for an unknown time
    try:
        for e in range(3):
            images_of(store, STILL, e, 0, 3)
        del store
        open_files = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    finally:
        gc.enable()
    assert not [file for file in open_files if file.is_relative_to(tmp_path)]


@pytest.mark.parametrize(("limit", "segments"), [(48, 3), (7, 1), (resource.RLIM_INFINITY, 5)])
def test_open_segments_hold_a_quarter_of_the_files_that_a_process_may_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, segments: int
) -> None:
    monkeypatch.setattr(store_module, "getrlimit", lambda _: (limit, limit))
    store = make_store(tmp_path / "a.zarr", episodes=5, segment_bytes=1)
    for e in range(5):
        for camera in (STILL, MOVING):
            images_of(store, camera, e, 0, 3)
    held = [
        path for path in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(path.resolve())
    ]
    assert len(held) == segments * 4


def test_a_pickled_store_opens_its_own_files(store: EpisodeStore) -> None:
    images_of(store, STILL, 0, 0, 3)
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(images_of(copy, STILL, 3, 0, 3), EPISODES[3].images[STILL][:3])


def test_statistics_are_of_the_episodes_that_a_store_had_when_it_was_opened(
    store: EpisodeStore,
) -> None:
    before = EpisodeStore(store.path)
    with StoreWriter(store.path, INFO) as writer:
        writer.append(make_episode(77, INFO))
    assert before.statistics["action"].count == store.frame_count
    assert EpisodeStore(store.path).statistics["action"].count == store.frame_count + 11


def test_a_store_without_episodes_has_no_statistics(store: EpisodeStore) -> None:
    for file in store.path.glob("commits/*.json"):
        file.unlink()
    empty = EpisodeStore(store.path)
    assert (len(empty), empty.frame_count) == (0, 0)
    with pytest.raises(DataError, match="no episodes, so no statistics"):
        _ = empty.statistics
