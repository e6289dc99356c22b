"""Writes episodes as a LeRobot dataset of version 3.0, which LeRobot 0.4 and later read."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le

from core import DataError, import_optional
from core.episodes import Episode, Statistics, StoreInfo
from plugins.datasets.lerobot.features import (
    ACTION,
    DATA,
    EPISODES,
    IMAGES,
    STATE,
    TABLE_MB,
    VIDEOS,
    make_features,
    make_info_json,
)
from plugins.datasets.lerobot.sidecar import EpisodeEntry, Sidecar, write_sidecar
from plugins.datasets.lerobot.statistics import (
    Histogram,
    RunningStatistics,
    Summary,
    summarise,
)
from plugins.datasets.lerobot.tables import TableFiles, frame_schema, frame_table, write_tasks
from plugins.datasets.lerobot.video import Codec, Encoder, VideoFiles, as_json_number, as_rate

# number of rows of the episodes table that are written together
ROWS_AT_ONCE = 100


@dataclass(frozen=True)
class LeRobotWriterConfig:
    """How images are stored, and the robot's name."""

    images: Literal["video", "image"] = "video"
    """"video" (small, but lossy) or "image" (PNG, lossless)."""
    codec: Codec | None = None
    """codec of videos; default: "av1", as in LeRobot, if FFmpeg can encode it, else "h264"."""
    crf: Annotated[int, Ge(0), Le(51)] = 30
    """quality of videos, from 0 (best) to 51; LeRobot uses 30."""
    robot_type: str | None = None
    """name of the robot."""


class LeRobotWriter:
    """Writes LeRobot v3.0; an episode's instruction in the store becomes its task in LeRobot.

    meta/joinery.json keeps the facts for which LeRobot's format has no place.

    Raises ConfigError if FFmpeg lacks the codec, and DataError if the codec refuses images of a
    camera's size.
    """

    def __init__(self, config: LeRobotWriterConfig, *, info: StoreInfo, out: Path) -> None:
        self.config, self.info, self.root = config, info, out
        self.videos = _video_files(config, info, out) if config.images == "video" else {}
        self.features = make_features(
            info, {name: files.properties for name, files in self.videos.items()}
        )
        self.schema = frame_schema(self.features)
        self.frames = TableFiles(out, DATA, TABLE_MB * 2**20)
        self.episodes = TableFiles(out, EPISODES, TABLE_MB * 2**20)
        self.rows: list[dict[str, Any]] = []  # rows of the episodes table that are not yet written
        self.entries: list[EpisodeEntry] = []
        self.tasks: dict[str, int] = {}  # {instruction: its number}
        self.total_frames = 0
        self.running = RunningStatistics()
        self.histograms: dict[str, Histogram] = {}

    def append(self, episode: Episode) -> None:
        """Add an episode to the tables and videos."""
        numbers = self._number_columns(episode)
        file = self.frames.reserve(len(episode))
        self.frames.write(frame_table(self.schema, {**numbers, **self._image_columns(episode)}))
        row: dict[str, Any] = {
            "episode_index": len(self.entries),
            "tasks": [episode.instruction],
            "length": len(episode),
            "data/chunk_index": file.chunk,
            "data/file_index": file.file,
            "dataset_from_index": self.total_frames,
            "dataset_to_index": self.total_frames + len(episode),
        }
        for name, files in self.videos.items():
            span, key = files.append(np.asarray(episode.images[name])), f"videos/{IMAGES}{name}"
            row[f"{key}/chunk_index"] = span.file.chunk
            row[f"{key}/file_index"] = span.file.file
            row[f"{key}/from_timestamp"] = span.begin
            row[f"{key}/to_timestamp"] = span.end
        for key, summary in self._add_statistics(numbers, episode).items():
            row |= {f"stats/{key}/{statistic}": values for statistic, values in summary.items()}
        self.rows.append(row)
        self.entries.append(EpisodeEntry(episode.id, episode.task, len(episode)))
        self.total_frames += len(episode)
        if len(self.rows) == ROWS_AT_ONCE:
            self._write_rows()

    def finish(self) -> None:
        """Write the facts about the whole dataset."""
        self._write_rows()
        self.close()
        summaries = self._split(self.running.statistics())
        summaries |= {key: histogram.summary() for key, histogram in self.histograms.items()}
        info = make_info_json(
            self.features,
            fps=as_json_number(self.info.fps),
            robot=self.config.robot_type,
            episodes=len(self.entries),
            frames=self.total_frames,
            tasks=len(self.tasks),
        )
        write_tasks(self.root / "meta" / "tasks.parquet", [*self.tasks])
        _write_json(self.root / "meta" / "stats.json", summaries)
        _write_json(self.root / "meta" / "info.json", info)
        write_sidecar(self.root, Sidecar(self.info, self.entries))

    def close(self) -> None:
        """Close all files."""
        for tables in (self.frames, self.episodes):
            tables.close()
        for files in self.videos.values():
            files.close()

    def _number_columns(self, episode: Episode) -> dict[str, np.ndarray]:
        """Return {feature: column (n) or (n D)} for all numeric features."""
        frame = np.arange(len(episode))
        task = self.tasks.setdefault(episode.instruction, len(self.tasks))
        state = {STATE: episode.proprio} if self.info.proprio else {}
        return state | {
            ACTION: episode.actions,
            "timestamp": (frame / self.info.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full_like(frame, len(self.entries)),
            "index": self.total_frames + frame,
            "task_index": np.full_like(frame, task),
        }

    def _image_columns(self, episode: Episode) -> dict[str, list[dict[str, Any]]]:
        """Return {feature: column} for features that are images; {} if images are in videos."""
        if self.videos:
            return {}
        # encoding PNG takes most of the writer's time, so the images are encoded on all cores
        with ThreadPoolExecutor() as pool:
            return {
                f"{IMAGES}{name}": [*pool.map(_image_cell, count(), np.asarray(frames))]
                for name, frames in episode.images.items()
            }

    def _add_statistics(
        self, numbers: Mapping[str, np.ndarray], episode: Episode
    ) -> dict[str, Summary]:
        """Return {feature: an episode's statistics}, and add them to the dataset's statistics."""
        rows = np.concatenate(
            [column.reshape(len(episode), -1) for column in numbers.values()], axis=1, dtype=float
        )
        self.running.add(rows)
        summaries = self._split(Statistics.of(rows))
        for name, frames in episode.images.items():
            key, histogram = f"{IMAGES}{name}", Histogram.of(np.asarray(frames))
            summaries[key] = histogram.summary()
            if key in self.histograms:
                histogram = self.histograms[key] + histogram
            self.histograms[key] = histogram
        return summaries

    def _split(self, statistics: Statistics) -> dict[str, Summary]:
        """Split the statistics of all numeric columns by feature."""
        summaries, first = {}, 0
        for key, feature in self.features.items():
            if feature["dtype"] not in ("video", "image"):
                stop = first + feature["shape"][0]
                summaries[key] = summarise(statistics, first, stop)
                first = stop
        return summaries

    def _write_rows(self) -> None:
        """Write the pending rows of the episodes table."""
        if self.rows:
            arrow = import_optional("pyarrow", extra="lerobot")
            file = self.episodes.reserve(len(self.rows))
            location = {
                "meta/episodes/chunk_index": file.chunk,
                "meta/episodes/file_index": file.file,
            }
            self.episodes.write(arrow.Table.from_pylist([row | location for row in self.rows]))
            self.rows = []


def _video_files(config: LeRobotWriterConfig, info: StoreInfo, out: Path) -> dict[str, VideoFiles]:
    encoder = Encoder(config.codec, config.crf, as_rate(info.fps))
    videos = {}
    for name, camera in info.cameras.items():
        template = VIDEOS.replace("{video_key}", f"{IMAGES}{name}")
        try:
            videos[name] = VideoFiles(out, template, encoder, camera)
        except DataError as error:
            raise DataError(f"camera '{name}': {error}") from None
    return videos


def _image_cell(number: int, frame: np.ndarray) -> dict[str, Any]:
    """Return an image as the library `datasets` keeps it in a table."""
    buffer = BytesIO()
    import_optional("PIL.Image").fromarray(frame).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": f"frame-{number:06d}.png"}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")
