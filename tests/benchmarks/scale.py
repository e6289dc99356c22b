"""Time and memory that a large store takes: opening it, reading all its numbers, and random windows
of its frames.

    python -m tests.benchmarks.scale --data runs/scale

A million frames in 50,000 episodes and 500 parts, as 64 MiB of frames make of two cameras at 224
pixels; here the pictures are 16 pixels wide, which changes neither the number of files nor what is
kept of each frame. Every process is a fresh one. RSS counts all of a process's pages, PSS those
that two processes share as half of one each.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from core.episodes.episode import ActionConvention, Camera, Episode, Gripper, StoreInfo

INFO = StoreInfo(
    fps=10.0,
    cameras={"static": Camera(16, 16), "wrist": Camera(16, 16)},
    action=ActionConvention(
        names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
        mode="delta",
        frame="base",
        rotation="euler_xyz",
        scale=(0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1.0),
        rate=10.0,
        grippers=(Gripper(6, "binary", closed=-1.0, open=1.0),),
    ),
    proprio=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    origin="benchmark: random",
)
TASKS = 100
WINDOW = 8


# ------------------------------------------------------------------------------------------ writing


def write(path: Path, frames: int, episodes: int, parts: int) -> None:
    """Write a store of random episodes of equal length; its static camera stands still, its wrist
    camera is noise.
    """
    from core.store.writer import StoreWriter  # whoever measures reading imports what reading needs

    random, length = np.random.default_rng(0), frames // episodes
    noise = random.integers(0, 256, (length + 97, 16, 16, 3), np.uint8)
    with StoreWriter(path, INFO) as writer:
        for e in range(episodes):
            static, wrist = (
                np.repeat(noise[e % 97, None], length, axis=0),
                noise[e % 97 : e % 97 + length],
            )
            numbers = random.normal(size=(2, length, 7)).astype(np.float32)
            numbers[0, :, 6] = np.where(numbers[0, :, 6] > 0, 1, -1)
            task = f"task {e % TASKS}"
            writer.append(
                Episode(f"episode/{e}", task, task, {"static": static, "wrist": wrist}, *numbers)
            )
            if (e + 1) * parts // episodes > e * parts // episodes:
                writer.commit()


# ---------------------------------------------------------------------------------------- measuring


def stages(path: Path, windows: int) -> Iterator[str]:
    """What a process does with a store, one thing after the other; yields the name of what it has
    just done.
    """
    from core.store.store import EpisodeStore

    yield "importing the modules"
    store = EpisodeStore(path)
    yield f"opening {store.frame_count:,} frames, {len(store):,} episodes"
    _ = store.statistics
    yield "statistics"
    for e in range(len(store)):
        (
            store.actions(e, 0, int(store.length[e])).sum(),
            store.proprio(e, 0, int(store.length[e])).sum(),
        )
    yield "reading all numbers"
    random = np.random.default_rng(0)
    out = np.empty((WINDOW, 16, 16, 3), np.uint8)
    for turn in ("", " more"):
        for e in random.integers(0, len(store), windows).tolist():
            start = int(random.integers(0, store.length[e] - WINDOW + 1))
            for camera in store.info.cameras:
                store.read_frames(camera, e, start, start + WINDOW, out)
        yield f"{windows:,}{turn} random windows"


def measure(path: Path, windows: int) -> None:
    """Print time and memory after each stage, a line of JSON each; after each, wait for a line from
    whoever asks.
    """
    began = perf_counter(), process_time()
    for stage in stages(path, windows):
        seconds, of_cpu = perf_counter() - began[0], process_time() - began[1]
        print(json.dumps({"stage": stage, "seconds": seconds, "cpu": of_cpu}), flush=True)
        sys.stdin.readline()  # all processes are there now
        print(json.dumps(memory()), flush=True)
        sys.stdin.readline()
        began = perf_counter(), process_time()


def memory() -> dict[str, float]:
    """MB (10^6 bytes) of this process."""
    rows = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {row[0].rstrip(":"): int(row[1]) * 1024 / 1e6 for row in rows}


def together(
    path: Path, windows: int, processes: int
) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """Let processes do the same at once; yield each stage and what each process measured after it."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.scale",
        "--measure",
        str(path),
        "--windows",
        str(windows),
    ]
    running = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(processes)]

    def hear() -> list[dict[str, float]]:
        return [json.loads(process.stdout.readline() or "null") for process in running]

    def say() -> None:
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()

    while all(heads := hear()):
        say()
        bodies = hear()
        say()
        yield heads[0]["stage"], [head | body for head, body in zip(heads, bodies, strict=True)]
    for process in running:
        process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("runs/scale"), help="folder in which the store is kept"
    )
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--episodes", type=int, default=50_000)
    parser.add_argument("--parts", type=int, default=500)
    parser.add_argument("--windows", type=int, default=5_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.windows)
        return
    path = arguments.data / f"{arguments.frames}_{arguments.episodes}_{arguments.parts}.zarr"
    if not path.exists():
        began, unfinished = perf_counter(), path.with_name(f"unfinished_{path.name}")
        write(unfinished, arguments.frames, arguments.episodes, arguments.parts)
        unfinished.rename(path)
        print(f"wrote {path} in {perf_counter() - began:.0f} s\n", flush=True)
    print(
        f"{arguments.parts} parts\n\n| | s | of CPU | RSS, MB | PSS, MB | two processes at once: s | PSS of both, MB |"
    )
    print("|---|---|---|---|---|---|---|")
    alone, both = (list(together(path, arguments.windows, processes)) for processes in (1, 2))
    for (stage, (one,)), (_, two) in zip(alone, both, strict=True):
        print(
            f"| {stage} | {one['seconds']:.2f} | {one['cpu']:.2f} | {one['Rss']:.0f} | {one['Pss']:.0f} "
            f"| {max(process['seconds'] for process in two):.2f} | {sum(process['Pss'] for process in two):.0f} |"
        )


if __name__ == "__main__":
    main()
