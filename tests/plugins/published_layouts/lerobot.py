"""LeRobot datasets of versions 2 and 3, written with PyArrow and PyAV alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.plugins.published_layouts.demonstrations import SIDE, Demonstration

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install -e '.[lerobot]')")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")

TABLE_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
TABLE_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclass(frozen=True)
class Dataset:
    """What meta/ says about all episodes.

    features: {name: entry of info.json}, without LeRobot's own columns.
    tasks: the texts of meta/tasks, in the order of their indices.
    has_frame_index: whether the tables have this column.
    video_fps: frames per second of the videos; `fps` is that of the tables.
    """

    robot: str
    fps: int
    features: dict[str, dict[str, Any]]
    tasks: Sequence[str]
    has_frame_index: bool = True
    video_fps: int = 0

    def info(self, version: str, episodes: Sequence[Demonstration]) -> dict[str, Any]:
        columns = ["frame_index"] if self.has_frame_index else []
        counters = [*columns, "episode_index", "index", "task_index"]
        single = {name: {"dtype": "int64", "shape": [1], "names": None} for name in counters}
        timestamp = {"dtype": str(episodes[0].times.dtype), "shape": [1], "names": None}
        return {
            "codebase_version": version,
            "robot_type": self.robot,
            "total_episodes": len(episodes),
            "total_frames": sum(map(len, episodes)),
            "total_tasks": len(self.tasks),
            "chunks_size": 1000,
            "fps": self.fps,
            "splits": {"train": f"0:{len(episodes)}"},
            "data_path": TABLE_V3 if version == "v3.0" else TABLE_V2,
            "video_path": VIDEO_V3 if version == "v3.0" else VIDEO_V2,
            "features": {**self.features, "timestamp": timestamp, **single},
        }


def numbers_feature(names: Sequence[str], dtype: str = "float32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [len(names)], "names": {"motors": [*names]}}


def camera_feature(dtype: str, side: int = SIDE) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [side, side, 3], "names": ["height", "width", "channel"]}


def write_version_2(
    root: Path,
    dataset: Dataset,
    episodes: Sequence[Demonstration],
    version: str,
    modality: dict[str, Any] | None = None,
) -> None:
    """A table and, for each camera, a video for every episode.

    modality: the content of GR00T's meta/modality.json.
    """
    tables = _tables(dataset, episodes)
    for number, (episode, table) in enumerate(zip(episodes, tables, strict=True)):
        fields = {"episode_chunk": 0, "episode_index": number}
        _write_table(root / TABLE_V2.format(**fields), table)
        for key in _videos(dataset, episode):
            path = root / VIDEO_V2.format(video_key=key, **fields)
            write_video(path, episode.images[key], dataset.video_fps or dataset.fps)
    _write_json(root / "meta" / "info.json", dataset.info(version, episodes))
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(dataset.tasks)]
    _write_json(root / "meta" / "tasks.jsonl", *tasks)
    rows = [
        {"episode_index": i, "tasks": [episode.instruction], "length": len(episode)}
        for i, episode in enumerate(episodes)
    ]
    _write_json(root / "meta" / "episodes.jsonl", *rows)
    if modality:
        _write_json(root / "meta" / "modality.json", modality)


def write_version_3(
    root: Path,
    dataset: Dataset,
    episodes: Sequence[Demonstration],
    files: Sequence[int],
    listed: Sequence[int],
) -> None:
    """Files of several episodes each.

    files: for each episode, the data file that holds it.
    listed: for each episode, the data file that meta/episodes names.
    """
    tables = _tables(dataset, episodes)
    for file in sorted({*files}):
        together = [table for table, own in zip(tables, files, strict=True) if own == file]
        path = root / TABLE_V3.format(chunk_index=0, file_index=file)
        _write_table(path, pyarrow.concat_tables(together))
    lengths = np.array([*map(len, episodes)])
    ends = lengths.cumsum()
    columns: dict[str, Any] = {
        "episode_index": range(len(episodes)),
        "tasks": [[episode.instruction] for episode in episodes],
        "length": lengths,
        "dataset_from_index": ends - lengths,
        "dataset_to_index": ends,
        "data/chunk_index": [0] * len(episodes),
        "data/file_index": listed,
        "stats/action/mean": [episode.columns["action"].mean(axis=0) for episode in episodes],
    }
    for key in _videos(dataset, episodes[0]):
        films = [episode.images[key] for episode in episodes]
        path = root / VIDEO_V3.format(video_key=key, chunk_index=0, file_index=0)
        write_video(path, np.concatenate(films), dataset.video_fps or dataset.fps)
        seconds = np.cumsum([0, *map(len, films)]) / (dataset.video_fps or dataset.fps)
        for name in ("chunk_index", "file_index"):
            columns[f"videos/{key}/{name}"] = [0] * len(episodes)
        columns[f"videos/{key}/from_timestamp"] = seconds[:-1]
        columns[f"videos/{key}/to_timestamp"] = seconds[1:]
    _write_table(root / "meta/episodes/chunk-000/file-000.parquet", pyarrow.table(columns))
    # the converter's name for the column of texts, which was a pandas index without a name
    tasks = {"task_index": range(len(dataset.tasks)), "__index_level_0__": dataset.tasks}
    _write_table(root / "meta" / "tasks.parquet", pyarrow.table(tasks))
    _write_json(root / "meta" / "info.json", dataset.info("v3.0", episodes))


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write (n Y X 3) uint8 as H.264 in RGB without loss; most frames refer to others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _videos(dataset: Dataset, episode: Demonstration) -> list[str]:
    return [key for key in episode.images if dataset.features[key]["dtype"] == "video"]


def _tables(dataset: Dataset, episodes: Sequence[Demonstration]) -> list[Any]:
    """The rows of each episode, with LeRobot's own columns."""
    ends = np.cumsum([0, *map(len, episodes)])
    tables = []
    for number, episode in enumerate(episodes):
        columns = {key: pyarrow.array([*values]) for key, values in episode.columns.items()}
        for key in episode.images.keys() - {*_videos(dataset, episode)}:
            columns[key] = [
                {"bytes": _png(image), "path": f"frame-{i:06d}.png"}
                for i, image in enumerate(episode.images[key])
            ]
        if dataset.has_frame_index:
            columns["frame_index"] = np.arange(len(episode))
        columns["timestamp"] = episode.times
        columns["episode_index"] = np.full(len(episode), number)
        columns["index"] = ends[number] + np.arange(len(episode))
        columns["task_index"] = np.full(len(episode), dataset.tasks.index(episode.instruction))
        tables.append(pyarrow.table(columns))
    return tables


def _png(image: np.ndarray) -> bytes:
    Image.fromarray(image).save(stream := BytesIO(), "png")
    return stream.getvalue()


def _write_table(path: Path, table: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def _write_json(path: Path, *rows: dict[str, Any]) -> None:
    """Write each row as a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
