"""Writes an evaluation's files completely or not at all; errors name the file and the remedy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from core.errors import DataError
from core.system.files import remove_leftovers, written_aside


def write_file(path: Path, content: bytes) -> None:
    """Write or replace a file in one step; raises DataError if it cannot be written."""
    with open_whole(path) as file:
        file.write(content)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write or replace an .npz file in one step; raises DataError if it cannot be written."""
    with open_whole(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


@contextmanager
def write_errors_as_data_errors(path: Path) -> Iterator[None]:
    """Turn an OSError, which may lack the file's name, into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot write it ({error.strerror or error}); make room or choose another "
            "folder, then give the same command again: finished attempts are kept"
        ) from error


@contextmanager
def open_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file; at the end of the `with` block, it is synced and replaces `path`.

    Raises DataError if it cannot be written.
    """
    with write_errors_as_data_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        with written_aside(path, durable=True) as aside, aside.open("wb") as file:
            yield file
