"""One immutable part of a store: how it is written whole, and how it is read once a commit names it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.data.codecs import Codec, groups
from core.data.contracts import Episode
from core.data.layout import ArrayRecord, Commit, Task, checksum, chunk_file, sync, tree
from core.data.statistics import Statistics
from core.errors import DataError

MAX_BYTES = 2**32 - 1  # of one camera's stream: its offsets are uint32


# ---------------------------------------------------------------------------------------------- writing


@dataclass
class _Stream:
    """One camera's encoded groups so far."""

    chunks: list[bytes] = field(default_factory=list)
    size: int = 0

    def extend(self, chunks: list[bytes]) -> None:
        self.chunks += chunks
        self.size += sum(map(len, chunks))

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "data": np.frombuffer(b"".join(self.chunks), np.uint8),
            "end": np.cumsum([len(chunk) for chunk in self.chunks]).astype(np.uint32),
            "crc": np.array([checksum(chunk) for chunk in self.chunks], np.uint32),
        }


class PendingPart:
    """Whole episodes, encoded, in memory until `write`."""

    def __init__(self, codecs: Mapping[str, Codec]) -> None:
        self._codecs = codecs
        self._streams = {name: _Stream() for name in codecs}
        self._actions: list[np.ndarray] = []
        self._proprio: list[np.ndarray] = []
        self._task_of: list[Task] = []
        self.ids: list[str] = []

    @property
    def size(self) -> int:
        """Bytes of encoded frames."""
        return sum(stream.size for stream in self._streams.values())

    def append(self, episode: Episode) -> None:
        """Encode an episode; raises DataError if a camera's stream would grow past 4 GiB."""
        encoded = {}
        for name, codec in self._codecs.items():
            encoded[name] = [codec.encode(group) for group in groups(episode.images[name], codec.group)]
            if self._streams[name].size + sum(map(len, encoded[name])) > MAX_BYTES:
                raise DataError(f"episode '{episode.id}': camera '{name}' passes 4 GiB in one part; split the episode")
        for name, chunks in encoded.items():
            self._streams[name].extend(chunks)
        self._actions.append(episode.actions.copy())
        self._proprio.append(episode.proprio.copy())
        self._task_of.append(Task(episode.task, episode.instruction))
        self.ids.append(episode.id)

    def write(self, folder: Path) -> Commit:
        """Write the part as a zarr v3 group and flush it to the disk; return the commit that makes it visible."""
        tasks = tuple(dict.fromkeys(self._task_of))
        arrays = self._arrays(tasks)
        _write_zarr(folder, arrays)
        sync(*tree(folder), folder.parent)
        return Commit(
            part=folder.name,
            frames=len(arrays["action"]),
            episodes=tuple(self.ids),
            tasks=tasks,
            arrays={name: ArrayRecord(array.shape, checksum(array.tobytes())) for name, array in arrays.items()},
            statistics={name: Statistics.of(arrays[name]) for name in ("action", "proprio")},
        )

    def _arrays(self, tasks: tuple[Task, ...]) -> dict[str, np.ndarray]:
        streams = {f"cam/{n}/{key}": array for n, s in self._streams.items() for key, array in s.arrays().items()}
        return streams | {
            "action": np.concatenate(self._actions),
            "proprio": np.concatenate(self._proprio),
            "episode/end": np.cumsum([len(actions) for actions in self._actions]).astype(np.int32),
            "episode/task": np.array([tasks.index(task) for task in self._task_of], np.int32),
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
            config={"write_empty_chunks": True},  # an array of zeros would leave no file, like a lost one
        )
        if array.size:
            created[...] = array


# ---------------------------------------------------------------------------------------------- reading


class CameraStream:
    """One camera's byte stream, read with pread: thread-safe, and closed when nobody holds it any more."""

    def __init__(self, part: Path, camera: str, records: Mapping[str, ArrayRecord]) -> None:
        self.file = chunk_file(part, f"cam/{camera}/data", 1)
        self.end = np.concatenate([[0], read_array(part, f"cam/{camera}/end", records, "<u4")]).tolist()
        self.crc = read_array(part, f"cam/{camera}/crc", records, "<u4").tolist()
        try:
            self._descriptor = os.open(self.file, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{self.file}: {error.strerror}; restore the file or import again") from error

    def read(self, first: int, stop: int) -> bytes:
        """Return the bytes of groups first..stop-1, fewer if the file is truncated."""
        return os.pread(self._descriptor, self.end[stop] - self.end[first], self.end[first])

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class OpenPart:
    """The arrays of one part; their checksums are verified here, those of the frames whenever they are read."""

    def __init__(self, part: Path, commit: Commit) -> None:
        self._part = part
        self._records = commit.arrays
        self._streams: dict[str, CameraStream] = {}
        self.numbers = {feature: _map_array(part, feature, commit.arrays) for feature in ("action", "proprio")}

    def stream(self, camera: str) -> CameraStream:
        """Return a camera's stream, opened at its first use."""
        if camera not in self._streams:
            self._streams[camera] = CameraStream(self._part, camera, self._records)
        return self._streams[camera]


def read_array(part: Path, name: str, records: Mapping[str, ArrayRecord], dtype: str) -> np.ndarray:
    """Read a whole array and verify it; raises DataError that names the file."""
    record = records[name]
    file = chunk_file(part, name, len(record.shape))
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; restore the file or import again") from error
    _verify(data, file, record)
    return np.frombuffer(data, dtype).reshape(record.shape)


def _map_array(part: Path, name: str, records: Mapping[str, ArrayRecord]) -> np.ndarray:
    """Map a float32 array (n d) into memory and verify it once."""
    record = records[name]
    if 0 in record.shape:
        return np.zeros(record.shape, np.float32)
    file = chunk_file(part, name, len(record.shape))
    try:
        mapped = np.memmap(file, "<f4", mode="r", shape=record.shape)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: missing or truncated ({error}); restore the file or import again") from error
    array = np.asarray(mapped)
    _verify(array.tobytes(), file, record)
    return array


def _verify(data: bytes, file: Path, record: ArrayRecord) -> None:
    if checksum(data) != record.crc32c:
        raise DataError(f"{file}: damaged, its checksum does not match; restore the file or import again")
