"""The layout of an episode store on disk: its commits, and the names of its files.

    store.zarr/                zarr v3 group; core/store/attributes.py describes its attributes
      parts/<uuid>/            a segment: an immutable zarr v3 group; invisible without a commit
        cam/<name>/data        uint8: encoded blocks of frames back to back, one uncompressed chunk
        cam/<name>/end         uint32: the offset in `data` at which each block ends
        cam/<name>/crc         uint32: crc32c of each block
        feature/<name>/...     the same three arrays for a named feature
        action, proprio        float32 (n, d), one uncompressed chunk each, which is memory-mapped
        episode/end, task      int32: where each episode ends; index of its task in the commit
      commits/<index>.json     what one segment holds, with checksums; readers see no other segments

All frames of a block belong to the same episode. On disk, segments are called parts.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from math import prod
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import google_crc32c
import numpy as np
from pydantic import Field, TypeAdapter

from core.episodes.episode import StoreInfo, check_name
from core.episodes.statistics import Statistics
from core.errors import DataError
from core.store.location import Joinable, Location, RemotePath, check_inside, map_files
from core.system.files import remove, sync
from core.system.links import inside
from core.system.strict import one_line, parse_json

# maximum number of commits that are held in memory at once
COMMITS_AT_ONCE = 64
# no array of a segment has as many entries: streams have offsets of 32 bits
MAX_ENTRIES = 2**40
# how many commit files to probe for in parallel on a server that cannot list files
PROBES_AT_ONCE = 32
P = TypeVar("P", bound=Joinable)


def checksum(data: bytes | np.ndarray) -> int:
    """Return the crc32c of data."""
    crc: int = google_crc32c.value(data)
    return crc


def segment_folder(path: P, name: str) -> P:
    """Return the folder of a segment."""
    return path / "parts" / name


def chunk_file(segment: P, array: str, ndim: int) -> P:
    """Return the file of an array; each array is a single chunk, and so a single file."""
    return segment / f"{array}/c{'/0' * ndim}"


def stream_paths(info: StoreInfo) -> dict[str, str]:
    """Return {camera or feature: path of its stream inside a segment}."""
    cameras = {name: f"cam/{name}" for name in info.cameras}
    return cameras | {name: f"feature/{name}" for name in info.features}


@dataclass(frozen=True)
class Task:
    """A task's name and its instruction."""

    name: str
    instruction: str


@dataclass(frozen=True)
class ArrayRecord:
    """An array's shape, and the crc32c of its bytes."""

    shape: tuple[int, ...]
    crc32c: int

    def __post_init__(self) -> None:
        is_valid = all(length >= 0 for length in self.shape) and prod(self.shape) < MAX_ENTRIES
        if len(self.shape) > 2 or not is_valid:
            raise ValueError(f"an array has the shape {str(self.shape)[:80]}")


@dataclass(frozen=True)
class Commit:
    """What one segment holds.

    segment: the name of the segment's folder; in the commit's file, this key is "part".
    frames: number of frames.
    episodes: the episodes' ids, in the order of the frames.
    tasks: the tasks of the segment; the array `episode/task` holds indices into them.
    arrays: {path inside the segment: shape and checksum of the array at that path}.
    statistics: {"action" or "proprio": its statistics}.
    """

    segment: Annotated[str, Field(alias="part")]
    frames: int
    episodes: tuple[str, ...]
    tasks: tuple[Task, ...]
    arrays: dict[str, ArrayRecord]
    statistics: dict[str, Statistics]

    def __post_init__(self) -> None:
        check_name(self.segment, "segment")
        for path in self.arrays:
            for name in path.split("/"):
                check_name(name, "array")
        if not 0 <= self.frames < MAX_ENTRIES:
            raise ValueError(f"a segment has {self.frames} frames")


_COMMIT = TypeAdapter(Commit)


# ------------------------------------------------------------------------------------------ reading


def read_commits(path: Location, first: int = 0) -> Iterator[Commit]:
    """Yield the commits whose index is `first` or higher.

    Raises DataError if a commit is damaged or missing.
    """
    files = commit_files(path)[first:]
    for number, file in enumerate(files, first):
        if file != commit_file(path, number):
            raise DataError(
                f"{commit_file(path, number)}: missing, though {file.name} exists; restore it"
            )
    for begin in range(0, len(files), COMMITS_AT_ONCE):
        yield from map_files(read_commit, files[begin : begin + COMMITS_AT_ONCE])


def commit_files(path: Location) -> Sequence[Location]:
    """Return the commit files of a store, in order; raises DataError if their folder is missing."""
    if isinstance(path, RemotePath):
        files = list_numbered(path, "commits")
        if not files:  # in an object store, a missing folder looks the same as an empty folder
            raise DataError(f"{path / 'commits'}: holds no commits; upload the whole store")
        return files
    if not inside(path, "commits").is_dir():
        raise DataError(
            f"{path / 'commits'}: missing; if a repair was interrupted, rename commits.repaired "
            "beside it to commits"
        )
    return sorted((path / "commits").glob("[0-9]*.json"))


def list_numbered(path: Location, folder: str) -> Sequence[Location]:
    """Return the files <index>.json in a folder of a store, in order; the folder may be missing."""
    if isinstance(path, RemotePath):
        return _list(path, folder) if path.objects.can_list else _probe(path, folder)
    return sorted(inside(path, folder).glob("[0-9]*.json"))


def _list(path: RemotePath, folder: str) -> list[RemotePath]:
    return [path / key for key in path.objects.keys(folder) if re.search(r"/\d+\.json$", key)]


def _probe(path: RemotePath, folder: str) -> list[RemotePath]:
    """Find files on a server that cannot list files, by asking for the file of each index.

    The indices are probed in groups of PROBES_AT_ONCE; the search ends after the first group that
    contains no file. So a missing file before the last one is noticed, unless a whole group is
    missing.
    """
    files: list[RemotePath] = []
    exists, first = [True], 0
    while any(exists):
        numbers = range(first, first + PROBES_AT_ONCE)
        probes = [path / folder / f"{number:08d}.json" for number in numbers]
        exists = path.objects.map(path.objects.exists, [file.key for file in probes])
        files += compress(probes, exists)
        first += PROBES_AT_ONCE
    return files


def commit_file(path: P, number: int) -> P:
    """Return the file of the commit with index `number`."""
    return path / "commits" / f"{number:08d}.json"


def read_commit(file: Location) -> Commit:
    """Read one commit file; raises DataError if it is damaged, or a link that leads elsewhere."""
    check_inside(file, depth=2)
    try:
        canonical, crc32c = _split(file.read_bytes())
        if crc32c == checksum(canonical):
            return _COMMIT.validate_json(canonical)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: commit is unreadable ({one_line(error)}); restore the file or import again"
        ) from error
    raise DataError(f"{file}: commit does not match its checksum; restore the file or import again")


# ------------------------------------------------------------------------------------------ writing


def publish(path: Path, number: int, commit: Commit) -> bool:
    """Write the file of commit `number` in one step; return False if that commit exists already."""
    return publish_file(commit_file(path, number), serialise(commit))


def publish_file(file: Path, content: str) -> bool:
    """Write a new file in one step; return False if it exists already.

    The file is put in place by a hard link, which, unlike a rename, never overwrites a file. So if
    two writers try the same name, only one of them gets it.
    """
    temporary = file.with_name(f".{uuid4().hex}")
    try:
        temporary.write_text(content)
        sync(temporary)
        os.link(temporary, file)
    except FileExistsError:
        return False
    finally:
        remove(temporary)
    sync(file.parent)
    return True


def checked_json(content: Any) -> str:
    """Return JSON that holds `content` and its checksum, for a small file of a store."""
    canonical = _canonical(content)
    return json.dumps({"content": content, "crc32c": checksum(canonical)}, indent=1)


def parse_checked(file: Location) -> bytes:
    """Return the content of a file of `checked_json`, as JSON.

    Raises OSError, KeyError, TypeError or ValueError for a damaged file, and DataError for a link
    that leads out of the store.
    """
    check_inside(file, depth=2)
    parsed = parse_json(file.read_bytes())
    canonical = _canonical(parsed["content"])
    if parsed["crc32c"] != checksum(canonical):
        raise ValueError("it does not match its checksum")
    return canonical


# A commit's file is {"commit": ..., "crc32c": ...}. The checksum is taken over the commit in
# canonical JSON, with sorted keys and without spaces, and `serialise` writes the commit in that
# form. So a reader can cut the commit's bytes out of the file and check them without parsing.
_BEGIN, _MIDDLE, _END = b'{"commit":', b',"crc32c":', b"}"


def serialise(commit: Commit) -> str:
    """Return the content of a commit's file."""
    canonical = _canonical(_COMMIT.dump_python(commit, mode="json", by_alias=True))
    crc32c = str(checksum(canonical)).encode()
    return (_BEGIN + canonical + _MIDDLE + crc32c + _END).decode()


def _split(content: bytes) -> tuple[bytes, int]:
    """Split the content of a commit's file into the commit in canonical JSON and its checksum."""
    begin, _, end = content.rpartition(_MIDDLE)
    crc32c = end.removesuffix(_END)
    if begin.startswith(_BEGIN) and crc32c != end and crc32c.isdigit():
        # cutting the file is ten times as fast as parsing the thousands of numbers in the commit
        # and serialising them again
        return begin.removeprefix(_BEGIN), int(crc32c)
    # the file holds the same JSON in another form, indented for example
    parsed = parse_json(content)
    return _canonical(parsed["commit"]), parsed["crc32c"]


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
