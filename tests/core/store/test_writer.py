import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import core.store.segment as segment_module
import core.store.writer as writer_module
from core.errors import DataError
from core.store.layout import read_commits
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import (
    STILL,
    make_episode,
    make_episodes,
    make_info,
    make_store,
    with_actions,
)

INFO = make_info()


def test_a_bad_number_names_episode_frame_and_dimension(tmp_path: Path) -> None:
    episode = make_episode(0, INFO)
    actions = episode.actions.copy()
    actions[7, 1] = np.nan
    with StoreWriter(tmp_path / "a.zarr", INFO) as writer:
        with pytest.raises(DataError, match=r"'reach/0', frame 7: actions 'y' is nan"):
            writer.append(with_actions(episode, actions))
        proprio = episode.proprio.copy()
        proprio[2, 0] = np.inf
        with pytest.raises(DataError, match=r"'reach/0', frame 2: proprio 'p0' is inf"):
            writer.append(replace(episode, proprio=proprio))
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: replace(e, actions=e.actions.astype(np.float64)),
            r"actions: float64 .*expected float32 \(11, 4\)",
        ),
        (lambda e: replace(e, proprio=e.proprio[:-1]), r"proprio: float32 \(10, 3\), expected"),
        (
            lambda e: replace(e, images={STILL: e.images[STILL]}),
            r"cameras \['front'\], expected \['front', 'wrist'\]",
        ),
        (
            lambda e: replace(e, images={**e.images, STILL: e.images[STILL][:, :30]}),
            r"'front': uint8 \(11, 30, 32, 3\)",
        ),
        (lambda e: replace(e, images={n: x / 255 for n, x in e.images.items()}), "float64"),
        (lambda e: replace(e, actions=e.actions[:0]), "no frames"),
        (lambda e: replace(e, instruction=" \t\u200b"), "instruction: .* is empty"),
        (
            lambda e: replace(e, instruction="open \ud800"),
            r"instruction: 'open \\ud800' is no valid Unicode",
        ),
        (lambda e: replace(e, task="\ud800"), "task: .* is empty"),
    ],
)
def test_an_episode_that_breaks_the_promise_is_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    with (
        StoreWriter(tmp_path / "a.zarr", INFO) as writer,
        pytest.raises(DataError, match=f"'reach/0'.*{message}"),
    ):
        writer.append(change(make_episode(0, INFO)))


def test_duplicates_are_refused_pending_or_committed(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.zarr", INFO) as writer:
        writer.append(make_episode(0, INFO))
        for _ in range(2):
            with pytest.raises(DataError, match="'reach/0' is there already"):
                writer.append(make_episode(0, INFO))
            writer.commit()
    assert writer.committed == {"reach/0"}


@pytest.mark.parametrize("linked", [False, True])
def test_an_empty_folder_becomes_a_store(tmp_path: Path, linked: bool) -> None:
    path = tmp_path / "a.zarr"
    (tmp_path / "folder").mkdir()
    path.symlink_to("folder") if linked else path.mkdir()
    assert len(make_store(path, episodes=2)) == 2
    assert path.is_symlink() == linked
    assert not list(tmp_path.glob(".*"))


def test_a_path_that_cannot_become_a_store_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").symlink_to("gone")
    with pytest.raises(
        DataError, match=r"a.zarr: a link to 'gone', which does not exist; remove the link"
    ):
        StoreWriter(tmp_path / "a.zarr", INFO)
    with pytest.raises(
        DataError, match=r"no episode store here; name one, or let .* make one at a new path"
    ):
        StoreWriter(tmp_path, INFO)  # it holds the link


def test_nothing_is_appended_through_a_link(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", episodes=2)
    (tmp_path / "a.zarr" / "parts").rename(tmp_path / "elsewhere")
    (tmp_path / "a.zarr" / "parts").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"a.zarr/parts: a link that leads out of .*cp -rL"):
        StoreWriter(tmp_path / "a.zarr", INFO)
    assert sorted(tmp_path.rglob("*")) == before


def test_appending_goes_on_and_checks_that_the_info_agrees(tmp_path: Path) -> None:
    first = make_store(tmp_path / "a.zarr", episodes=3)
    with StoreWriter(tmp_path / "a.zarr", INFO) as writer:
        assert writer.committed == {"reach/0", "push/1", "reach/2"}
        writer.append(make_episode(7, INFO))
    assert (len(first), len(EpisodeStore(tmp_path / "a.zarr"))) == (3, 4)
    other = replace(INFO, fps=20.0, action=replace(INFO.action, mode="absolute"))
    with pytest.raises(
        DataError,
        match=r"fps: 10.0 there, 20.0 here; action.mode: delta there, absolute",
    ):
        StoreWriter(tmp_path / "a.zarr", other)


def test_an_exception_drops_what_is_not_committed(tmp_path: Path) -> None:
    def interrupted() -> None:
        with StoreWriter(tmp_path / "a.zarr", INFO) as writer:
            writer.append(make_episode(0, INFO))
            writer.commit()
            writer.append(make_episode(1, INFO))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert len(EpisodeStore(tmp_path / "a.zarr")) == 1


def test_two_writers_share_a_store_but_not_an_episode(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    one, two = StoreWriter(path, INFO), StoreWriter(path, INFO)
    one.append(make_episode(0, INFO))
    two.append(make_episode(1, INFO))  # finds the store that the other has just made
    two.commit()
    one.commit()  # commit 0 is taken: becomes commit 1
    assert [commit.episodes for commit in read_commits(path)] == [("reach/1",), ("reach/0",)]
    one.append(make_episode(2, INFO))
    two.append(make_episode(2, INFO))
    one.commit()
    with pytest.raises(DataError, match="another writer has just added episode 'reach/2'"):
        two.commit()
    assert len(list((path / "parts").iterdir())) == 3  # the refused segment is gone


@pytest.mark.parametrize("module", [segment_module, writer_module], ids=["segment", "commit"])
def test_a_full_disk_keeps_what_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    path = tmp_path / "a.zarr"
    make_store(path, episodes=2)
    writer = StoreWriter(path, INFO)
    writer.append(make_episode(7, INFO))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path / "parts"))

    with monkeypatch.context() as patch:
        patch.setattr(module, "sync" if module is segment_module else "publish", full)
        with pytest.raises(DataError, match=rf"{path}.*No space left on device.*make room"):
            writer.commit()
    assert len(list((path / "parts").iterdir())) == 1
    assert len(EpisodeStore(path)) == 2
    writer.append(make_episode(7, INFO))
    writer.commit()
    assert len(EpisodeStore(path)) == 3


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A tmpfs of one megabyte, where mounting is permitted."""
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        writer = StoreWriter(tmp_path / "a.zarr", INFO, segment_bytes=100_000)
        with pytest.raises(DataError, match="No space left on device"):
            _append_many(writer)
        store = EpisodeStore(tmp_path / "a.zarr")
        assert len(store) == len(writer.committed) > 0
        assert len(list((tmp_path / "a.zarr" / "parts").iterdir())) == len(
            list(read_commits(tmp_path / "a.zarr"))
        )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def _append_many(writer: StoreWriter) -> None:
    for i in range(100):
        writer.append(make_episode(i, INFO, length=20))


def test_an_interruption_right_after_the_commit_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.store import layout

    def interrupt(*paths: Path) -> None:
        if paths[0].name == "commits":
            raise KeyboardInterrupt

    info = make_info()
    (episode,) = make_episodes(1, info)
    writer = StoreWriter(tmp_path / "store.zarr", info)
    writer.append(episode)
    monkeypatch.setattr(layout, "sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer.commit()
    store = EpisodeStore(tmp_path / "store.zarr")
    assert store.episode_id(0) == episode.id
    np.testing.assert_array_equal(store.actions(0, 0, len(episode)), episode.actions)
