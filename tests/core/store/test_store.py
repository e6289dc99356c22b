import json
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import core.store.store as store_module
from core.errors import DataError
from core.store.layout import checksum
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import MOVING, STILL, make_episode, make_episodes, make_info, make_store

INFO = make_info()
EPISODES = make_episodes(6, INFO)


def frames_of(store: EpisodeStore, camera: str, episode: int, start: int, stop: int) -> np.ndarray:
    out = np.zeros((stop - start, 32, 32, 3), np.uint8)
    store.read_frames(camera, episode, start, stop, out)
    return out


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
            still = frames_of(store, STILL, e, start, stop)
            np.testing.assert_array_equal(still, episode.images[STILL][start:stop])
            moving = frames_of(store, MOVING, e, start, stop).astype(float)
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
    )  # fewer than there are parts: they close and open all the time
    store = make_store(tmp_path / "a.zarr", segment_bytes=1)
    jobs = [(camera, e) for _ in range(20) for camera in (STILL, MOVING) for e in range(6)]
    alone = [checksum(frames_of(store, camera, e, 1, 10).tobytes()) for camera, e in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert (
            list(pool.map(lambda job: checksum(frames_of(store, *job, 1, 10).tobytes()), jobs))
            == alone
        )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert processes.submit(_checksums, store, jobs).result() == alone


def _checksums(store: EpisodeStore, jobs: list[tuple[str, int]]) -> list[int]:
    return [checksum(frames_of(store, camera, e, 1, 10).tobytes()) for camera, e in jobs]


def test_files_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "OPEN_SEGMENTS", 2)
    store = make_store(tmp_path / "a.zarr", episodes=5, segment_bytes=1)
    for e in range(5):
        frames_of(store, STILL, e, 0, 3)
    held = [
        path for path in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(path.resolve())
    ]
    assert 0 < len(held) <= 2 * 3


@pytest.mark.parametrize(("limit", "parts"), [(48, 3), (7, 1), (resource.RLIM_INFINITY, 5)])
def test_open_parts_hold_a_quarter_of_the_files_that_a_process_may_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, parts: int
) -> None:
    monkeypatch.setattr(store_module, "getrlimit", lambda _: (limit, limit))
    store = make_store(tmp_path / "a.zarr", episodes=5, segment_bytes=1)
    for e in range(5):
        for camera in (STILL, MOVING):
            frames_of(store, camera, e, 0, 3)
    held = [
        path for path in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(path.resolve())
    ]
    assert len(held) == parts * 4


def test_a_pickled_store_opens_its_own_files(store: EpisodeStore) -> None:
    frames_of(store, STILL, 0, 0, 3)
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(frames_of(copy, STILL, 3, 0, 3), EPISODES[3].images[STILL][:3])


# ------------------------------------------------------------------------------------------- damage


def files(store: EpisodeStore, pattern: str) -> list[Path]:
    return sorted(store.path.glob(pattern))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def read_everything(store: EpisodeStore) -> None:
    fresh = EpisodeStore(store.path)
    for e in range(len(fresh)):
        for camera in fresh.info.cameras:
            frames_of(fresh, camera, e, 0, int(fresh.length[e]))
        fresh.actions(e, 0, 1), fresh.proprio(e, 0, 1)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7, 0.999])
def test_a_flipped_bit_names_file_episode_and_frame(tmp_path: Path, fraction: float) -> None:
    store = make_store(tmp_path / "a.zarr")
    (file,) = files(store, f"parts/*/cam/{MOVING}/data/c/0")
    at = int(fraction * file.stat().st_size)
    (ends,) = files(store, f"parts/*/cam/{MOVING}/end/c/0")
    frame = int(np.searchsorted(np.fromfile(ends, "<u4"), at, "right"))
    episode = int(np.searchsorted(store.start, frame, "right")) - 1
    flip(file, at)
    where = f"{file}: frame {frame - store.start[episode]} of episode '{store.episode_id(episode)}' is damaged"
    with pytest.raises(DataError, match=f"{where}.*import again"):
        read_everything(store)


def test_a_flipped_bit_in_a_lossless_group_names_the_first_frame_wanted(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr")
    (file,) = files(store, f"parts/*/cam/{STILL}/data/c/0")
    flip(file, 20)
    with pytest.raises(DataError, match=f"{file}: frame 5 of episode 'reach/0' is damaged"):
        frames_of(store, STILL, 0, 5, 8)
    np.testing.assert_array_equal(
        frames_of(store, STILL, 0, 8, 10), EPISODES[0].images[STILL][8:10]
    )


@pytest.mark.parametrize(
    "array", ["action/c/0/0", "proprio/c/0/0", "episode/end/c/0", f"cam/{STILL}/crc/c/0"]
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_array_names_its_file(store: EpisodeStore, array: str, damage: str) -> None:
    file = files(store, f"parts/*/{array}")[1]
    act: dict[str, Callable[[], object]] = {
        "flip": lambda: flip(file, 3),
        "truncate": lambda: file.write_bytes(file.read_bytes()[:-1]),
        "remove": file.unlink,
    }
    act[damage]()
    with pytest.raises(DataError, match=f"{file}.*import again"):
        read_everything(store)


def test_truncated_and_missing_frames(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr")
    (file,) = files(store, f"parts/*/cam/{MOVING}/data/c/0")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(
        DataError, match=rf"{file}: frame 10 of episode 'push/5' is damaged or cut off"
    ):
        read_everything(store)
    file.unlink()
    with pytest.raises(DataError, match=rf"{file}: No such file.*restore the file or import again"):
        read_everything(store)


def test_commits_that_are_damaged_or_lost(store: EpisodeStore) -> None:
    _, second, _ = files(store, "commits/*.json")
    original = second.read_text()
    second.write_text(original.replace("reach/2", "reach/8"))
    with pytest.raises(DataError, match=f"{second}: commit does not match its checksum"):
        EpisodeStore(store.path)
    second.write_text(original[:100])
    with pytest.raises(DataError, match=f"{second}: commit is unreadable"):
        EpisodeStore(store.path)
    second.unlink()
    with pytest.raises(DataError, match=f"{second}: missing, though 00000002.json exists"):
        EpisodeStore(store.path)


def test_what_is_no_store_or_too_new(tmp_path: Path, store: EpisodeStore) -> None:
    with pytest.raises(DataError, match=r"no episode store here.*joinery import"):
        EpisodeStore(tmp_path / "nothing.zarr")
    file = store.path / "zarr.json"
    content = json.loads(file.read_text())
    for change, message in (
        ({"min_reader_version": 99}, "readers of version 99, this one reads 2; upgrade"),
        ({"format": "something"}, "no episode store"),
        ({"action": {"names": ["x"]}}, "metadata is damaged"),
        (
            {
                "cameras": {
                    "front": {"height": 32, "width": 32, "codec": "webp", "group": 1, "quality": 1}
                }
            },
            "'webp'",
        ),
    ):
        file.write_text(json.dumps({**content, "attributes": {**content["attributes"], **change}}))
        with pytest.raises(DataError, match=message):
            EpisodeStore(store.path)
    file.write_text("{")
    with pytest.raises(DataError, match=r"zarr.json: unreadable"):
        EpisodeStore(store.path)


ACTION = asdict(make_info().action)
GRIPPER = ACTION["grippers"][0]
CAMERA = {"height": 32, "width": 32, "codec": "zstd", "group": 8, "quality": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_reader_version": "1"}, "min_reader_version"),
        ({"min_reader_version": None}, "min_reader_version"),
        ({"fps": 0}, "fps 0.0 must be"),
        ({"fps": float("nan")}, "fps"),
        ({"cameras": []}, "cameras"),
        ({"cameras": {}}, "no cameras"),
        *(
            ({"cameras": {STILL: CAMERA | {"group": group}}}, f"cameras.{STILL}.group")
            for group in (0, -1, "8", 2**70)
        ),
        ({"cameras": {STILL: CAMERA | {"codec": "jpeg"}}}, "one frame a group"),
        ({"cameras": {STILL: CAMERA | {"quality": 0}}}, "quality"),
        *(({"cameras": {STILL: CAMERA | {"height": height}}}, "hold none") for height in (0, -1)),
        (
            {"cameras": {STILL: CAMERA, "top": CAMERA}},
            "promises a camera 'top', 00000000.json says otherwise",
        ),
        ({"action": None}, "action"),
        (
            {"action": ACTION | {"names": ["x", "y", "z"], "scale": [1, 1, 1], "grippers": []}},
            "76 frames and 3 names",
        ),
        (
            {"action": ACTION | {"grippers": [GRIPPER | {"open": -1.0}]}},
            "two different finite numbers",
        ),
        ({"action": ACTION | {"grippers": [GRIPPER, GRIPPER]}}, "the same dimension"),
        ({"action": ACTION | {"rate": 0}}, "rate 0.0"),
        ({"features": {}}, "features.proprio is missing"),
        ({"features": {"proprio": {"names": ["p0"]}}}, "proprio of .* and 1 names"),
        ({"origin": "\ud800"}, "hex escape"),
    ],
)
def test_damaged_metadata_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = make_store(tmp_path / "a.zarr").path / "zarr.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"attributes": content["attributes"] | change}))
    with pytest.raises(DataError, match=rf"^{file}: .*{message}.*import again$"):
        EpisodeStore(file.parent)


@pytest.mark.parametrize("attributes", [[], None, "text", {}])
def test_attributes_that_are_no_stores(tmp_path: Path, attributes: Any) -> None:
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    with pytest.raises(DataError, match="holds no episode store; name one"):
        EpisodeStore(tmp_path)


def test_a_commit_in_json_of_another_form_is_read_as_well(store: EpisodeStore) -> None:
    for file in files(store, "commits/*.json"):
        content = json.loads(file.read_text())
        file.write_text(
            json.dumps({"crc32c": content["crc32c"], "commit": content["commit"]}, indent=2)
        )
    again = EpisodeStore(store.path)
    assert (len(again), again.tasks, again.statistics) == (
        len(store),
        store.tasks,
        store.statistics,
    )
    np.testing.assert_array_equal(again.actions(5, 0, 3), EPISODES[5].actions[:3])


def test_statistics_are_of_the_episodes_that_a_store_had_when_it_was_opened(
    store: EpisodeStore,
) -> None:
    before = EpisodeStore(store.path)
    with StoreWriter(store.path, INFO) as writer:
        writer.append(make_episode(77, INFO))
    assert before.statistics["action"].count == store.frame_count
    assert EpisodeStore(store.path).statistics["action"].count == store.frame_count + 11


def test_a_commit_of_another_schema_is_one_line(store: EpisodeStore) -> None:
    file = files(store, "commits/*.json")[0]
    commit = json.loads(file.read_text())["commit"] | {"frames": "many", "tasks": None}
    canonical = json.dumps(commit, sort_keys=True, separators=(",", ":")).encode()
    file.write_text(json.dumps({"crc32c": checksum(canonical), "commit": commit}))
    with pytest.raises(
        DataError, match=rf"^{file}: commit is unreadable \(frames: .*; tasks: .*import again$"
    ):
        EpisodeStore(store.path)


def test_a_part_that_no_commit_names_is_invisible(store: EpisodeStore) -> None:
    last = files(store, "commits/*.json")[-1]
    last.unlink()
    assert len(EpisodeStore(store.path)) == 4


def test_a_store_without_episodes_has_no_statistics(store: EpisodeStore) -> None:
    for file in files(store, "commits/*.json"):
        file.unlink()
    empty = EpisodeStore(store.path)
    assert (len(empty), empty.frame_count) == (0, 0)
    with pytest.raises(DataError, match="no episodes, so no statistics"):
        _ = empty.statistics
