"""The content of meta/info.json and the names of columns and files, in format version 3.0."""

from collections.abc import Mapping
from typing import Any

from core.episodes import StoreInfo

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
COUNTERS = ("frame_index", "episode_index", "index", "task_index")
FILES_PER_CHUNK = 1_000
# size of a file in MB at which the next file is begun, as in LeRobot
TABLE_MB, VIDEO_MB = 100, 200
NUMBERED = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA, EPISODES = f"data/{NUMBERED}.parquet", f"meta/episodes/{NUMBERED}.parquet"
VIDEOS = f"videos/{{video_key}}/{NUMBERED}.mp4"

Features = dict[str, dict[str, Any]]


def make_features(info: StoreInfo, videos: Mapping[str, Mapping[str, Any]]) -> Features:
    """Return every column with its type, as info.json lists them.

    videos: {camera: properties of its videos}; empty if images are in the tables.
    """
    features = {STATE: _float_feature(info.proprio)} if info.proprio else {}
    features[ACTION] = _float_feature(info.action.names)
    for name, camera in info.cameras.items():
        features[f"{IMAGES}{name}"] = {
            "dtype": "video" if videos else "image",
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
        }
        if videos:
            features[f"{IMAGES}{name}"]["info"] = dict(videos[name])
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    return features | {name: {"dtype": "int64", "shape": [1], "names": None} for name in COUNTERS}


def _float_feature(names: tuple[str, ...]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def make_info_json(
    features: Features,
    *,
    fps: int | float,
    robot: str | None,
    episodes: int,
    frames: int,
    tasks: int,
) -> dict[str, Any]:
    """Return the content of meta/info.json.

    episodes, frames, tasks: the number of each in the dataset.
    """
    has_videos = any(feature["dtype"] == "video" for feature in features.values())
    return {
        "codebase_version": "v3.0",
        "fps": fps,
        "features": features,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": TABLE_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "data_path": DATA,
        "video_path": VIDEOS if has_videos else None,
        "robot_type": robot,
        "splits": {"train": f"0:{episodes}"},
    }
