import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError
from core.evaluation.journal import Entry, Journal, replace_file, write_arrays
from core.rollout.results import ChainResult, EpisodeResult, Timing

IDENTITY = {
    "policy": {"weights_sha256": "a", "recipe_sha256": "r", "run": "x"},
    "protocol": {"execute": 1, "tasks": ["lift"]},
}
ENTRIES = [
    Entry(EpisodeResult("standard", "lift", 1, "lift it", True, 7), Timing(0.1, (1 / 3, 2.5), 9)),
    Entry(
        ChainResult(2, ("lift", "push"), ("lift it",), 0, 9, "died (SIGKILL)"), Timing(2.0, (), 0)
    ),
]


def test_results_come_back_as_they_were(tmp_path):
    journal = Journal(tmp_path / "evaluation", IDENTITY)
    for entry in ENTRIES:
        journal.append(entry)
    assert Journal(tmp_path / "evaluation", IDENTITY).entries == ENTRIES


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_torn_last_line_is_dropped(tmp_path, kept):
    journal = Journal(tmp_path, IDENTITY)
    journal.append(ENTRIES[0])
    whole = journal.path.stat().st_size
    journal.append(ENTRIES[1])
    with journal.path.open("r+b") as file:
        file.truncate(whole + int((journal.path.stat().st_size - whole) * kept))
    again = Journal(tmp_path, IDENTITY)
    assert again.entries == ENTRIES[:1]
    again.append(ENTRIES[1])
    assert Journal(tmp_path, IDENTITY).entries == ENTRIES


def test_two_evaluations_in_one_folder_are_noticed(tmp_path):
    first, second = Journal(tmp_path, IDENTITY), Journal(tmp_path, IDENTITY)
    first.append(ENTRIES[0])
    with pytest.raises(DataError, match=r"another evaluation writes here, too; .*--output"):
        second.append(ENTRIES[0])
    first.append(ENTRIES[1])
    assert Journal(tmp_path, IDENTITY).entries == ENTRIES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    journal = Journal(tmp_path, IDENTITY)
    journal.path.unlink()
    journal.path.symlink_to("/dev/full")
    journal._size = 0
    with pytest.raises(
        DataError, match=r"episodes.jsonl: cannot write it \(No space left on device\); make room"
    ):
        journal.append(ENTRIES[0])
    assert journal.entries == []


@pytest.mark.parametrize(
    "write",
    [lambda path: replace_file(path, b"text"), lambda path: write_arrays(path, {"a": np.zeros(3)})],
)
def test_what_cannot_be_replaced_stays_as_it_was(tmp_path, monkeypatch, write):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "results"
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"results: cannot write it \(No space left on device\)"):
        write(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


def test_a_torn_first_line_is_a_new_evaluation_without_leftovers(tmp_path):
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "episodes.jsonl").write_text('{"policy": {"wei')
    np.savez(tmp_path / "rollouts" / "lift-success.npz", seed=1)
    assert Journal(tmp_path, IDENTITY).entries == []
    assert list((tmp_path / "rollouts").iterdir()) == []
    assert json.loads((tmp_path / "episodes.jsonl").read_text()) == IDENTITY


def test_an_evaluation_of_something_else_is_refused_with_every_difference(tmp_path):
    Journal(tmp_path, IDENTITY).append(ENTRIES[0])
    before = (tmp_path / "episodes.jsonl").read_bytes()
    other = {
        "policy": {"weights_sha256": "b", "recipe_sha256": "s", "run": "y"},
        "protocol": {"execute": 2, "tasks": ["lift"]},
    }
    with pytest.raises(DataError) as caught:
        Journal(tmp_path, other)
    assert "policy.weights_sha256 'a' there, 'b' now" in str(caught.value)
    assert "protocol.execute 1 there, 2 now" in str(caught.value)
    assert "recipe_sha256" not in str(
        caught.value
    )  # a recipe may change in what the outcomes do not depend on
    assert "--output" in str(caught.value)
    assert (tmp_path / "episodes.jsonl").read_bytes() == before


@pytest.mark.parametrize(("line", "said"), [(0, "line 1: damaged"), (1, "line 2: damaged")])
def test_a_damaged_line_is_named(tmp_path, line, said):
    Journal(tmp_path, IDENTITY).append(ENTRIES[0])
    path = tmp_path / "episodes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[line] = '{"result": 3}\n'
    path.write_text("".join(lines))
    with pytest.raises(DataError, match=said):
        Journal(tmp_path, IDENTITY)


def test_a_journal_of_an_earlier_version_says_what_to_do(tmp_path):
    path = Journal(tmp_path, IDENTITY).path
    with path.open("a") as file:
        file.write('{"episodes": [], "chains": [], "seconds": 1.0, "inference_ms": 2.0}\n')
    with pytest.raises(
        DataError,
        match=r"jsonl, line 2: written by an earlier version, .*; remove the file to evaluate anew",
    ):
        Journal(tmp_path, IDENTITY)
