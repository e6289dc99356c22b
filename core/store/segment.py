"""One immutable part of a store: how it is written whole, and how it is read once a commit names
it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from core.episodes.episode import Episode
from core.episodes.statistics import Statistics
from core.errors import DataError
from core.store.codecs import Codec, groups
from core.store.features import as_bytes
from core.store.layout import ArrayRecord, Commit, Task, checksum, chunk_file
from core.store.location import Location, copy_of, drop_copy, open_ranges
from core.system.files import sync, tree

_ZERO = np.zeros(1, np.uint32)
MAX_BYTES = 2**32 - 1  # of one camera's or feature's stream: its offsets are uint32
T = TypeVar("T", bytes, np.ndarray)


# ------------------------------------------------------------------------------------------ writing


@dataclass(frozen=True)
class EncodedEpisode:
    """An episode as a part holds it.

    streams: {camera or feature: encoded groups}. actions, proprio: as in Episode.
    """

    id: str
    task: Task
    streams: Mapping[str, list[bytes]]
    actions: np.ndarray
    proprio: np.ndarray

    @classmethod
    def of(cls, episode: Episode, codecs: Mapping[str, Codec]) -> Self:
        """Encode every camera's and every feature's frames."""
        frames = dict(episode.images)
        for name, array in episode.features.items():
            frames[name] = as_bytes(np.ascontiguousarray(array))
        streams = {
            name: [codec.encode(group) for group in groups(frames[name], codec.group)]
            for name, codec in codecs.items()
        }
        task = Task(episode.task, episode.instruction)
        return cls(episode.id, task, streams, episode.actions.copy(), episode.proprio.copy())


class PendingSegment:
    """Whole episodes, encoded, in memory until `write`.

    paths: where in the part the groups of each camera and each feature go, by name.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = paths
        self._bytes = dict.fromkeys(paths, 0)
        self.episodes: list[EncodedEpisode] = []

    @property
    def size(self) -> int:
        """Bytes of encoded frames."""
        return sum(self._bytes.values())

    def append(self, episode: EncodedEpisode) -> None:
        """Add an episode; raises DataError if a camera's or a feature's stream would grow past 4
        GiB.
        """
        grown = {
            name: self._bytes[name] + sum(map(len, chunks))
            for name, chunks in episode.streams.items()
        }
        if full := [name for name, size in grown.items() if size > MAX_BYTES]:
            raise DataError(
                f"episode '{episode.id}': '{full[0]}' passes 4 GiB in one part; split the episode"
            )
        self.episodes.append(episode)  # in one go: Ctrl-C leaves no half of it
        self._bytes = grown

    def write(self, folder: Path) -> Commit:
        """Write the part as a zarr v3 group and flush it to the disk; return the commit that makes
        it visible.
        """
        tasks = tuple(dict.fromkeys(episode.task for episode in self.episodes))
        arrays = self._arrays(tasks)
        _write_zarr(folder, arrays)
        sync(*tree(folder), folder.parent)
        return Commit(
            part=folder.name,
            frames=len(arrays["action"]),
            episodes=tuple(episode.id for episode in self.episodes),
            tasks=tasks,
            arrays={
                name: ArrayRecord(array.shape, checksum(array.tobytes()))
                for name, array in arrays.items()
            },
            statistics={name: Statistics.of(arrays[name]) for name in ("action", "proprio")},
        )

    def _arrays(self, tasks: tuple[Task, ...]) -> dict[str, np.ndarray]:
        arrays = {}
        for name, path in self._paths.items():
            chunks = [chunk for episode in self.episodes for chunk in episode.streams[name]]
            arrays[f"{path}/data"] = np.frombuffer(b"".join(chunks), np.uint8)
            arrays[f"{path}/end"] = np.cumsum([len(chunk) for chunk in chunks]).astype(np.uint32)
            arrays[f"{path}/crc"] = np.array([checksum(chunk) for chunk in chunks], np.uint32)
        return arrays | {
            "action": np.concatenate([episode.actions for episode in self.episodes]),
            "proprio": np.concatenate([episode.proprio for episode in self.episodes]),
            "episode/end": np.cumsum([len(episode.actions) for episode in self.episodes]).astype(
                np.int32
            ),
            "episode/task": np.array(
                [tasks.index(episode.task) for episode in self.episodes], np.int32
            ),
        }


def _write_zarr(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    import zarr  # 0.3 s, and readers need none of it

    root = zarr.create_group(folder, zarr_format=3)
    for name, array in arrays.items():
        parent, _, leaf = name.rpartition("/")
        created = (root.require_group(parent) if parent else root).create_array(
            leaf,
            shape=array.shape,
            chunks=tuple(max(1, length) for length in array.shape),
            dtype=array.dtype,
            compressors=None,
            config={
                "write_empty_chunks": True
            },  # an array of zeros would leave no file, like a lost one
        )
        if array.size:
            created[...] = array


# ------------------------------------------------------------------------------------------ reading


class DamagedBlock(Exception):  # noqa: N818 (it says what it is)
    """Group number `group` of a stream is damaged or cut off."""

    def __init__(self, group: int) -> None:
        super().__init__(group)
        self.group = group


class FrameStream:
    """The byte stream of a camera or a feature, read in ranges.

    Thread-safe, and closed when nobody holds it any more. path: where in the part it lies,
    "cam/front" for example.
    """

    def __init__(self, part: Location, path: str, records: Mapping[str, ArrayRecord]) -> None:
        self.file = chunk_file(part, f"{path}/data", 1)
        # indexed as lists are, in a ninth of the memory: parts of small frames hold a hundred
        # thousand groups
        self.end = np.concatenate((_ZERO, read_array(part, f"{path}/end", records, "<u4"))).data
        self.crc = read_array(part, f"{path}/crc", records, "<u4").data
        try:
            self._ranges = open_ranges(self.file, self.end[-1])
        except OSError as error:
            raise DataError(
                f"{self.file}: {error.strerror}; restore the file or import again"
            ) from error

    def read(self, first: int, stop: int) -> tuple[bytes, list[int]]:
        """Return groups first..stop-1, back to back, and where in the stream each begins and the
        last ends.

        Raises DamagedBlock for the first that is damaged or cut off.
        """
        bounds = self.end[first : stop + 1].tolist()
        begin = bounds[0]
        data = self._ranges.read(begin, bounds[-1])
        array = np.frombuffer(data, np.uint8)  # a slice of it is no copy
        for low, high, crc in zip(bounds, bounds[1:], self.crc[first:stop], strict=False):
            if checksum(array[low - begin : high - begin]) != crc:
                return b"".join(self._read_again(group) for group in range(first, stop)), bounds
        return data, bounds

    def _read_again(self, group: int) -> bytes:
        """Read a group, from the file itself where a copy of it is damaged."""
        span = self.end[group], self.end[group + 1]
        for _ in range(2):
            if checksum(data := self._ranges.read(*span)) == self.crc[group]:
                return data
            self._ranges.drop(*span)  # of a remote file; once that is mended, it is seen
        raise DamagedBlock(group)

    def prepare(self, first: int, stop: int) -> None:
        """Begin to fetch groups first..stop-1 where the stream is remote."""
        self._ranges.prepare(self.end[first], self.end[stop])


class OpenSegment:
    """The arrays of one part; their checksums are verified here, those of the frames whenever they
    are read.
    """

    def __init__(self, part: Location, records: Mapping[str, ArrayRecord]) -> None:
        self._part = part
        self._records = records
        self._streams: dict[str, FrameStream] = {}
        self.numbers = {
            feature: _map_array(part, feature, records) for feature in ("action", "proprio")
        }

    def stream(self, path: str) -> FrameStream:
        """Return the stream that lies at a path in the part, opened at its first use."""
        if path not in self._streams:
            self._streams[path] = FrameStream(self._part, path, self._records)
        return self._streams[path]


def read_array(
    part: Location, name: str, records: Mapping[str, ArrayRecord], dtype: str
) -> np.ndarray:
    """Read a whole array and verify it; raises DataError that names the file."""
    record = records[name]
    data = _verified(chunk_file(part, name, len(record.shape)), record, Path.read_bytes)
    return np.frombuffer(data, dtype).reshape(record.shape)


def _map_array(part: Location, name: str, records: Mapping[str, ArrayRecord]) -> np.ndarray:
    """Map a float32 array (n d) into memory and verify it once."""
    record = records[name]
    if 0 in record.shape:
        return np.zeros(record.shape, np.float32)
    file = chunk_file(part, name, len(record.shape))
    return _verified(file, record, lambda copy: _mapped(copy, record))


def _mapped(file: Path, record: ArrayRecord) -> np.ndarray:
    with file.open(
        "rb", 0
    ) as stream:  # np.memmap asks the system a dozen more questions about the path
        mapped = mmap(stream.fileno(), 4 * prod(record.shape), access=ACCESS_READ)
    return np.frombuffer(mapped, "<f4").reshape(record.shape)


def _verified(file: Location, record: ArrayRecord, read: Callable[[Path], T]) -> T:
    """Read a whole file or its copy; a copy that is damaged is fetched once more."""
    for _ in range(2):
        try:
            data = read(copy_of(file))
            if checksum(bytes(data)) == record.crc32c:
                return data
            problem = "damaged, its checksum does not match"
        except (OSError, ValueError) as error:
            problem = f"missing or truncated ({getattr(error, 'strerror', None) or error})"
        if not drop_copy(file):
            break
    raise DataError(f"{file}: {problem}; restore the file or import again")
