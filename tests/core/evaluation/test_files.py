import errno
import os

import numpy as np
import pytest

from core.errors import DataError
from core.evaluation.files import write_arrays, write_file


def test_folders_are_made_and_files_replaced(tmp_path):
    path = tmp_path / "new" / "arrays"
    write_file(path, b"text")
    assert path.read_bytes() == b"text"
    write_arrays(path, {"a": np.arange(3)})
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "write",
    [lambda path: write_file(path, b"text"), lambda path: write_arrays(path, {"a": np.zeros(3)})],
)
def test_a_file_stays_as_it_was_if_the_new_one_cannot_be_written(tmp_path, monkeypatch, write):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "results"
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"results: cannot write it \(No space left on device\)"):
        write(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


def test_a_folder_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/results: cannot write it .*; make room or choose"):
        write_file(tmp_path / "file" / "results", b"text")
