"""A dataset in another format appears whole or not at all."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from core.episodes.episode import Episode, StoreInfo
from core.errors import DataError
from core.formats.exporting import export_episodes
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import FEATURES, make_episodes, make_info, make_store


class Lines:
    """A sink for tests: a folder with a line for each episode; fails with `error` at `fails_at`."""

    def __init__(
        self, info: StoreInfo, out: Path, fails_at: str = "", error: BaseException | None = None
    ) -> None:
        out.mkdir()
        self.info, self.fails_at, self.error, self.is_open = info, fails_at, error, True
        self.file = (out / "lines").open("w")

    def append(self, episode: Episode) -> None:
        if episode.id == self.fails_at and self.error:
            raise self.error
        print(json.dumps([episode.id, episode.actions.tolist()]), file=self.file)

    def finish(self) -> None:
        print("whole", file=self.file)
        self.close()

    def close(self) -> None:
        self.file.close()
        self.is_open = False


def ignore(done: int, total: int) -> None:
    pass


def test_all_episodes_are_written_in_the_order_of_the_store(tmp_path: Path) -> None:
    store, reports = make_store(tmp_path / "a.zarr", 4), []
    out = tmp_path / "new" / "folder"
    summary = export_episodes(store, Lines, out, lambda *progress: reports.append(progress))
    *lines, last = (out / "lines").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == [store.episode_id(e) for e in range(4)]
    np.testing.assert_array_equal(np.float32(json.loads(lines[2])[1]), store.actions(2, 0, 13))
    assert last == "whole"
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (summary.episodes, summary.frames) == (4, 11 + 12 + 13 + 14)
    assert summary.bytes == (out / "lines").stat().st_size
    assert [*out.parent.iterdir()] == [out]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (DataError("push/1: no place for it"), "push/1: no place for it"),
        (
            OSError(28, "No space left on device"),
            r"out: cannot write \(No space left on device\); make room",
        ),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, error: BaseException, shown: str | None
) -> None:
    store, sinks = make_store(tmp_path / "a.zarr", 3), []

    def make(info: StoreInfo, out: Path) -> Lines:
        sinks.append(Lines(info, out, "push/1", error))
        return sinks[0]

    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else DataError
    with pytest.raises(expected, match=shown):
        export_episodes(store, make, tmp_path / "out", ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert not sinks[0].is_open


def test_a_damaged_frame_ends_the_export(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", 2)
    for file in (tmp_path / "a.zarr").glob("parts/*/cam/front/data/c/0"):
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)
    with pytest.raises(DataError, match="episode 'push/1' is damaged"):
        export_episodes(store, Lines, tmp_path / "out", ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_an_existing_file_is_never_touched(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", 1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link", "a.zarr"):
        with pytest.raises(
            DataError, match=f"{name}: is there already; name another path or remove it"
        ):
            export_episodes(store, Lines, tmp_path / name, ignore)
    assert (tmp_path / "file").read_text() == "mine"
    assert not any((tmp_path / "folder").iterdir())
    assert len(EpisodeStore(tmp_path / "a.zarr")) == 1


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    store, out = make_store(tmp_path / "a.zarr", 2), tmp_path / "out"
    with pytest.raises(DataError, match="is there already"):
        export_episodes(store, Lines, out, lambda done, total: out.write_text("theirs"))
    assert out.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "out"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", 1)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="out: cannot write"):
        export_episodes(store, Lines, tmp_path / "file" / "out", ignore)


def test_no_episodes(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", 1)
    for commit in (tmp_path / "a.zarr" / "commits").iterdir():
        os.unlink(commit)
    with pytest.raises(DataError, match="holds no episodes; import some"):
        export_episodes(EpisodeStore(tmp_path / "a.zarr"), Lines, tmp_path / "out", ignore)
    shutil.rmtree(tmp_path / "a.zarr")


def test_a_whole_episode_is_read_as_it_was_written(tmp_path: Path) -> None:
    info = make_info(("front",))  # stored without loss
    episodes = make_episodes(3, info)
    with StoreWriter(tmp_path / "a.zarr", info) as writer:
        for episode in episodes:
            writer.append(episode)
    store = EpisodeStore(tmp_path / "a.zarr")
    for number, written in enumerate(episodes):
        read = store.read(number)
        assert (read.id, read.task, read.instruction) == (
            written.id,
            written.task,
            written.instruction,
        )
        np.testing.assert_array_equal(read.actions, written.actions)
        np.testing.assert_array_equal(read.proprio, written.proprio)
        np.testing.assert_array_equal(read.images["front"], written.images["front"])


def test_a_sink_writes_to_a_hidden_name_of_the_same_suffix(tmp_path: Path) -> None:
    names: list[str] = []

    def make(info: StoreInfo, out: Path) -> Lines:
        names.append(out.name)
        return Lines(info, out)

    export_episodes(make_store(tmp_path / "a.zarr", 1), make, tmp_path / "a.lines.d", ignore)
    assert names[0].startswith(".")
    assert names[0].endswith(".a.lines.d")


def test_a_format_without_features_gets_none(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", 1, info=make_info(features=FEATURES))
    written: list[Lines] = []

    class Recorder(Lines):
        def append(self, episode: Episode) -> None:
            assert episode.features.keys() == self.info.features.keys()
            written.append(self)

    export_episodes(store, Recorder, tmp_path / "without", ignore)
    export_episodes(store, Recorder, tmp_path / "with", ignore, holds_features=True)
    assert [set(sink.info.features) for sink in written] == [set(), set(FEATURES)]
