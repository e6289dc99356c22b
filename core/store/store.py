"""Reading an episode store: numbers are memory maps, frames are read with one pread and checked
each time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from typing import Any, Literal

import numpy as np

from core.episodes.episode import Episode
from core.episodes.statistics import Statistics
from core.errors import DataError
from core.store.attributes import read_attributes
from core.store.features import as_bytes
from core.store.layout import ArrayRecord, check_commit, chunk_file, read_commits, stream_paths
from core.store.location import Location, RemotePath, fetch, locate
from core.store.segment import DamagedBlock, FrameStream, OpenSegment, read_array

OPEN_SEGMENTS = 1024  # at most; to open one takes as long as to decode some frames


class EpisodeStore:
    """The committed episodes of a store, numbered from 0 in the order of the commits.

    path: a folder, or the URL of one in an object store or on a web server.
    info, codecs: what the store says about itself; a codec for each camera and each feature.
    tasks: (name, instruction), distinct.
    length, start, task: per episode, int64: frames, global number of the first frame, index into
    `tasks`.

    Opening reads no frames; of a remote store, it copies everything else into the cache.
    Thread-safe; a pickled copy opens its own files. Everything here raises DataError, naming the
    file, for what is missing or damaged.
    """

    def __init__(self, path: str | Location) -> None:
        self.path = locate(path)
        self.info, self.codecs = read_attributes(self.path)
        self._stream_paths = stream_paths(self.info)
        self._ids: list[str] = []
        self._parts: list[tuple[Location, Mapping[str, ArrayRecord]]] = []
        self.tasks: list[tuple[str, str]] = []
        self.length, self.task, self._part_of = self._read_episodes()
        self.start = np.cumsum(self.length) - self.length
        self._offset = self._starts_in_part(self.length)
        self._first_group = {
            size: self._starts_in_part(-(-self.length // size)) for size in self._group_sizes()
        }
        self._part = self._cache()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def name(self) -> str:
        """What its folder is called, without .zarr."""
        place = self.path.resolve() if isinstance(self.path, Path) else self.path
        return place.name.removesuffix(".zarr")

    @property
    def frame_count(self) -> int:
        """Number of frames in all episodes."""
        return int(self.length.sum())

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Statistics of "action" and "proprio" over all episodes."""
        if not self._parts:
            raise DataError(f"{self.path}: no episodes, so no statistics; import some")
        try:
            return {
                name: Statistics.merge(self._statistics_of_parts(name))
                for name in ("action", "proprio")
            }
        except KeyError as error:
            raise DataError(
                f"{self.path}: a commit lacks the statistics of {error}; import again"
            ) from error

    def episode_id(self, episode: int) -> str:
        """Return the id that the episode was imported under."""
        return self._ids[episode]

    def task_name(self, episode: int) -> str:
        """Return the name of the episode's task."""
        return self.tasks[int(self.task[episode])][0]

    def instruction(self, episode: int) -> str:
        """Return what the robot was told."""
        return self.tasks[int(self.task[episode])][1]

    def actions(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Actions of frames start..stop-1, (n A) float32, a read-only view in the units of
        `info.action`.
        """
        part, offset = self._locate(episode, start, stop)
        return self._part(part).numbers["action"][offset + start : offset + stop]

    def proprio(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Proprioception of frames start..stop-1, (n P) float32, a read-only view."""
        part, offset = self._locate(episode, start, stop)
        return self._part(part).numbers["proprio"][offset + start : offset + stop]

    def gather(
        self, feature: Literal["action", "proprio"], episodes: np.ndarray, frames: np.ndarray
    ) -> np.ndarray:
        """Numbers of many places at once: episodes (n), frames (n K) within each -> (n K D)
        float32, a copy.
        """
        parts, rows = self._part_of[episodes], self._offset[episodes][:, None] + frames
        width = len(self.info.action.names if feature == "action" else self.info.proprio)
        gathered = np.empty((*frames.shape, width), np.float32)
        for part in np.unique(parts):
            chosen = parts == part
            gathered[chosen] = self._part(int(part)).numbers[feature][rows[chosen]]
        return gathered

    def read(self, episode: int) -> Episode:
        """One whole episode, its frames decoded; its numbers are read-only views."""
        length = self.length.item(episode)
        images = {
            name: np.empty((length, camera.height, camera.width, 3), np.uint8)
            for name, camera in self.info.cameras.items()
        }
        features = {
            name: np.empty((length, *of.shape), of.dtype) for name, of in self.info.features.items()
        }
        for name, frames in {**images, **features}.items():
            self.read_frames(name, episode, 0, length, frames)
        return Episode(
            id=self.episode_id(episode),
            task=self.task_name(episode),
            instruction=self.instruction(episode),
            images=images,
            actions=self.actions(episode, 0, length),
            proprio=self.proprio(episode, 0, length),
            features=features,
        )

    def read_frames(self, name: str, episode: int, start: int, stop: int, out: np.ndarray) -> None:
        """Decode frames start..stop-1 of a camera or a feature; every byte read is checked first.

        out: (n Y X C) uint8, of a feature (n *shape) of its dtype; C-contiguous.
        """
        stream, base, groups = self._groups(name, episode, start, stop)
        if not groups:
            return
        codec, length = self.codecs[name], self.length.item(episode)
        try:
            data, bounds = stream.read(base + groups.start, base + groups.stop)
        except DamagedBlock as damage:
            frame = max(start, (damage.group - base) * codec.group)
            where = f"frame {frame} of episode '{self._ids[episode]}'"
            raise DataError(
                f"{stream.file}: {where} is damaged or cut off; restore the file or import again"
            ) from None
        first = groups.start * codec.group
        frames = out if name in self.info.cameras else as_bytes(out)
        codec.decode(
            data, bounds, min(groups.stop * codec.group, length) - first, start - first, frames
        )

    def prepare(self, names: Sequence[str], places: Iterable[tuple[int, int]], count: int) -> None:
        """Begin to fetch what reading `count` frames from each (episode, start) on will want, many
        places at once.

        names: of cameras and features. It waits for nothing. On a local store it does nothing, and
        does not even ask for the places.
        """
        if not isinstance(self.path, RemotePath):
            return
        for episode, start in places:
            for name in names:
                stop = min(start + count, self.length.item(episode))
                stream, base, groups = self._groups(name, episode, start, stop)
                stream.prepare(base + groups.start, base + groups.stop)

    def _groups(
        self, name: str, episode: int, start: int, stop: int
    ) -> tuple[FrameStream, int, range]:
        """Return the stream of frames start..stop-1, its group where the episode begins, and which
        follow that.
        """
        part, _ = self._locate(episode, start, stop)
        size = self.codecs[name].group
        groups = range(start // size, -(-stop // size))
        return (
            self._part(part).stream(self._stream_paths[name]),
            self._first_group[size].item(episode),
            groups,
        )

    def _locate(self, episode: int, start: int, stop: int) -> tuple[int, int]:
        """Return the episode's part, and where its frames begin in that part."""
        if not 0 <= start <= stop <= self.length.item(episode):
            raise IndexError(f"frames {start}..{stop} of an episode of {self.length[episode]}")
        return self._part_of.item(episode), self._offset.item(episode)

    def _open_part(self, part: int) -> OpenSegment:
        return OpenSegment(*self._parts[part])

    def _read_episodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return length, task and part of every episode; learn ids, tasks and parts."""
        tasks_of_parts = self._read_commits()
        if isinstance(self.path, RemotePath):
            fetch(self._small_files())
        number: dict[tuple[str, str], int] = {}
        columns = [np.zeros((3, 0), np.int64)]
        for part, ((folder, records), told) in enumerate(
            zip(self._parts, tasks_of_parts, strict=True)
        ):
            ends = read_array(folder, "episode/end", records, "<i4")
            local = read_array(folder, "episode/task", records, "<i4")
            tasks = np.array([number.setdefault(task, len(number)) for task in told])[local]
            columns.append(np.stack([np.diff(ends, prepend=0), tasks, np.full(len(ends), part)]))
        self.tasks = list(number)
        length, task, part_of = np.concatenate(columns, axis=1, dtype=np.int64)
        return length, task, part_of

    def _read_commits(self) -> list[list[tuple[str, str]]]:
        """Learn ids and parts; return each part's tasks.

        Of a commit nothing else is kept: the statistics of a thousand parts would take a hundred
        megabytes.
        """
        tasks = []
        for number, commit in enumerate(read_commits(self.path)):
            check_commit(self.path, self.info, number, commit)
            self._parts.append((self.path / "parts" / commit.part, commit.arrays))
            self._ids += commit.episodes
            tasks.append([(task.name, task.instruction) for task in commit.tasks])
        return tasks

    def _small_files(self) -> list[Location]:
        """All but the frames of cameras and features."""
        return [
            chunk_file(folder, name, len(record.shape))
            for folder, records in self._parts
            for name, record in records.items()
            if not name.endswith("/data") and 0 not in record.shape
        ]

    def _statistics_of_parts(self, feature: str) -> Iterator[Statistics]:
        commits = islice(
            read_commits(self.path), len(self._parts)
        )  # without what was added since this was opened
        return (commit.statistics[feature] for commit in commits)

    def _group_sizes(self) -> set[int]:
        return {codec.group for codec in self.codecs.values()}

    def _starts_in_part(self, lengths: np.ndarray) -> np.ndarray:
        """Return, for things of which each episode has `lengths`, where in its part each episode's
        begin.
        """
        starts = np.cumsum(lengths) - lengths
        first_episode = np.searchsorted(self._part_of, self._part_of)  # of the episode's part
        relative: np.ndarray = starts - starts[first_episode]
        return relative

    def _cache(self) -> Callable[[int], OpenSegment]:
        """Return `_open_part` with the last results kept; a part closes when its last reader is
        done.

        An open part holds a file for each camera and feature, for the actions and for the
        proprioception. All together they hold a quarter of the files that the process may open
        (`ulimit -n`): there may be other stores, and others who read.
        """
        files, _ = getrlimit(RLIMIT_NOFILE)
        limit = (
            OPEN_SEGMENTS
            if files == RLIM_INFINITY
            else max(1, files // 4 // (len(self._stream_paths) + 2))
        )
        return lru_cache(maxsize=min(OPEN_SEGMENTS, limit))(self._open_part)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_part"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._part = self._cache()
