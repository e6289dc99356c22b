"""Segments: plain zarr groups on disk, whose damage is found and named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from core.errors import DataError
from core.store.codecs import Zstd
from core.store.layout import read_commits
from core.store.segment import DamagedBlock, EncodedEpisode, OpenSegment, PendingSegment
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
    with_actions,
)

INFO = make_info()
EPISODES = make_episodes(6, INFO)


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
            images_of(fresh, camera, e, 0, int(fresh.length[e]))
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
    frame -= store.start[episode]
    where = f"{file}: frame {frame} of episode '{store.episode_id(episode)}' is damaged"
    with pytest.raises(DataError, match=f"{where}.*import again"):
        read_everything(store)


def test_a_flipped_bit_in_a_lossless_block_names_the_first_frame_that_is_read(
    tmp_path: Path,
) -> None:
    store = make_store(tmp_path / "a.zarr")
    (file,) = files(store, f"parts/*/cam/{STILL}/data/c/0")
    flip(file, 20)
    with pytest.raises(DataError, match=f"{file}: frame 5 of episode 'reach/0' is damaged"):
        images_of(store, STILL, 0, 5, 8)
    np.testing.assert_array_equal(
        images_of(store, STILL, 0, 8, 10), EPISODES[0].images[STILL][8:10]
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


def test_zarr_reads_what_was_written(tmp_path: Path) -> None:
    """The layout is plain zarr v3: zarr-python finds the same numbers and bytes."""
    store = make_store(tmp_path / "a.zarr")
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    (commit,) = read_commits(tmp_path / "a.zarr")
    segment = root[f"parts/{commit.segment}"]
    np.testing.assert_array_equal(
        segment["action"][:], np.concatenate([e.actions for e in make_episodes(6, INFO)])
    )
    np.testing.assert_array_equal(np.diff(segment["episode/end"][:], prepend=0), store.length)
    end = segment[f"cam/{MOVING}/end"][:]
    out = np.zeros((1, 32, 32, 3), np.uint8)
    data = segment[f"cam/{MOVING}/data"][end[3] : end[4]].tobytes()
    store.codecs[MOVING].decode(data, [0, len(data)], 1, 0, out)
    expected = np.zeros_like(out)
    store.read_frames(MOVING, 0, 4, 5, expected)
    np.testing.assert_array_equal(out, expected)
    assert root.attrs["format"] == "joinery-episodes"
    still, moving = (root.attrs["cameras"][name] for name in (STILL, MOVING))
    assert still == {
        "height": 32,
        "width": 32,
        "codec": "zstd",
        "group": 8,
        "quality": None,
        "chroma": None,
    }
    assert (moving["codec"], moving["quality"], moving["chroma"]) == ("jpeg", 95, "4:4:4")
    assert root.attrs["action"]["grippers"][0]["open"] == 1.0


def test_numbers_that_are_all_zero_leave_a_file(tmp_path: Path) -> None:
    """zarr's default would leave none, and a lost file would read as zeros."""
    zeros = with_actions(make_episode(0, INFO), np.zeros((11, 4), np.float32))
    with StoreWriter(tmp_path / "a.zarr", INFO) as writer:
        writer.append(zeros)
    assert not EpisodeStore(tmp_path / "a.zarr").actions(0, 0, 11).any()
    (file,) = (tmp_path / "a.zarr").glob("parts/*/action/c/0/0")
    assert file.stat().st_size == 11 * 4 * 4


def test_a_stream_does_not_grow_past_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An episode that is refused leaves the pending segment as it was."""
    encoded = EncodedEpisode.of(EPISODES[0], {STILL: Zstd()})
    pending = PendingSegment({STILL: f"cam/{STILL}"})
    pending.append(encoded)
    size = pending.size
    monkeypatch.setattr("core.store.segment.MAX_BYTES", 2 * size - 1)
    with pytest.raises(DataError, match="'reach/0': 'front' passes 4 GiB in one segment; split"):
        pending.append(encoded)
    assert (pending.size, len(pending.episodes)) == (size, 1)


def test_a_stream_gives_any_run_of_blocks_with_its_bounds(tmp_path: Path) -> None:
    encoded = EncodedEpisode.of(EPISODES[0], {STILL: Zstd(block_size=2)})
    pending = PendingSegment({STILL: f"cam/{STILL}"})
    pending.append(encoded)
    commit = pending.write(tmp_path / "segment")
    blocks = encoded.streams[STILL]
    ends = np.cumsum([0, *map(len, blocks)]).tolist()
    stream = OpenSegment(tmp_path / "segment", commit.arrays).stream(f"cam/{STILL}")
    for first in range(len(blocks)):
        for stop in range(first + 1, len(blocks) + 1):
            expected = b"".join(blocks[first:stop]), ends[first : stop + 1]
            assert stream.read(first, stop) == expected
    flip(stream.file, ends[3])
    with pytest.raises(DamagedBlock) as caught:
        stream.read(1, len(blocks))
    assert caught.value.block == 3
