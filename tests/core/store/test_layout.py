"""Commits on disk: how they are written, found, read and refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.episodes.statistics import Statistics
from core.errors import DataError
from core.store.layout import (
    ArrayRecord,
    Commit,
    Task,
    checksum,
    commit_file,
    publish,
    read_commit,
    read_commits,
    serialise,
)
from core.store.store import EpisodeStore
from tests.factories import make_episodes, make_info

INFO = make_info()
EPISODES = make_episodes(6, INFO)


def files(store: EpisodeStore, pattern: str) -> list[Path]:
    return sorted(store.path.glob(pattern))


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


def test_a_commit_of_another_schema_is_one_line(store: EpisodeStore) -> None:
    file = files(store, "commits/*.json")[0]
    commit = json.loads(file.read_text())["commit"] | {"frames": "many", "tasks": None}
    canonical = json.dumps(commit, sort_keys=True, separators=(",", ":")).encode()
    file.write_text(json.dumps({"crc32c": checksum(canonical), "commit": commit}))
    with pytest.raises(
        DataError, match=rf"^{file}: commit is unreadable \(frames: .*; tasks: .*import again$"
    ):
        EpisodeStore(store.path)


def test_a_segment_without_a_commit_is_invisible(store: EpisodeStore) -> None:
    last = files(store, "commits/*.json")[-1]
    last.unlink()
    assert len(EpisodeStore(store.path)) == 4


def make_commit(segment: str = "a") -> Commit:
    statistics = Statistics.of(np.zeros((3, 1), np.float32))
    return Commit(
        segment=segment,
        frames=3,
        episodes=("one", "two"),
        tasks=(Task("reach", "reach the cube"),),
        arrays={"action": ArrayRecord((3, 1), 7)},
        statistics={"action": statistics},
    )


def test_a_commit_is_read_as_it_was_published(tmp_path: Path) -> None:
    (tmp_path / "commits").mkdir()
    assert publish(tmp_path, 0, make_commit())
    assert list(read_commits(tmp_path)) == [make_commit()]


def test_the_form_of_a_commit_on_disk() -> None:
    """Stores that exist are in this form: canonical JSON, in which a segment is called a part."""
    text = serialise(make_commit())
    content = json.loads(text)
    commit = content["commit"]
    assert list(content) == ["commit", "crc32c"]
    assert list(commit) == ["arrays", "episodes", "frames", "part", "statistics", "tasks"]
    assert commit["part"] == "a"
    canonical = json.dumps(commit, sort_keys=True, separators=(",", ":"))
    assert text == f'{{"commit":{canonical},"crc32c":{checksum(canonical.encode())}}}'


def test_a_number_that_is_taken_is_not_published_again(tmp_path: Path) -> None:
    (tmp_path / "commits").mkdir()
    assert publish(tmp_path, 0, make_commit("a"))
    assert not publish(tmp_path, 0, make_commit("b"))
    assert read_commit(commit_file(tmp_path, 0)).segment == "a"
    assert list((tmp_path / "commits").iterdir()) == [commit_file(tmp_path, 0)]


def test_commits_are_read_from_a_number_on(store: EpisodeStore) -> None:
    assert isinstance(store.path, Path)
    everything = list(read_commits(store.path))
    assert list(read_commits(store.path, 1)) == everything[1:]
    assert list(read_commits(store.path, 3)) == []
