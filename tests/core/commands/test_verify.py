"""The command: what it prints of a whole and of a damaged store."""

import pytest

from core.commands.verify import main
from core.store.store import EpisodeStore


def test_a_whole_store(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    parts = len(list((store.path / "commits").iterdir()))
    assert main([str(store.path), "--jobs", "1"]) == 0
    expected = f"{store.path}: all {parts} segments are as they were written\n"
    assert capsys.readouterr().out == expected


def test_a_damaged_store(store: EpisodeStore, capsys: pytest.CaptureFixture[str]) -> None:
    file = next((store.path / "parts").glob("*/cam/wrist/data/c/0"))
    file.write_bytes(b"?" + file.read_bytes()[1:])
    assert main([str(store.path), "--jobs", "1"]) == 1
    *damages, last = capsys.readouterr().out.splitlines()
    assert any(str(file) in line for line in damages)
    assert last.endswith("segments are damaged; `joinery repair` keeps the episodes that are whole")


def test_the_number_of_jobs_is_positive(
    store: EpisodeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(store.path), "--jobs", "0"])
    assert "expected a whole number above zero, got '0'" in capsys.readouterr().err
