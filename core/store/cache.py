"""A cache: a folder of local copies of remote data, of limited size.

When the folder is nearly full, the cache removes the least recently used files.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from time import time_ns
from typing import Any, Self

from core.errors import DataError
from core.system.files import written_aside

# environment variables
FOLDER, LIMIT = "JOINERY_CACHE", "JOINERY_CACHE_GB"
# default of LIMIT
GIGABYTES = 20.0
# one minute in nanoseconds: a file's time of last use is updated at most this often
MINUTE = 60 * 10**9
# a process measures the folder's size after every limit / MEASUREMENTS bytes that it writes
MEASUREMENTS = 20


class Cache:
    """A folder that holds one file for each key; threads and processes may share the folder.

    A file is written under a temporary name and renamed, so a killed process leaves no half-written
    file under a key. A crash of the machine may truncate or damage files. A reader must therefore
    check the size or the checksum of a file, and `drop` its key if the file is damaged.

    Each process measures the size of the folder at its first write. After that, it measures the
    folder again each time that it has written a twentieth of the limit. If the folder is larger
    than nine tenths of the limit, the process removes files until the folder is no larger than four
    fifths of the limit. Between two measurements, each process may add a twentieth of the limit and
    one file more. So if two processes write, the folder exceeds the limit by at most two files. A
    file can be removed while a reader has it open or mapped: the reader can still read the
    contents.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._bytes_since_measurement = limit  # so that the first write measures the folder
        self._lock = Lock()

    @classmethod
    def from_environment(cls) -> Self:
        """Return the cache that the environment variables describe.

        JOINERY_CACHE is the path of the folder; its default is `joinery` in the user's cache
        folder. JOINERY_CACHE_GB is the limit in units of 10^9 bytes; its default is 20.
        """
        user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(os.environ.get(FOLDER) or user_cache / "joinery").absolute()
        text = os.environ.get(LIMIT) or str(GIGABYTES)
        try:
            limit = int(float(text) * 1e9)
        except (ValueError, OverflowError):
            limit = 0
        if limit <= 0:
            raise DataError(f"{LIMIT}={text}: expected a number above zero, of gigabytes")
        return cls(folder / "objects", limit)

    def path_for(self, key: str) -> Path:
        """Return the path of a key's file; the file need not exist."""
        name = sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name[2:40]

    def read(self, key: str, size: int, span: slice = slice(None)) -> bytes | None:
        """Return the bytes of a key's file, or a span of these bytes.

        Returns None if there is no file, or if the file does not have exactly `size` bytes.
        """
        start, stop, _ = span.indices(size)
        try:
            with self.path_for(key).open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if time_ns() - status.st_mtime_ns > MINUTE:
                    _mark_used(file.fileno())
                if status.st_size != size:
                    return None
                return os.pread(file.fileno(), stop - start, start)
        except OSError:
            return None

    def find(self, key: str) -> Path | None:
        """Return the file of a key and mark the file as used now; return None if there is none."""
        file = self.path_for(key)
        try:
            _mark_used(file)
        except OSError:
            return None
        return file

    def write(self, key: str, data: bytes) -> Path:
        """Store data under a key and return its file; raises DataError if writing fails."""
        file = self.path_for(key)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(file) as temporary:
                temporary.write_bytes(data)
                _mark_used(temporary)
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot write ({error.strerror}); make room, or name another "
                f"folder in {FOLDER}"
            ) from error
        with self._lock:
            self._bytes_since_measurement += len(data)
            if self._bytes_since_measurement * MEASUREMENTS >= self.limit:
                self._bytes_since_measurement = 0
                self._shrink()
        return file

    def drop(self, key: str) -> bool:
        """Remove the file of a key; return False if there was no file."""
        try:
            self.path_for(key).unlink()
        except OSError:
            return False
        return True

    def _shrink(self) -> None:
        """Remove the least recently used files if the folder is nearly full."""
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
        """Yield (time of last use in nanoseconds, size in bytes, path) of each file.

        A temporary file older than a minute was left by a killed process. A younger
        temporary file is not yielded, since a process is still writing it, and removing the file
        would make that write fail.
        """
        with suppress(FileNotFoundError):
            for folder in os.scandir(self.folder):
                for file in os.scandir(folder):
                    with suppress(FileNotFoundError):  # another process may have removed the file
                        status = file.stat()
                        if not file.name.startswith(".") or time_ns() - status.st_mtime_ns > MINUTE:
                            yield status.st_mtime_ns, status.st_size, file.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.limit)


def _mark_used(file: Path | int) -> None:
    now = time_ns()  # more precise than the file system's own clock
    os.utime(file, ns=(now, now))
