"""Where an episode store lies: in a local folder, or below the URL of an object store or a web
server.

A local file is a `Path` and read as such. What lies elsewhere is a `RemotePath`, with as much of a
path's methods as reading a store takes; the functions here are what differs beside that.
"""

import os
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, Self, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from core.store.cache import Cache
from core.store.objects import BlockReader, Objects

R = TypeVar("R")


class URL(str):
    """The address of a store elsewhere: s3://bucket/name.zarr, gs://..., https://... or http://..."""


def address(text: object) -> Path | URL:
    """Read what a recipe or a command line says of a store to read; raises ValueError for what is
    neither.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected a path or a URL, got {text!r}")
    return URL(text) if "://" in text else Path(text)


def local_path(text: str) -> Path:
    """Read what a command line says of a store to write."""
    if "://" in text:
        raise ArgumentTypeError(
            f"{text}: episodes are written to a folder; write them there, then upload it"
        )
    return Path(text)


Address = Annotated[
    Path | URL, PlainValidator(address), WithJsonSchema({"type": "string"})
]  # in a configuration


class Joinable(Protocol):
    """What a Path and a RemotePath have in common when a store's files are named."""

    def __truediv__(self, name: str, /) -> Self:
        """Return what is called `name` in this folder."""

    def joinpath(self, *names: str) -> Self:
        """Return what lies further down."""


@dataclass(frozen=True)
class RemotePath:
    """A place among objects."""

    objects: Objects
    key: str = ""

    def __truediv__(self, name: str, /) -> Self:
        return self.joinpath(name)

    def joinpath(self, *names: str) -> Self:
        """Return what lies further down."""
        return type(self)(self.objects, "/".join([*filter(None, [self.key]), *names]))

    @property
    def name(self) -> str:
        """The last word."""
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


def locate(place: str | Location) -> Location:
    """Return where a store lies; a URL is not asked for anything yet."""
    if isinstance(place, str) and "://" in place:
        return RemotePath(Objects(place, Cache.from_environment()))
    return Path(place) if isinstance(place, str) else place


# --------------------------------------------------------------------------- what differs elsewhere


def each(read: Callable[[Location], R], files: Sequence[Location]) -> list[R]:
    """Call a function that reads on each file; on remote ones on many at once."""
    if files and isinstance(first := files[0], RemotePath):
        return first.objects.each(read, files)
    return [read(file) for file in files]


def fetch(files: Sequence[Location]) -> None:
    """Have copies of remote files on this machine, of those that are there."""
    each(_try_to_copy, files)


def _try_to_copy(file: Location) -> None:
    with suppress(FileNotFoundError):
        copy_of(file)


def copy_of(file: Location) -> Path:
    """Return a local file with the same content: itself, or the cache's copy. Raises OSError or
    DataError.
    """
    return file.objects.copy(file.key) if isinstance(file, RemotePath) else file


def drop_copy(file: Location) -> bool:
    """Forget the cache's copy; False if there is none."""
    return isinstance(file, RemotePath) and file.objects.drop_copy(file.key)


def stream(file: Location, size: int) -> Iterator[bytes]:
    """Yield a file as it is now, about `size` bytes at once. Raises OSError or DataError."""
    if isinstance(file, RemotePath):
        yield from file.objects.stream(file.key, size)
        return
    with file.open("rb") as opened:
        while block := opened.read(size):
            yield block


class RangeReader(Protocol):
    """Reads parts of one file; thread-safe."""

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes start..stop-1, fewer if the file is truncated. Raises OSError or DataError."""

    def prepare(self, start: int, stop: int) -> None:
        """Say that bytes start..stop-1 will soon be read."""

    def drop(self, start: int, stop: int) -> None:
        """Forget copies of bytes start..stop-1, so that they are read from the file itself."""


def open_ranges(file: Location, size: int) -> RangeReader:
    """Open a file of `size` bytes; raises OSError."""
    return (
        BlockReader(file.objects, file.key, size)
        if isinstance(file, RemotePath)
        else FileReader(file)
    )


class FileReader:
    """A local file, read with pread, and closed when nobody holds it any more."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDONLY)

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes start..stop-1, fewer if the file is truncated."""
        return os.pread(self._descriptor, stop - start, start)

    def prepare(self, start: int, stop: int) -> None:
        """Nothing: the disk is near."""

    def drop(self, start: int, stop: int) -> None:
        """Nothing: there are no copies."""

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
