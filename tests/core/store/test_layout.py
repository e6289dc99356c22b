"""Commits on disk: how they are written, found, read and refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError
from core.store.layout import checksum
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


def test_a_part_that_no_commit_names_is_invisible(store: EpisodeStore) -> None:
    last = files(store, "commits/*.json")[-1]
    last.unlink()
    assert len(EpisodeStore(store.path)) == 4
