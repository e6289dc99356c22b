"""How an episode store lies on disk: its commits, and the names of its files; `attributes` holds
its metadata.

    store.zarr/                zarr v3 group; its attributes are the StoreInfo, and the codecs of cameras and features
      parts/<uuid>/            an immutable zarr v3 group, invisible until a commit names it
        cam/<name>/data        uint8: encoded groups of frames back to back, one uncompressed chunk: a byte stream
        cam/<name>/end         uint32: where each group ends in the stream
        cam/<name>/crc         uint32: crc32c of each group
        feature/<name>/...     the same three of a named feature, whose groups are the frames' bytes, compressed
        action, proprio        float32 (n, d), one uncompressed chunk: memory-mapped as it lies
        episode/end, task      int32: where each episode ends, and its index into the commit's tasks
      commits/<sequence>.json  what the part holds, with checksums; readers trust commits alone

Groups of frames never span two episodes.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

import google_crc32c
import numpy as np
from pydantic import TypeAdapter

from core.episodes.episode import StoreInfo
from core.episodes.statistics import Statistics
from core.errors import DataError
from core.store.location import Joinable, Location, RemotePath, each
from core.system.files import sync
from core.system.strict import one_line

AT_ONCE = 64  # commits that are held in memory together
PROBED = 32  # commits that a server without listings is asked for at once
P = TypeVar("P", bound=Joinable)


def checksum(data: bytes | np.ndarray) -> int:
    """Return the crc32c of data."""
    crc: int = google_crc32c.value(data)
    return crc


def chunk_file(part: P, array: str, ndim: int) -> P:
    """Return the file of an array's only chunk."""
    return part / f"{array}/c{'/0' * ndim}"


def stream_paths(info: StoreInfo) -> dict[str, str]:
    """Return where in a part the groups of each camera and each feature lie, by name."""
    cameras = {name: f"cam/{name}" for name in info.cameras}
    return cameras | {name: f"feature/{name}" for name in info.features}


@dataclass(frozen=True)
class Task:
    """A task and what the robot is told."""

    name: str
    instruction: str


@dataclass(frozen=True)
class ArrayRecord:
    """Shape and crc32c of an array's bytes."""

    shape: tuple[int, ...]
    crc32c: int


@dataclass(frozen=True)
class Commit:
    """What one part holds.

    part: its folder's name.
    frames: their number.
    episodes: their ids, in the order of the frames.
    tasks: what `episode/task` indexes.
    arrays: by path inside the part.
    statistics: of "action" and "proprio".
    """

    part: str
    frames: int
    episodes: tuple[str, ...]
    tasks: tuple[Task, ...]
    arrays: dict[str, ArrayRecord]
    statistics: dict[str, Statistics]


_COMMIT = TypeAdapter(Commit)
_SERIALISED = re.compile(rb'\{"commit":(.*),"crc32c":(\d+)\}', re.DOTALL)


def read_commits(path: Location, first: int = 0) -> Iterator[Commit]:
    """Read a store's commits from number `first` on, one by one; raises DataError for one damaged
    or missing.
    """
    files = commit_files(path)[first:]
    for number, file in enumerate(files, first):
        if file != commit_file(path, number):
            raise DataError(
                f"{commit_file(path, number)}: missing, though {file.name} exists; restore it"
            )
    for begin in range(0, len(files), AT_ONCE):
        yield from each(read_commit, files[begin : begin + AT_ONCE])


def commit_files(path: Location) -> Sequence[Location]:
    """The files of a store's commits, in order; raises DataError where their folder is missing."""
    if isinstance(path, RemotePath):
        return _remote_commit_files(path)
    if not (path / "commits").is_dir():
        raise DataError(
            f"{path / 'commits'}: not there; where a repair was interrupted, rename commits.repaired beside it to that"
        )
    return sorted((path / "commits").glob("[0-9]*.json"))


def _remote_commit_files(path: RemotePath) -> list[RemotePath]:
    found = _listed(path) if path.objects.can_list else _probed(path)
    if not found:  # nor are there folders without objects
        raise DataError(f"{path / 'commits'}: holds none; upload the whole store")
    return found


def _listed(path: RemotePath) -> list[RemotePath]:
    return [path / key for key in path.objects.keys("commits") if re.search(r"/\d+\.json$", key)]


def _probed(path: RemotePath) -> list[RemotePath]:
    """The commits on a server without listings: asked for PROBED numbers at once, until it has none
    of those.

    So a commit that is missing between others is noticed, as it is in a folder.
    """
    found: list[RemotePath] = []
    there, first = [True], 0
    while any(there):
        asked = [commit_file(path, number) for number in range(first, first + PROBED)]
        there = path.objects.each(path.objects.exists, [file.key for file in asked])
        found += compress(asked, there)
        first += PROBED
    return found


def check_commit(path: Location, info: StoreInfo, number: int, commit: Commit) -> None:
    """Raise DataError where a store's metadata and the arrays of a part contradict each other."""
    widths = {
        "action": (commit.frames, info.action.dim),
        "proprio": (commit.frames, len(info.proprio)),
    }
    for name, shape in widths.items():
        if name not in commit.arrays or commit.arrays[name].shape != shape:
            _contradict(path, number, f"{name} of {shape[0]} frames and {shape[1]} names")
    for name, stream in stream_paths(info).items():
        if not {f"{stream}/{array}" for array in ("data", "end", "crc")} <= commit.arrays.keys():
            _contradict(
                path, number, f"a {'camera' if name in info.cameras else 'feature'} '{name}'"
            )


def _contradict(path: Location, number: int, promise: str) -> NoReturn:
    file = commit_file(path, number)
    raise DataError(
        f"{path / 'zarr.json'}: promises {promise}, {file.name} says otherwise; restore it or import again"
    )


def commit_file(path: P, number: int) -> P:
    """Return where a commit lies."""
    return path / "commits" / f"{number:08d}.json"


def read_commit(file: Location) -> Commit:
    """Read one commit; raises DataError for one that is damaged."""
    try:
        canonical, crc32c = _parse(file.read_bytes())
        if crc32c == checksum(canonical):
            return _COMMIT.validate_json(canonical)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: commit is unreadable ({one_line(error)}); restore the file or import again"
        ) from error
    raise DataError(f"{file}: commit does not match its checksum; restore the file or import again")


def publish(path: Path, number: int, commit: Commit) -> bool:
    """Make commit `number` appear whole, or return False if that number is taken: a hard link never
    overwrites.
    """
    text = serialise(commit)
    temporary = path / "commits" / f".{uuid4().hex}"
    try:
        with temporary.open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, commit_file(path, number))
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync(path / "commits")
    return True


def serialise(commit: Commit) -> str:
    """Write a commit as its file holds it: in canonical JSON, over which the checksum is taken."""
    canonical = _canonical(_COMMIT.dump_python(commit, mode="json"))
    return f'{{"commit":{canonical.decode()},"crc32c":{checksum(canonical)}}}'


def _parse(text: bytes) -> tuple[bytes, int]:
    """Return a commit in canonical JSON, and its checksum, from what its file holds."""
    if written := _SERIALISED.fullmatch(text):
        return written[1], int(
            written[2]
        )  # to read and write its thousands of numbers again takes ten times as long
    content = json.loads(text)  # by another writer
    return _canonical(content["commit"]), content["crc32c"]


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
