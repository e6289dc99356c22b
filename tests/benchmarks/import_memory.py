"""How much memory the import of a long episode takes, beside what its images would take at once.

    python -m tests.benchmarks.import_memory --frames 300 1500

Makes a LeRobot dataset of one episode from three cameras of 480 x 640 pixels, and imports it in a
process of its own. They show an arm at a table, or noise that moves, which compresses badly: its
figure is an upper limit.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pyarrow
from pyarrow import parquet

from tests.benchmarks.own_arm.arm import demonstrate, follow, place_things
from tests.benchmarks.own_arm.drawing import COLOURS
from tests.benchmarks.own_arm.recording import film

CAMERAS, SHAPE, RATE = ("high", "left", "right"), (480, 640), 30
IMPORT = """
import resource, sys
from core.commands.import_ import main
assert main(sys.argv[1:]) == 0
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def noise(frames: int) -> Iterator[np.ndarray]:
    """Yield noise that moves by a pixel from frame to frame."""
    height, width = SHAPE
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = coarse.repeat(8, axis=0).repeat(8, axis=1)
    for number in range(frames):
        yield np.roll(image, number, axis=1)


def arm(frames: int) -> Iterator[np.ndarray]:
    """Yield what the camera at an arm's wrist sees, in one demonstration after another."""
    random = np.random.default_rng(0)
    left = frames
    while left:
        scene = place_things(random, tuple(COLOURS))
        joints = follow(demonstrate(scene, "red", random))[:left]
        yield from (images["wrist"] for images in film(scene, "red", joints, light=1.0))
        left -= len(joints)


CONTENTS = {"arm": arm, "noise": noise}


def write_video(path: Path, images: Iterable[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": "15"})
        stream.height, stream.width, stream.pix_fmt = *SHAPE, "yuv420p"
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


def write_dataset(root: Path, frames: int, content: str) -> None:
    """Write a dataset of version 2.1 with one episode."""
    numbers = {"dtype": "float32", "shape": [14], "names": None}
    features = {"action": numbers, "observation.state": numbers}
    for camera in CAMERAS:
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": [*SHAPE, 3],
            "names": ["height", "width", "channels"],
        }
    info = {
        "codebase_version": "v2.1",
        "fps": RATE,
        "features": features,
        "total_episodes": 1,
        "chunks_size": 1000,
        "data_path": "data/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    episode = {"episode_index": 0, "tasks": ["wait"], "length": frames}
    (root / "meta" / "episodes.jsonl").write_text(json.dumps(episode))
    (root / "meta" / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "wait"}))
    (root / "data").mkdir()
    values = list(np.random.default_rng(0).normal(size=(frames, 14)).astype(np.float32))
    columns = {
        "action": values,
        "observation.state": values,
        "timestamp": (np.arange(frames) / RATE).astype(np.float32),
        "frame_index": np.arange(frames),
        "episode_index": np.zeros(frames, np.int64),
        "task_index": np.zeros(frames, np.int64),
    }
    parquet.write_table(pyarrow.table(columns), root / "data" / "episode_000000.parquet")
    for camera in CAMERAS:
        path = root / "videos" / f"observation.images.{camera}" / "episode_000000.mp4"
        write_video(path, CONTENTS[content](frames))


def measure(frames: int, content: str) -> int:
    """Return the most memory, in bytes, that the importing process took."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "long"
        write_dataset(root, frames, content)
        command = ["lerobot", str(root), str(Path(folder) / "long.zarr"), "--jobs", "1"]
        done = subprocess.run(
            [sys.executable, "-c", IMPORT, *command], capture_output=True, text=True, check=True
        )
    return 1024 * int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[300, 1500])
    print("| content | frames | images at once | most memory of the process |\n|---|---|---|---|")
    for content, frames in product(CONTENTS, parser.parse_args().frames):
        whole = frames * len(CAMERAS) * SHAPE[0] * SHAPE[1] * 3 / 1e9
        most = measure(frames, content) / 1e9
        print(f"| {content} | {frames:,} | {whole:.1f} GB | {most:.2f} GB |", flush=True)


if __name__ == "__main__":
    main()
