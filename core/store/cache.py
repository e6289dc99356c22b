"""A folder of this machine for what was read from elsewhere: bounded, and what was not used for
longest goes first.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from time import time_ns
from typing import Any, Self
from uuid import uuid4

from core.errors import DataError

FOLDER, LIMIT = "JOINERY_CACHE", "JOINERY_CACHE_GB"  # environment variables
GIGABYTES = 20.0  # unless LIMIT says otherwise
MINUTE = 60 * 10**9  # nanoseconds: what was used within one counts as used now
SLICES = 20  # of the limit: after writing one, a process measures the folder


class Cache:
    """Whole files under keys; threads and processes may share a folder.

    A file is written aside and renamed, so whoever is killed leaves nothing half-written under a
    key. What a crash of the machine cuts off or mangles is for the reader to notice, who knows the
    size or the checksum, and to `drop`.

    Each process measures the folder at its first write and after each twentieth of the limit that
    it writes, and then keeps four fifths if more than nine tenths are full: two processes stay
    within the limit, others may pass it by a twentieth each. A file that is open or mapped may be
    removed: its reader keeps it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._unmeasured = limit
        self._lock = Lock()

    @classmethod
    def from_environment(cls) -> Self:
        """The folder JOINERY_CACHE, or joinery in the user's cache folder, of at most
        JOINERY_CACHE_GB (10^9 bytes).
        """
        shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(os.environ.get(FOLDER) or shared / "joinery").absolute()
        text = os.environ.get(LIMIT) or str(GIGABYTES)
        try:
            limit = int(float(text) * 1e9)
        except (ValueError, OverflowError):
            limit = 0
        if limit <= 0:
            raise DataError(f"{LIMIT}={text}: expected a number above zero, of gigabytes")
        return cls(folder / "objects", limit)

    def place(self, key: str) -> Path:
        """Where the file of a key is, or would be."""
        name = sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name[2:40]

    def read(self, key: str, size: int, part: slice = slice(None)) -> bytes | None:
        """The bytes under a key, or a part of them; None if there are none, or not `size` of them."""
        start, stop, _ = part.indices(size)
        try:
            with self.place(key).open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if time_ns() - status.st_mtime_ns > MINUTE:
                    _mark_used(file.fileno())
                return (
                    os.pread(file.fileno(), stop - start, start) if status.st_size == size else None
                )
        except OSError:
            return None

    def find(self, key: str) -> Path | None:
        """The file of a key, marked as used now, or None."""
        file = self.place(key)
        try:
            _mark_used(file)
        except OSError:
            return None
        return file

    def write(self, key: str, data: bytes) -> Path:
        """Keep data under a key; raises DataError if the disk refuses."""
        file = self.place(key)
        aside = file.with_name(f".{uuid4().hex}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
            _mark_used(aside)
            os.replace(aside, file)
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            raise DataError(
                f"{self.folder}: cannot write ({error.strerror}); make room, or name another folder in {FOLDER}"
            ) from error
        self._count(len(data))
        return file

    def drop(self, key: str) -> bool:
        """Forget a key; False if there was nothing to forget."""
        try:
            self.place(key).unlink()
        except OSError:
            return False
        return True

    def _count(self, written: int) -> None:
        with self._lock:
            self._unmeasured += written
            if self._unmeasured * SLICES >= self.limit:
                self._unmeasured = 0
                self._shrink()

    def _shrink(self) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total * 10 <= self.limit * 9:
            return
        for _, size, file in files:
            if total * 10 <= self.limit * 8:
                return
            with suppress(OSError):
                os.unlink(file)
            total -= size

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """When each file was last used (nanoseconds), its size and its path.

        A file aside that is a minute old was left by a killed process; a younger one is being
        written by somebody,
        who would fail if it went.
        """
        with suppress(FileNotFoundError):
            for folder in os.scandir(self.folder):
                for file in os.scandir(folder):
                    with suppress(FileNotFoundError):  # another process removes files, too
                        status = file.stat()
                        if not file.name.startswith(".") or time_ns() - status.st_mtime_ns > MINUTE:
                            yield status.st_mtime_ns, status.st_size, file.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.limit)


def _mark_used(file: Path | int) -> None:
    now = time_ns()  # finer than the file system's own clock
    os.utime(file, ns=(now, now))
