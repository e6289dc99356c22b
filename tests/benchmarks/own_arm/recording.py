"""Writes demonstrations as a LeRobot dataset of version 2.1, the way a desk arm is recorded."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow
from pyarrow import parquet

from tests.benchmarks.own_arm.arm import (
    CUBE,
    JOINTS,
    RATE,
    Scene,
    demonstrate,
    follow,
    place_things,
    skeleton,
)
from tests.benchmarks.own_arm.drawing import COLOURS, HEIGHT, WIDTH, draw

CAMERAS = ("front", "wrist")
FILE = "chunk-{episode_chunk:03d}/episode_{episode_index:06d}"  # of an episode, in each folder


def record(root: Path, episodes: int, seed: int) -> None:
    """Record demonstrations in which the named cube, of three, is put into the tray."""
    tasks = [f"Put the {colour} cube into the tray." for colour in COLOURS]
    lengths = []
    for number in range(episodes):
        random = np.random.default_rng([seed, number])
        scene = place_things(random, tuple(COLOURS))
        task = number % len(tasks)
        colour = [*COLOURS][task]
        commands = demonstrate(scene, colour, random)
        joints = follow(commands)
        images = list(film(scene, colour, joints, random.uniform(0.8, 1.1)))
        for camera in CAMERAS:
            _write_video(_path(root, number, camera), [frame[camera] for frame in images])
        _write_table(_path(root, number), number, task, commands, joints, sum(lengths))
        lengths.append(len(commands))
    _write_description(root, tasks, lengths)


def film(
    scene: Scene, colour: str, joints: np.ndarray, light: float
) -> Iterator[dict[str, np.ndarray]]:
    """Draw frame after frame; the cube moves with the fingertips while the gripper holds it."""
    centres = {name: np.array([*place, CUBE / 2]) for name, place in scene.cubes.items()}
    is_held = False
    for now in joints:
        tip = skeleton(now)[0][-1]
        is_near = np.linalg.norm(tip - centres[colour]) < 0.03
        is_held = now[5] < 30 and (is_held or bool(is_near))
        if is_held:
            centres[colour] = tip.copy()
        elif is_near:  # let go: it falls onto the table
            centres[colour][2] = CUBE / 2
        yield draw(scene, centres, now, light)


def _path(root: Path, number: int, camera: str = "") -> Path:
    name = f"episode_{number:06d}"
    if camera:
        return root / "videos" / "chunk-000" / f"observation.images.{camera}" / f"{name}.mp4"
    return root / "data" / "chunk-000" / f"{name}.parquet"


def _write_video(path: Path, images: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=RATE, options={"crf": "23", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


def _write_table(
    path: Path, number: int, task: int, commands: np.ndarray, joints: np.ndarray, before: int
) -> None:
    """Write the rows of an episode, of which `before` frames of other episodes come first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(commands)
    columns = {
        "action": commands.astype(np.float32).tolist(),
        "observation.state": joints.astype(np.float32).tolist(),
        "timestamp": np.arange(count, dtype=np.float32) / RATE,
        "frame_index": np.arange(count),
        "episode_index": np.full(count, number),
        "index": before + np.arange(count),
        "task_index": np.full(count, task),
    }
    parquet.write_table(pyarrow.table(columns), path)


def _write_description(root: Path, tasks: list[str], lengths: list[int]) -> None:
    meta = root / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "info.json").write_text(json.dumps(_info(len(tasks), lengths), indent=4))
    _write_lines(meta / "tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(tasks)])
    episodes = [
        {"episode_index": i, "tasks": [tasks[i % len(tasks)]], "length": length}
        for i, length in enumerate(lengths)
    ]
    _write_lines(meta / "episodes.jsonl", episodes)


def _write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _info(tasks: int, lengths: list[int]) -> dict[str, Any]:
    """Describe the dataset; what an action means has no place in it."""
    joints = {"dtype": "float32", "shape": [6], "names": [f"{name}.pos" for name in JOINTS]}
    features: dict[str, Any] = {"action": joints, "observation.state": joints}
    for camera in CAMERAS:
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": [HEIGHT, WIDTH, 3],
            "names": ["height", "width", "channels"],
        }
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    return {
        "codebase_version": "v2.1",
        "robot_type": "so100",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": tasks,
        "chunks_size": 1000,
        "fps": RATE,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": f"data/{FILE}.parquet",
        "video_path": f"videos/{FILE.replace('/', '/{video_key}/')}.mp4",
        "features": features,
    }
