"""Where an episode store lies: a local folder, or the URL of an object store or a web server.

A local file is a `Path`. A remote file is a `RemotePath`, which has the methods of `Path` that
readers of a store use. The functions below hide the other differences between the two.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, Self, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from core.store.cache import Cache
from core.store.objects import CachedReader, Objects
from core.system.links import check_way

R = TypeVar("R")


class URL(str):
    """The address of a remote store: s3://bucket/name.zarr, gs://..., https://... or http://..."""


def address(text: object) -> Path | URL:
    """Turn a string into the address of a store: a path or a URL.

    Raises ValueError if `text` is not a string that can be such an address.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected a path or a URL, got {text!r}")
    return URL(text) if "://" in text else Path(text)


# the type of an address in a configuration
Address = Annotated[Path | URL, PlainValidator(address), WithJsonSchema({"type": "string"})]


class Joinable(Protocol):
    """The methods of Path and RemotePath that join a folder's path and the name of a file."""

    def __truediv__(self, name: str, /) -> Self:
        """Return the path of `name` in this folder."""

    def joinpath(self, *names: str) -> Self:
        """Return the path name1/name2/... in this folder, for the given `names`."""


@dataclass(frozen=True)
class RemotePath:
    """The path of a remote file or folder.

    For a file, it is the key of an object. For a folder, it is the prefix that the keys of all
    objects in the folder share.
    """

    objects: Objects
    key: str = ""

    def __truediv__(self, name: str, /) -> Self:
        return self.joinpath(name)

    def joinpath(self, *names: str) -> Self:
        """Return the path name1/name2/... in this folder, for the given `names`."""
        return type(self)(self.objects, "/".join([*filter(None, [self.key]), *names]))

    @property
    def name(self) -> str:
        """The last component of the path."""
        return str(self).rpartition("/")[2]

    def read_bytes(self) -> bytes:
        """Read the object as it is now; raises OSError or DataError."""
        return self.objects.read(self.key)

    def read_text(self) -> str:
        """Read the object as it is now; raises OSError or DataError."""
        return self.read_bytes().decode()

    def __str__(self) -> str:
        return "/".join([self.objects.url, *filter(None, [self.key])])


Location = Path | RemotePath


def locate(store: str | Location) -> Location:
    """Return the location of a store, which may be a path or a URL; makes no request."""
    if isinstance(store, str) and "://" in store:
        return RemotePath(Objects(store, Cache.from_environment()))
    return Path(store) if isinstance(store, str) else store


# --------------------------------------------------------------------- local and remote files alike


def check_inside(file: Location, depth: int) -> None:
    """Raise DataError if a local file is reached by a link that leads out of its store.

    depth: how many components the file's path has inside the store, 2 for commits/00000000.json.
    """
    if isinstance(file, Path):
        check_way(file, depth)


def map_files(read: Callable[[Location], R], files: Sequence[Location]) -> list[R]:
    """Call `read` on every file; remote files are read many at a time, local ones one by one."""
    if files and isinstance(first := files[0], RemotePath):
        return first.objects.map(read, files)
    return [read(file) for file in files]


def fetch(files: Sequence[Location]) -> None:
    """Copy remote files into the cache; files that do not exist are skipped."""

    def fetch_one(file: Location) -> None:
        with suppress(FileNotFoundError):
            local_copy(file)

    map_files(fetch_one, files)


def local_copy(file: Location) -> Path:
    """Return a local file, or the cache's copy of a remote one; raises OSError or DataError."""
    return file.objects.copy(file.key) if isinstance(file, RemotePath) else file


def drop_copy(file: Location) -> bool:
    """Remove the cache's copy of a file; return False if there is no copy."""
    return isinstance(file, RemotePath) and file.objects.drop_copy(file.key)


def stream(file: Location, size: int) -> Iterator[bytes]:
    """Yield a file in pieces of about `size` bytes, bypassing the cache.

    Raises OSError or DataError.
    """
    if isinstance(file, RemotePath):
        yield from file.objects.stream(file.key, size)
        return
    with file.open("rb") as local_file:
        while piece := local_file.read(size):
            yield piece


class RangeReader(Protocol):
    """Reads ranges of one file; thread-safe."""

    size: int
    """number of bytes of the file; of a remote one, as its commit says."""

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes start..stop-1, or fewer bytes if the file is truncated.

        Raises OSError or DataError.
        """

    def prepare(self, start: int, stop: int) -> None:
        """Announce that bytes start..stop-1 will soon be read, so that they can be fetched now."""

    def drop(self, start: int, stop: int) -> None:
        """Remove the cache's copies of bytes start..stop-1, so that the file itself is read."""


def open_ranges(file: Location, size: int) -> RangeReader:
    """Return a reader of a file that has `size` bytes; raises OSError."""
    if isinstance(file, RemotePath):
        return CachedReader(file.objects, file.key, size)
    return FileReader(file)


class FileReader:
    """Reads ranges of a local file with pread.

    The file is closed when the last reference to this object is gone.
    """

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes start..stop-1, or fewer bytes if the file is truncated."""
        # as many bytes as are asked for are allocated, also if the file is shorter
        return os.pread(self._descriptor, max(0, min(stop, self.size) - start), start)

    def prepare(self, start: int, stop: int) -> None:
        """Do nothing: a local file needs no fetching."""

    def drop(self, start: int, stop: int) -> None:
        """Do nothing: the cache holds no copies of local files."""

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
