"""Reads an episode store.

Actions and proprioception are memory-mapped. Frames are not kept in memory: every call that asks
for frames reads and verifies them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from math import prod
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from typing import Any, Literal

import numpy as np

from core.episodes.episode import Episode
from core.episodes.statistics import Statistics
from core.errors import DataError
from core.store.attributes import read_attributes
from core.store.checks import check_commit, check_episodes
from core.store.codecs import ALWAYS_ALLOWED, MAX_INFLATION, as_bytes
from core.store.edits import edit_info, edit_words, read_edits
from core.store.layout import (
    ArrayRecord,
    Task,
    chunk_file,
    read_commits,
    segment_folder,
    stream_paths,
)
from core.store.location import Location, RemotePath, fetch, locate
from core.store.segment import DamagedBlock, FrameStream, OpenSegment, read_array
from core.system.strict import one_line

# maximum number of segments that stay open; they stay open because opening a segment takes as long
# as decoding a few frames
OPEN_SEGMENTS = 1024


class EpisodeStore:
    """The committed episodes of a store, numbered from 0 in the order of the commits.

    path: a folder, or the URL of a store in an object store or on a web server.
    info: what all episodes have in common, for example the cameras and the frame rate.
    codecs: {camera or feature: codec}.
    tasks: distinct pairs of a task's name and its instruction.
    length: (episodes) int64, each episode's number of frames.
    start: (episodes) int64, index of each episode's first frame among all frames of the store.
    task: (episodes) int64, index of each episode's task in `tasks`.
    edits: corrections of the store, in order; everything above is as they say.

    Opening a store reads no frames. Opening a remote store copies all other arrays of its segments
    into the cache. The store is thread-safe, and a pickled copy opens its own files. Every method
    raises DataError, which names the file, for missing or damaged data.
    """

    def __init__(self, path: str | Location) -> None:
        self.path = locate(path)
        self.info, self.codecs, has_edits = read_attributes(self.path)
        self.edits = tuple(read_edits(self.path)) if has_edits else ()
        self._stream_paths = stream_paths(self.info)
        self._ids: list[str] = []
        self._segments: list[tuple[Location, Mapping[str, ArrayRecord]]] = []
        self.tasks: list[tuple[str, str]] = []
        self.length, self.task, self._segment_of = self._read_episodes()
        self._apply_edits()
        self.start = np.cumsum(self.length) - self.length
        self._offset = self._starts_in_segment(self.length)
        # for each block size, an array with one entry per episode: the index of the episode's first
        # block, in a stream with blocks of that size
        self._first_block = {
            size: self._starts_in_segment(-(-self.length // size))
            for size in {codec.block_size for codec in self.codecs.values()}
        }
        self._open = self._cache_open_segments()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, episode: int) -> Episode:
        """Return one whole episode with decoded frames; raises IndexError if it does not exist."""
        if not -len(self) <= episode < len(self):
            raise IndexError(f"episode {episode} of {len(self)}")
        return self.read(episode % len(self))

    @property
    def name(self) -> str:
        """The name of the store's folder, without .zarr."""
        path = self.path.resolve() if isinstance(self.path, Path) else self.path
        return path.name.removesuffix(".zarr")

    @property
    def frame_count(self) -> int:
        """Number of frames in all episodes."""
        return int(self.length.sum())

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Statistics of "action" and "proprio" over all episodes."""
        if not self._segments:
            raise DataError(f"{self.path}: no episodes, so no statistics; import some")
        try:
            return {name: self._merge_statistics(name) for name in ("action", "proprio")}
        except KeyError as error:
            raise DataError(
                f"{self.path}: a commit lacks the statistics of {error}; import again"
            ) from error

    def episode_id(self, episode: int) -> str:
        """Return the id that the episode got when it was imported."""
        return self._ids[episode]

    def task_name(self, episode: int) -> str:
        """Return the name of the episode's task."""
        return self.tasks[int(self.task[episode])][0]

    def instruction(self, episode: int) -> str:
        """Return the episode's instruction."""
        return self.tasks[int(self.task[episode])][1]

    def actions(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Return the actions of frames start..stop-1, (n A) float32, as a read-only view.

        The actions are in the units that `info.action` gives.
        """
        segment, offset = self._locate(episode, start, stop)
        return self._open(segment).numbers["action"][offset + start : offset + stop]

    def proprio(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Return the proprioception of frames start..stop-1, (n P) float32, as a read-only view."""
        segment, offset = self._locate(episode, start, stop)
        return self._open(segment).numbers["proprio"][offset + start : offset + stop]

    def gather(
        self, feature: Literal["action", "proprio"], episodes: np.ndarray, frames: np.ndarray
    ) -> np.ndarray:
        """Return a copy of the actions or proprioception of many frames, (n K D) float32.

        episodes: (n), the index of each episode.
        frames: (n K), the indices of K frames in each of these episodes.
        """
        segments, rows = self._segment_of[episodes], self._offset[episodes][:, None] + frames
        width = len(self.info.action.names if feature == "action" else self.info.proprio)
        result = np.empty((*frames.shape, width), np.float32)
        for segment in np.unique(segments):
            in_segment = segments == segment
            result[in_segment] = self._open(int(segment)).numbers[feature][rows[in_segment]]
        return result

    def read(self, episode: int) -> Episode:
        """Read one whole episode; its actions and proprioception are read-only views."""
        length = self.length.item(episode)
        frames = {name: self.empty_frames(name, episode, 0, length) for name in self.codecs}
        for name, array in frames.items():
            self.read_frames(name, episode, 0, length, array)
        return Episode(
            id=self.episode_id(episode),
            task=self.task_name(episode),
            instruction=self.instruction(episode),
            images={name: frames[name] for name in self.info.cameras},
            actions=self.actions(episode, 0, length),
            proprio=self.proprio(episode, 0, length),
            features={name: frames[name] for name in self.info.features},
        )

    def empty_frames(self, name: str, episode: int, start: int, stop: int) -> np.ndarray:
        """Return zeros for `read_frames` to decode frames start..stop-1 into.

        Raises DataError if they would take more memory than what is stored of them can fill.
        """
        shape: tuple[int, ...]
        if camera := self.info.cameras.get(name):
            shape, dtype = (camera.height, camera.width, 3), np.dtype(np.uint8)
        else:
            feature = self.info.features[name]
            shape, dtype = feature.shape, np.dtype(feature.dtype)
        stream, base, blocks = self._blocks(name, episode, start, stop)
        stored = stream.stored_bytes(base + blocks.start, base + blocks.stop)
        needed = (stop - start) * prod(shape) * dtype.itemsize
        if needed > max(ALWAYS_ALLOWED, MAX_INFLATION * stored):
            raise DataError(
                f"{stream.file}: {stored:,} bytes cannot be {stop - start:,} frames of '{name}'; "
                "restore the file or import again"
            )
        return np.zeros((stop - start, *shape), dtype)

    def read_frames(self, name: str, episode: int, start: int, stop: int, out: np.ndarray) -> None:
        """Decode frames start..stop-1 of a camera or a feature into `out`; checksums are verified.

        out: C-contiguous; (n Y X C) uint8 for a camera, or (n *shape) of the feature's dtype for a
            feature.
        """
        stream, base, blocks = self._blocks(name, episode, start, stop)
        if not blocks:
            return
        codec, length = self.codecs[name], self.length.item(episode)
        try:
            data, bounds = stream.read(base + blocks.start, base + blocks.stop)
        except DamagedBlock as damage:
            frame = max(start, (damage.block - base) * codec.block_size)
            where = f"frame {frame} of episode '{self._ids[episode]}'"
            raise DataError(
                f"{stream.file}: {where} is damaged or cut off; restore the file or import again"
            ) from None
        first = blocks.start * codec.block_size
        count = min(blocks.stop * codec.block_size, length) - first
        frames = out if name in self.info.cameras else as_bytes(out)
        try:
            codec.decode(data, bounds, count, start - first, frames)
        except Exception as error:  # noqa: BLE001 - each codec fails in its own way
            raise DataError(
                f"{stream.file}: frames of episode '{self._ids[episode]}' cannot be decoded "
                f"({one_line(error)}); import it again"
            ) from None

    def prepare(self, names: Sequence[str], starts: Iterable[tuple[int, int]], count: int) -> None:
        """Begin to fetch many sequences of `count` frames in parallel; do not wait for them.

        names: the cameras and features to read.
        starts: (episode, first frame) of each sequence.

        For a local store, this method does nothing, and does not iterate over `starts`.
        """
        if not isinstance(self.path, RemotePath):
            return
        for episode, start in starts:
            for name in names:
                stop = min(start + count, self.length.item(episode))
                stream, base, blocks = self._blocks(name, episode, start, stop)
                stream.prepare(base + blocks.start, base + blocks.stop)

    def _blocks(
        self, name: str, episode: int, start: int, stop: int
    ) -> tuple[FrameStream, int, range]:
        """Return where frames start..stop-1 are: (stream, episode's first block, range of blocks).

        The first block of the episode is an index in the stream. The range holds the blocks with
        the frames; it counts blocks from the first block of the episode.
        """
        segment, _ = self._locate(episode, start, stop)
        size = self.codecs[name].block_size
        blocks = range(start // size, -(-stop // size))
        return (
            self._open(segment).stream(self._stream_paths[name]),
            self._first_block[size].item(episode),
            blocks,
        )

    def _locate(self, episode: int, start: int, stop: int) -> tuple[int, int]:
        """Return (index of the episode's segment, index of the episode's first frame in it)."""
        if not 0 <= start <= stop <= self.length.item(episode):
            raise IndexError(f"frames {start}..{stop} of an episode of {self.length[episode]}")
        return self._segment_of.item(episode), self._offset.item(episode)

    def _read_episodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Set ids, tasks and segments; return all episodes' (length, task index, segment index)."""
        episodes_of_segments, tasks_of_segments = self._read_commits()
        if isinstance(self.path, RemotePath):
            fetch(self._small_files())
        numbers: dict[tuple[str, str], int] = {}  # {task: its number}
        columns = [np.zeros((3, 0), np.int64)]
        for segment, (folder, records) in enumerate(self._segments):
            ends = read_array(folder, "episode/end", records, "<i4")
            indices = read_array(folder, "episode/task", records, "<i4")
            segment_tasks = tasks_of_segments[segment]
            number_of = np.array([numbers.setdefault(task, len(numbers)) for task in segment_tasks])
            lengths = np.diff(ends, prepend=0)
            frames = records["action"].shape[0]
            counts = frames, episodes_of_segments[segment], len(segment_tasks)
            check_episodes(folder, counts, lengths, indices)
            columns.append(np.stack([lengths, number_of[indices], np.full(len(ends), segment)]))
        self.tasks = list(numbers)
        length, task, segment_of = np.concatenate(columns, axis=1, dtype=np.int64)
        return length, task, segment_of

    def _apply_edits(self) -> None:
        """Correct the info, the tasks and the instructions, as the store's edits say."""
        if not self.edits:
            return
        words = [Task(*self.tasks[number]) for number in self.task.tolist()]
        for dated in self.edits:
            self.info = edit_info(self.info, dated.edit)
            words = edit_words(self._ids, words, dated.edit)
        pairs = [(task.name, task.instruction) for task in words]
        self.tasks = list(dict.fromkeys(pairs))
        numbers = {pair: number for number, pair in enumerate(self.tasks)}
        self.task = np.array([numbers[pair] for pair in pairs], np.int64)

    def _read_commits(self) -> tuple[list[int], list[list[tuple[str, str]]]]:
        """Set ids and segments; return each segment's number of episodes, and its tasks.

        The rest of each commit is not kept in memory, because the statistics of a thousand segments
        would take a hundred megabytes.
        """
        episodes, tasks = [], []
        for number, commit in enumerate(read_commits(self.path)):
            check_commit(self.path, self.info, number, commit)
            self._segments.append((segment_folder(self.path, commit.segment), commit.arrays))
            self._ids += commit.episodes
            episodes.append(len(commit.episodes))
            tasks.append([(task.name, task.instruction) for task in commit.tasks])
        return episodes, tasks

    def _small_files(self) -> list[Location]:
        """Return all files of all segments, except the files that hold encoded frames."""
        return [
            chunk_file(folder, name, len(record.shape))
            for folder, records in self._segments
            for name, record in records.items()
            if not name.endswith("/data") and 0 not in record.shape
        ]

    def _merge_statistics(self, feature: str) -> Statistics:
        """Return the merged statistics of all segments that the store had when it was opened."""
        commits = islice(read_commits(self.path), len(self._segments))
        return Statistics.merge(commit.statistics[feature] for commit in commits)

    def _starts_in_segment(self, counts: np.ndarray) -> np.ndarray:
        """Return the index of each episode's first frame, or first block, in the episode's segment.

        counts: (episodes), each episode's number of frames, or of blocks.
        """
        starts = np.cumsum(counts) - counts
        # for each episode, the index of the first episode in the same segment
        first_episode = np.searchsorted(self._segment_of, self._segment_of)
        relative: np.ndarray = starts - starts[first_episode]
        return relative

    def _cache_open_segments(self) -> Callable[[int], OpenSegment]:
        """Return a function that returns the open segment with a given index.

        The function opens the segment if it is not open yet. The segments that were used last stay
        open.

        An open segment keeps at most one file open for each camera and each feature, and two files
        for the actions and the proprioception. Segments stay open only while they need at most a
        quarter of the open files that the process may have (`ulimit -n`), because other stores and
        other readers need open files, too. A segment that is dropped from the open segments is
        closed when its last reader has finished.
        """
        limit, _ = getrlimit(RLIMIT_NOFILE)
        most = OPEN_SEGMENTS
        if limit != RLIM_INFINITY:
            most = min(most, max(1, limit // 4 // (len(self._stream_paths) + 2)))
        # a function that uses `self` would form a reference cycle with the store, and files would
        # stay open until the garbage collector runs
        segments = self._segments

        @lru_cache(maxsize=most)
        def open_segment(segment: int) -> OpenSegment:
            return OpenSegment(*segments[segment])

        return open_segment

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = self._cache_open_segments()
