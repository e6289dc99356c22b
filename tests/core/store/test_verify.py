"""Verification: every byte of a store is checked, and damage is named."""

import random
from pathlib import Path

import pytest

from core.cli import main as joinery
from core.commands.verify import main
from core.errors import DataError
from core.store.layout import chunk_file, commit_file, read_commit
from core.store.store import EpisodeStore
from core.store.verify import verify
from tests.damage import flip_bit
from tests.factories import make_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Eight episodes in three segments, several in each."""
    return make_store(tmp_path / "store.zarr", episodes=8, segment_bytes=50_000).path


def array_file(path: Path, number: int, array: str) -> Path:
    commit = read_commit(commit_file(path, number))
    return chunk_file(path / "parts" / commit.segment, array, len(commit.arrays[array].shape))


def test_a_whole_store(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segments = len(list((path / "commits").iterdir()))
    assert segments > 2
    assert main([str(path)]) == 0
    assert f"all {segments} segments are as they were written" in capsys.readouterr().out


def test_one_flipped_bit_in_any_file_is_found(path: Path) -> None:
    """In every file that a reader trusts."""
    choose = random.Random(0)
    commits = [read_commit(commit_file(path, number)) for number in range(2)]
    files = [
        array_file(path, n, array) for n, commit in enumerate(commits) for array in commit.arrays
    ]
    for file in [*files, commit_file(path, 1)]:
        before = file.read_bytes()
        flip_bit(file, choose.random())
        (damage,) = verify(path, jobs=2)
        assert any(str(file) in reason for reason in damage.reasons)
        file.write_bytes(before)
    assert verify(path, jobs=2) == []


def test_damage_is_named_and_nothing_changes(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = array_file(path, 1, "cam/wrist/data")
    flip_bit(file)
    array_file(path, 0, "action").unlink()
    assert main([str(path)]) == 1
    shown = capsys.readouterr().out
    assert f"{file}: does not match its checksum" in shown
    assert "No such file" in shown
    assert "2 segments are damaged; `joinery repair` keeps the episodes that are whole" in shown
    assert file.exists()


def test_a_missing_commit_is_damage(path: Path) -> None:
    commit_file(path, 0).unlink()
    (damage,) = verify(path, jobs=1)
    assert (damage.number, damage.commit) == (0, None)
    assert joinery(["repair", str(path)]) == 0
    assert verify(path, jobs=1) == []
    EpisodeStore(path)


def test_no_store(tmp_path: Path, path: Path) -> None:
    with pytest.raises(DataError, match="no episode store here"):
        verify(tmp_path / "nothing.zarr", jobs=1)
    (path / "commits").rename(path / "commits.repaired")
    with pytest.raises(DataError, match=r"rename commits.repaired"):
        verify(path, jobs=1)
