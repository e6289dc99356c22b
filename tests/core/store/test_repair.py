"""Repair: whole episodes survive, damaged segments are moved aside."""

from pathlib import Path

import pytest

from core.cli import main as joinery
from core.commands.verify import main
from core.store.layout import chunk_file, commit_file, read_commit
from tests.damage import flip_bit
from tests.factories import contents, make_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Eight episodes in three segments, several in each."""
    return make_store(tmp_path / "store.zarr", episodes=8, segment_bytes=50_000).path


def array_file(path: Path, number: int, array: str) -> Path:
    commit = read_commit(commit_file(path, number))
    return chunk_file(path / "parts" / commit.segment, array, len(commit.arrays[array].shape))


def test_a_damaged_frame_costs_its_episode_alone(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, episodes = contents(path), read_commit(commit_file(path, 1)).episodes
    assert len(episodes) > 1
    flip_bit(array_file(path, 1, "cam/wrist/data"), at=0.0)
    assert joinery(["repair", str(path)]) == 0
    assert (
        f"repaired, {len(episodes) - 1} episodes of the damaged segments are kept, 1 are lost"
        in capsys.readouterr().out
    )
    del before[episodes[0]]
    assert contents(path) == before
    assert main([str(path)]) == 0
    assert joinery(["repair", str(path)]) == 0
    assert "nothing to repair" in capsys.readouterr().out


def test_damaged_numbers_cost_their_segment_and_a_damaged_commit_its_own(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(path)
    first, second = (read_commit(commit_file(path, number)).episodes for number in range(2))
    flip_bit(array_file(path, 0, "action"))
    flip_bit(commit_file(path, 1))
    assert joinery(["repair", str(path)]) == 0
    printed = capsys.readouterr().out
    assert all(f"lost: {episode}" in printed for episode in first)
    assert contents(path) == {
        e: content for e, content in before.items() if e not in (*first, *second)
    }
    assert len(list((path / "parts").iterdir())) == len(list((path / "commits").iterdir()))


def test_what_is_damaged_is_moved_aside_and_not_removed(path: Path) -> None:
    damaged = read_commit(commit_file(path, 1)).segment
    commits = {file.name: file.read_bytes() for file in (path / "commits").iterdir()}
    (path / "parts" / "unfinished").mkdir()  # as a killed writer leaves it
    flip_bit(array_file(path, 1, "cam/wrist/data"))
    assert joinery(["repair", str(path)]) == 0
    aside = {folder.name for folder in (path / "parts.damaged").iterdir()}
    assert aside == {damaged, "unfinished"}
    old = {file.name: file.read_bytes() for file in (path / "commits.damaged").iterdir()}
    assert old == commits
    flip_bit(array_file(path, 0, "cam/wrist/data"))
    assert joinery(["repair", str(path)]) == 0  # a second repair keeps the first one's old list
    assert len(list(path.glob("commits.damaged*"))) == 2
