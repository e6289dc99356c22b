"""Episodes into a LeRobot dataset of version 3.0, which LeRobot 0.4 and later read."""

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
    FILMS,
    PICTURES,
    STATE,
    TABLE_MB,
    describe_dataset,
    describe_features,
)
from plugins.datasets.lerobot.films import Codec, Encoder, FilmFiles, as_rate, plain
from plugins.datasets.lerobot.note import EpisodeNote, Note, write_note
from plugins.datasets.lerobot.statistics import Histogram, Running, Summary, summarise
from plugins.datasets.lerobot.tables import TableFiles, frame_schema, frame_table, write_tasks

ROWS_AT_ONCE = 100  # of the table of episodes


@dataclass(frozen=True)
class LeRobotWriterConfig:
    """How pictures are kept, and what the robot is called."""

    images: Literal["video", "image"] = "video"
    """"video", small and lossy, or "image", PNG and exact."""
    codec: Codec | None = None
    """of videos; "av1", as LeRobot's own, where FFmpeg has an encoder for it, else "h264", unless
    said.
    """
    crf: Annotated[int, Ge(0), Le(51)] = 30
    """quality of videos, from 0, the best, to 51; LeRobot's own is 30."""
    robot_type: str | None = None
    """the robot's name."""


class LeRobotWriter:
    """Writes LeRobot v3.0; what the robot is told is its task, and meta/joinery.json keeps what has
    no other place.

    Raises ConfigError where FFmpeg lacks the codec, DataError where it refuses a camera's pictures.
    """

    def __init__(self, config: LeRobotWriterConfig, *, info: StoreInfo, out: Path) -> None:
        self.config, self.info, self.root = config, info, out
        self.films = _films(config, info, out) if config.images == "video" else {}
        self.features = describe_features(
            info, {name: films.facts for name, films in self.films.items()}
        )
        self.schema = frame_schema(self.features)
        self.frames = TableFiles(out, DATA, TABLE_MB * 2**20)
        self.episodes = TableFiles(out, EPISODES, TABLE_MB * 2**20)
        self.rows: list[dict[str, Any]] = []  # of the table of episodes, not yet written
        self.notes: list[EpisodeNote] = []
        self.tasks: dict[str, int] = {}
        self.total = 0  # frames
        self.running = Running()
        self.histograms: dict[str, Histogram] = {}

    def append(self, episode: Episode) -> None:
        """Add an episode to the tables and videos."""
        numbers = self._numbers(episode)
        slot = self.frames.reserve(len(episode))
        self.frames.write(frame_table(self.schema, {**numbers, **self._pictures(episode)}))
        row = {
            "episode_index": len(self.notes),
            "tasks": [episode.instruction],
            "length": len(episode),
            "data/chunk_index": slot.chunk,
            "data/file_index": slot.file,
            "dataset_from_index": self.total,
            "dataset_to_index": self.total + len(episode),
        }
        self.rows.append(
            {**row, **self._append_films(episode), **self._statistics(numbers, episode)}
        )
        self.notes.append(EpisodeNote(episode.id, episode.task, len(episode)))
        self.total += len(episode)
        if len(self.rows) == ROWS_AT_ONCE:
            self._write_rows()

    def finish(self) -> None:
        """Write what is known of all episodes."""
        self._write_rows()
        self.close()
        pictures = {key: histogram.summary() for key, histogram in self.histograms.items()}
        described = describe_dataset(
            self.features,
            fps=plain(self.info.fps),
            robot=self.config.robot_type,
            episodes=len(self.notes),
            frames=self.total,
            tasks=len(self.tasks),
        )
        write_tasks(self.root / "meta" / "tasks.parquet", [*self.tasks])
        _write_json(
            self.root / "meta" / "stats.json",
            {**self._split(self.running.statistics()), **pictures},
        )
        _write_json(self.root / "meta" / "info.json", described)
        write_note(self.root, Note(self.info, self.notes))

    def close(self) -> None:
        """Close all files."""
        for tables in (self.frames, self.episodes):
            tables.close()
        for films in self.films.values():
            films.close()

    def _numbers(self, episode: Episode) -> dict[str, np.ndarray]:
        """Every column of numbers, (n) or (n D)."""
        frame = np.arange(len(episode))
        task = self.tasks.setdefault(episode.instruction, len(self.tasks))
        state = {STATE: episode.proprio} if self.info.proprio else {}
        return state | {
            ACTION: episode.actions,
            "timestamp": (frame / self.info.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full_like(frame, len(self.notes)),
            "index": self.total + frame,
            "task_index": np.full_like(frame, task),
        }

    def _pictures(self, episode: Episode) -> dict[str, list[dict[str, Any]]]:
        """Every column of pictures, none where they are in videos."""
        if self.films:
            return {}
        with ThreadPoolExecutor() as pool:  # PNG takes most of the time, and all cores can share it
            return {
                f"{PICTURES}{name}": [*pool.map(_cell, count(), x)]
                for name, x in episode.images.items()
            }

    def _append_films(self, episode: Episode) -> dict[str, Any]:
        """Add to the videos, and say where in them the episode lies."""
        row: dict[str, Any] = {}
        for name, films in self.films.items():
            film, key = films.append(episode.images[name]), f"videos/{PICTURES}{name}"
            row |= {f"{key}/chunk_index": film.slot.chunk, f"{key}/file_index": film.slot.file}
            row |= {f"{key}/from_timestamp": film.begins, f"{key}/to_timestamp": film.ends}
        return row

    def _statistics(self, numbers: Mapping[str, np.ndarray], episode: Episode) -> dict[str, Any]:
        """The episode's statistics, which also become part of those of all."""
        joined = np.concatenate(
            [column.reshape(len(episode), -1) for column in numbers.values()], axis=1, dtype=float
        )
        self.running.add(joined)
        summaries = self._split(Statistics.of(joined))
        for name, frames in episode.images.items():
            key, histogram = f"{PICTURES}{name}", Histogram.of(frames)
            self.histograms[key] = (
                self.histograms[key] + histogram if key in self.histograms else histogram
            )
            summaries[key] = histogram.summary()
        return {
            f"stats/{key}/{kind}": value
            for key, found in summaries.items()
            for kind, value in found.items()
        }

    def _split(self, statistics: Statistics) -> dict[str, Summary]:
        """Statistics of all columns of numbers side by side -> those of each feature."""
        summaries, first = {}, 0
        for key, feature in self.features.items():
            if feature["dtype"] not in ("video", "image"):
                stop = first + feature["shape"][0]
                summaries[key] = summarise(statistics, first, stop)
                first = stop
        return summaries

    def _write_rows(self) -> None:
        """Write the waiting rows of the table of episodes."""
        if self.rows:
            arrow = import_optional("pyarrow", extra="lerobot")
            slot = self.episodes.reserve(len(self.rows))
            where = {"meta/episodes/chunk_index": slot.chunk, "meta/episodes/file_index": slot.file}
            self.episodes.write(arrow.Table.from_pylist([row | where for row in self.rows]))
            self.rows = []


def _films(config: LeRobotWriterConfig, info: StoreInfo, out: Path) -> dict[str, FilmFiles]:
    encoder = Encoder(config.codec, config.crf, as_rate(info.fps))
    films = {}
    for name, camera in info.cameras.items():
        template = FILMS.replace("{video_key}", f"{PICTURES}{name}")
        try:
            films[name] = FilmFiles(out, template, encoder, camera)
        except DataError as error:
            raise DataError(f"camera '{name}': {error}") from None
    return films


def _cell(number: int, frame: np.ndarray) -> dict[str, Any]:
    """A picture as the library `datasets` has it in a table."""
    buffer = BytesIO()
    import_optional("PIL.Image").fromarray(frame).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": f"frame-{number:06d}.png"}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")
