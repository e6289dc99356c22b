"""What becomes of files, and what reading them may cost at most."""

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
    derandomize=True,  # what a damaged byte does is no matter of luck
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PATIENCE = 120  # seconds until what hangs is killed, with a traceback


@contextmanager
def bounded(megabytes: int = 64) -> Iterator[None]:
    """Fail where more is allocated at once, in Python, in numpy or by a library; end the process
    where it hangs.
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
    """Put other bytes at a place of a file, 0 being its begin and 1 its last byte."""
    content = bytearray(file.read_bytes())
    begin = int(at * (len(content) - 1))
    content[begin : begin + len(value)] = value
    file.write_bytes(content)


def corrupt(file: Path) -> None:
    """Turn every bit of the file's middle half."""
    content = file.read_bytes()
    quarter = len(content) // 4
    middle = bytes(255 - byte for byte in content[quarter : 3 * quarter])
    file.write_bytes(content[:quarter] + middle + content[3 * quarter :])


def truncate(file: Path) -> None:
    """Cut off the file's second half."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def empty(file: Path) -> None:
    """Leave no byte of the file."""
    file.write_bytes(b"")


def make_unreadable(file: Path) -> None:
    """Put a folder in the file's place: whoever runs the tests may be allowed to read every file."""
    file.unlink()
    file.mkdir()


def forbid(file: Path) -> None:
    """Let nobody read the file, where somebody can be kept from it."""
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("whoever runs this may read every file")


def read_all(source: EpisodeSource) -> dict[str, bytes | str]:
    """What each episode holds, or in one line what is wrong with it."""
    found: dict[str, bytes | str] = {}
    for name in source.ids():
        try:
            episode = source.read(name)
        except DataError as error:
            found[name] = str(error)
        else:
            pictures = b"".join(
                episode.images[camera].tobytes() for camera in sorted(episode.images)
            )
            found[name] = pictures + episode.actions.tobytes() + episode.proprio.tobytes()
    assert all("\n" not in message for message in found.values() if isinstance(message, str))
    return found
