"""Damage to files, and limits on what reading damaged files may cost."""

import faulthandler
import os
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from core.errors import DataError
from core.formats.contracts import EpisodeSource

FUZZ = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,  # the same examples in every run
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PATIENCE = 120  # seconds until a hanging process is ended, with a traceback


@contextmanager
def bounded(megabytes: int = 64) -> Iterator[None]:
    """Fail if the block allocates more memory at once; end the process if the block hangs.

    Memory of Python and numpy is counted exactly, that of other libraries by the process's growth.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        faulthandler.cancel_dump_traceback_later()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert peak < megabytes * 2**20, f"{peak:,} bytes were allocated"
    assert grown < 2 * megabytes * 2**10, f"the process grew by {grown:,} KB"


def overwrite(file: Path, at: float, value: bytes) -> None:
    """Overwrite bytes of a file; `at` is 0 to begin at its first byte and 1 at its last."""
    content = bytearray(file.read_bytes())
    begin = int(at * (len(content) - 1))
    content[begin : begin + len(value)] = value
    file.write_bytes(content)


def flip_bit(file: Path, at: float = 0.5) -> None:
    """Flip one bit of a file; `at` is 0 for its first byte and 1 for its last."""
    content = bytearray(file.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    file.write_bytes(content)


def corrupt(file: Path) -> None:
    """Flip every bit of the file's middle half."""
    content = file.read_bytes()
    quarter = len(content) // 4
    middle = bytes(255 - byte for byte in content[quarter : 3 * quarter])
    file.write_bytes(content[:quarter] + middle + content[3 * quarter :])


def truncate(file: Path) -> None:
    """Cut off the file's second half."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def empty(file: Path) -> None:
    """Remove all content of the file."""
    file.write_bytes(b"")


def make_unreadable(file: Path) -> None:
    """Put a folder in the file's place, which not even a privileged user can read as a file."""
    file.unlink()
    file.mkdir()


def forbid(file: Path) -> None:
    """Remove all permissions of the file; skip the test for users who may read it anyway."""
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read every file")


def read_all(source: EpisodeSource) -> dict[str, bytes | str]:
    """Return the contents of each episode, or the error that reading it raises, in one line."""
    contents: dict[str, bytes | str] = {}
    for name in source.ids():
        try:
            episode = source.read(name)
        except DataError as error:
            contents[name] = str(error)
        else:
            images = b"".join(episode.images[camera].tobytes() for camera in sorted(episode.images))
            contents[name] = images + episode.actions.tobytes() + episode.proprio.tobytes()
    assert all("\n" not in message for message in contents.values() if isinstance(message, str))
    return contents
