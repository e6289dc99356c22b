"""One immutable segment of a store; readers see it when a commit names it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Self, TypeVar

import google_crc32c
import numpy as np

from core.episodes.episode import Episode
from core.episodes.frames import Images
from core.episodes.statistics import Statistics
from core.errors import DataError
from core.store.codecs import Codec, as_bytes, split_blocks
from core.store.layout import ArrayRecord, Commit, Task, checksum, chunk_file
from core.store.location import Location, check_inside, drop_copy, local_copy, open_ranges
from core.system.files import sync, tree

# maximum size of the stream of a camera or a feature, since offsets in the stream are uint32
MAX_BYTES = 2**32 - 1
_ZERO = np.zeros(1, np.uint32)
T = TypeVar("T", bytes, np.ndarray)


# ------------------------------------------------------------------------------------------ writing


@dataclass(frozen=True)
class EncodedEpisode:
    """An episode in the form in which a segment holds it: with encoded frames.

    streams: {camera or feature: encoded blocks}.
    actions, proprio: as in Episode.
    """

    id: str
    task: Task
    streams: Mapping[str, list[bytes]]
    actions: np.ndarray
    proprio: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    @classmethod
    def of(cls, episode: Episode, codecs: Mapping[str, Codec]) -> Self:
        """Encode the frames of every camera and every feature."""
        frames: dict[str, Images] = dict(episode.images)
        for name, array in episode.features.items():
            frames[name] = as_bytes(np.ascontiguousarray(array))
        streams = {
            name: [codec.encode(block) for block in split_blocks(frames[name], codec.block_size)]
            for name, codec in codecs.items()
        }
        task = Task(episode.task, episode.instruction)
        return cls(episode.id, task, streams, episode.actions.copy(), episode.proprio.copy())


class PendingSegment:
    """A segment that is not written yet; its encoded episodes are held in memory until `write`.

    paths: {camera or feature: path of its stream inside the segment}.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = paths
        self._bytes = dict.fromkeys(paths, 0)
        self.episodes: list[EncodedEpisode] = []

    @property
    def size(self) -> int:
        """Number of bytes of all encoded frames together."""
        return sum(self._bytes.values())

    def append(self, episode: EncodedEpisode) -> None:
        """Add an episode; raises DataError if one of its streams would grow past 4 GiB."""
        sizes = {
            name: self._bytes[name] + sum(map(len, blocks))
            for name, blocks in episode.streams.items()
        }
        for name, size in sizes.items():
            if size > MAX_BYTES:
                raise DataError(
                    f"episode '{episode.id}': '{name}' passes 4 GiB in one segment; "
                    "split the episode"
                )
        self.episodes.append(episode)  # a single step, so that Ctrl-C cannot leave half an episode
        self._bytes = sizes

    def write(self, folder: Path) -> Commit:
        """Write the segment as a zarr v3 group, flush it to the disk, and return its commit.

        The segment is invisible until that commit is published.
        """
        tasks = tuple(dict.fromkeys(episode.task for episode in self.episodes))
        actions = np.concatenate([episode.actions for episode in self.episodes])
        proprio = np.concatenate([episode.proprio for episode in self.episodes])
        records = _write_zarr(
            folder,
            chain(
                self._streams(),
                self._episode_arrays(tasks),
                [("action", actions), ("proprio", proprio)],
            ),
        )
        sync(*tree(folder), folder.parent)
        return Commit(
            segment=folder.name,
            frames=len(actions),
            episodes=tuple(episode.id for episode in self.episodes),
            tasks=tasks,
            arrays=records,
            statistics={"action": Statistics.of(actions), "proprio": Statistics.of(proprio)},
        )

    def _streams(self) -> Iterator[tuple[str, "_Content"]]:
        """Yield (path inside the segment, content) of the encoded frames and where they are."""
        for name, path in self._paths.items():
            blocks = [block for episode in self.episodes for block in episode.streams[name]]
            yield f"{path}/data", blocks
            yield f"{path}/end", np.cumsum([len(block) for block in blocks]).astype(np.uint32)
            yield f"{path}/crc", np.array([checksum(block) for block in blocks], np.uint32)

    def _episode_arrays(self, tasks: tuple[Task, ...]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (path inside the segment, array) of where episodes end, and of their tasks."""
        lengths = [len(episode.actions) for episode in self.episodes]
        yield "episode/end", np.cumsum(lengths).astype(np.int32)
        task_numbers = [tasks.index(episode.task) for episode in self.episodes]
        yield "episode/task", np.array(task_numbers, np.int32)


# An array, or the bytes of an array of uint8 in pieces, which may take hundreds of megabytes.
_Content = np.ndarray | Sequence[bytes]


def _write_zarr(folder: Path, contents: Iterable[tuple[str, _Content]]) -> dict[str, ArrayRecord]:
    """Write arrays one after the other; return {path inside the segment: shape and checksum}."""
    import zarr  # imported here because the import takes 0.3 s, and readers do not need zarr

    root, records = zarr.create_group(folder, zarr_format=3), {}
    for name, content in contents:
        if isinstance(content, np.ndarray):
            pieces: Sequence[bytes] = [content.tobytes()]
            shape, dtype = content.shape, content.dtype
        else:
            shape, dtype, pieces = (sum(map(len, content)),), np.dtype(np.uint8), content
        parent, _, leaf = name.rpartition("/")
        group = root.require_group(parent) if parent else root
        chunks = tuple(max(1, length) for length in shape)
        group.create_array(leaf, shape=shape, chunks=chunks, dtype=dtype, compressors=None)
        crc = 0
        if 0 not in shape:
            # The array is one uncompressed chunk. zarr would copy it twice to write it, and would
            # write no file for zeros, which readers would report as missing.
            file = chunk_file(folder, name, len(shape))
            file.parent.mkdir(parents=True)
            with file.open("wb") as stream:
                for piece in pieces:
                    stream.write(piece)
                    crc = google_crc32c.extend(crc, piece)
        records[name] = ArrayRecord(shape, crc)
    return records


# ------------------------------------------------------------------------------------------ reading


class DamagedBlock(Exception):  # noqa: N818 (it says what it is)
    """The block with index `block` of a stream is damaged or truncated."""

    def __init__(self, block: int) -> None:
        super().__init__(block)
        self.block = block


class FrameStream:
    """Reads the encoded frames of a camera or a feature in one segment, in ranges of blocks.

    Thread-safe. The file is closed when the last reference to this object is gone.

    path: path of the stream inside the segment, "cam/front" for example.
    """

    def __init__(self, segment: Location, path: str, records: Mapping[str, ArrayRecord]) -> None:
        self.file = chunk_file(segment, f"{path}/data", 1)
        _check_inside(self.file, segment)
        # `.data` is a memoryview: its entries are Python numbers, as in a list, but a memoryview
        # takes a ninth of a list's memory. A segment of small frames has 100,000 blocks.
        self.end = np.concatenate((_ZERO, read_array(segment, f"{path}/end", records, "<u4"))).data
        self.crc = read_array(segment, f"{path}/crc", records, "<u4").data
        ends = np.asarray(self.end)
        if ends.ndim != 1 or len(self.crc) + 1 != len(ends) or (ends[1:] < ends[:-1]).any():
            raise DataError(
                f"{self.file.parent.parent if isinstance(self.file, Path) else self.file}: `end` "
                "and `crc` are no bounds and checksums of blocks; restore them or import again"
            )
        try:
            self._ranges = open_ranges(self.file, self.end[-1])
        except OSError as error:
            raise DataError(
                f"{self.file}: {error.strerror}; restore the file or import again"
            ) from error

    def read(self, first: int, stop: int) -> tuple[bytes, list[int]]:
        """Return blocks first..stop-1 back to back, and their bounds.

        The bounds are byte offsets in the stream: where each block begins, and where the last block
        ends. Raises DamagedBlock for the first block that is damaged or truncated.
        """
        if stop > len(self.crc):
            raise DamagedBlock(max(first, len(self.crc)))
        bounds = self.end[first : stop + 1].tolist()
        begin = bounds[0]
        data = self._ranges.read(begin, bounds[-1])
        # slices of an array are views; slices of `bytes` would be copies
        array = np.frombuffer(data, np.uint8)
        for low, high, crc in zip(bounds, bounds[1:], self.crc[first:stop], strict=False):
            if checksum(array[low - begin : high - begin]) != crc:
                return b"".join(self._read_again(block) for block in range(first, stop)), bounds
        return data, bounds

    def _read_again(self, block: int) -> bytes:
        """Read a block; if the cache's copy is damaged, fetch the block once more."""
        start, stop = self.end[block], self.end[block + 1]
        for _ in range(2):
            data = self._ranges.read(start, stop)
            if checksum(data) == self.crc[block]:
                return data
            # drop the damaged copy, so that the next read fetches the block from the remote file
            self._ranges.drop(start, stop)
        raise DamagedBlock(block)

    def stored_bytes(self, first: int, stop: int) -> int:
        """Return how many bytes of blocks first..stop-1 there are, fewer if some are missing."""
        last = len(self.crc)
        begin, end = self.end[min(first, last)], self.end[min(stop, last)]
        return max(0, min(end, self._ranges.size) - begin)

    def prepare(self, first: int, stop: int) -> None:
        """Begin to fetch blocks first..stop-1 if the stream is remote."""
        self._ranges.prepare(self.end[first], self.end[stop])


class OpenSegment:
    """The arrays of one segment.

    Opening verifies the checksums of the actions and the proprioception. The checksums of frames
    are verified each time that the frames are read.

    numbers: {"action": (n A), "proprio": (n P)} float32, memory-mapped.
    """

    def __init__(self, segment: Location, records: Mapping[str, ArrayRecord]) -> None:
        self._segment = segment
        self._records = records
        self._streams: dict[str, FrameStream] = {}
        self.numbers = {name: _map_array(segment, name, records) for name in ("action", "proprio")}

    def stream(self, path: str) -> FrameStream:
        """Return the stream at a path inside the segment; the first call opens the stream."""
        if path not in self._streams:
            self._streams[path] = FrameStream(self._segment, path, self._records)
        return self._streams[path]


def read_array(
    segment: Location, name: str, records: Mapping[str, ArrayRecord], dtype: str
) -> np.ndarray:
    """Read a whole array and verify its checksum; raises DataError, which names the file."""
    record = records[name]
    file = chunk_file(segment, name, len(record.shape))
    _check_inside(file, segment)
    data = _read_verified(file, record, Path.read_bytes)
    try:
        return np.frombuffer(data, dtype).reshape(record.shape)
    except ValueError:
        raise DataError(
            f"{file}: has {len(data):,} bytes, and its commit says {record.shape} of {dtype}; "
            "restore both or import again"
        ) from None


def _map_array(segment: Location, name: str, records: Mapping[str, ArrayRecord]) -> np.ndarray:
    """Map a float32 array (n d) into memory; its checksum is verified now and not again."""
    record = records[name]
    if 0 in record.shape:
        return np.zeros(record.shape, np.float32)

    def map_file(file: Path) -> np.ndarray:
        # np.memmap would make a dozen more system calls for the path
        with file.open("rb", 0) as stream:
            memory = mmap(stream.fileno(), 4 * prod(record.shape), access=ACCESS_READ)
        return np.frombuffer(memory, "<f4").reshape(record.shape)

    file = chunk_file(segment, name, len(record.shape))
    _check_inside(file, segment)
    return _read_verified(file, record, map_file)


def _check_inside(file: Location, segment: Location) -> None:
    """Raise DataError if a link on the way to a segment's file leads out of the store."""
    if isinstance(file, Path) and isinstance(segment, Path):
        check_inside(file, depth=len(file.parts) - len(segment.parts) + 2)


def _read_verified(file: Location, record: ArrayRecord, read: Callable[[Path], T]) -> T:
    """Read a file and verify its checksum.

    A remote file is read from the cache's copy. If the copy is damaged, it is fetched once more.
    """
    for _ in range(2):
        try:
            data = read(local_copy(file))
            if checksum(bytes(data)) == record.crc32c:
                return data
            problem = "damaged, its checksum does not match"
        except (OSError, ValueError) as error:
            problem = f"missing or truncated ({getattr(error, 'strerror', None) or error})"
        if not drop_copy(file):
            break
    raise DataError(f"{file}: {problem}; restore the file or import again")
