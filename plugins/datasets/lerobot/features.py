"""What meta/info.json says of a dataset, and the names of its columns."""

from collections.abc import Mapping
from typing import Any

from core.episodes import StoreInfo

STATE, ACTION, PICTURES = "observation.state", "action", "observation.images."
COUNTERS = ("frame_index", "episode_index", "index", "task_index")
FILES_PER_CHUNK = 1_000
TABLE_MB, FILM_MB = 100, 200  # at most in a file, as LeRobot
SERIES = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA, EPISODES = f"data/{SERIES}.parquet", f"meta/episodes/{SERIES}.parquet"
FILMS = f"videos/{{video_key}}/{SERIES}.mp4"

Features = dict[str, dict[str, Any]]


def describe_features(info: StoreInfo, films: Mapping[str, Mapping[str, Any]]) -> Features:
    """Every column with its type; films: {camera: facts of its videos}, empty where pictures stand
    in the tables.
    """
    features = {STATE: _numbers(info.proprio)} if info.proprio else {}
    features[ACTION] = _numbers(info.action.names)
    for name, camera in info.cameras.items():
        features[f"{PICTURES}{name}"] = {
            "dtype": "video" if films else "image",
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
        } | ({"info": dict(films[name])} if films else {})
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    return features | {name: {"dtype": "int64", "shape": [1], "names": None} for name in COUNTERS}


def _numbers(names: tuple[str, ...]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def describe_dataset(
    features: Features,
    *,
    fps: int | float,
    robot: str | None,
    episodes: int,
    frames: int,
    tasks: int,
) -> dict[str, Any]:
    """The content of meta/info.json."""
    has_films = any(feature["dtype"] == "video" for feature in features.values())
    return {
        "codebase_version": "v3.0",
        "fps": fps,
        "features": features,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": TABLE_MB,
        "video_files_size_in_mb": FILM_MB,
        "data_path": DATA,
        "video_path": FILMS if has_films else None,
        "robot_type": robot,
        "splits": {"train": f"0:{episodes}"},
    }
