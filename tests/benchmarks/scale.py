"""Time and memory of a large store: opening it, and reading numbers and random windows of frames.

    python -m tests.benchmarks.scale --data runs/scale

The store has a million frames in 50,000 episodes and 500 segments. Segments of 64 MiB hold about
as many frames of two cameras at 224 pixels; here the images are 16 pixels wide, which changes
neither the number of files nor what is kept in memory for each frame. Every process is a fresh one.
RSS counts all pages of a process; PSS counts a page that two processes share as half a page each.
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


def write(path: Path, frames: int, episodes: int, segments: int) -> None:
    """Write a store of random episodes of equal length.

    All frames of an episode's static camera are equal; the wrist camera is noise.
    """
    # imported here, as a process that measures reading must import only what reading needs
    from core.store.writer import StoreWriter

    random, length = np.random.default_rng(0), frames // episodes
    noise = random.integers(0, 256, (length + 97, 16, 16, 3), np.uint8)
    with StoreWriter(path, INFO) as writer:
        for e in range(episodes):
            static = np.repeat(noise[e % 97, None], length, axis=0)
            wrist = noise[e % 97 : e % 97 + length]
            numbers = random.normal(size=(2, length, 7)).astype(np.float32)
            numbers[0, :, 6] = np.where(numbers[0, :, 6] > 0, 1, -1)
            task = f"task {e % TASKS}"
            writer.append(
                Episode(f"episode/{e}", task, task, {"static": static, "wrist": wrist}, *numbers)
            )
            if (e + 1) * segments // episodes > e * segments // episodes:
                writer.commit()


# ---------------------------------------------------------------------------------------- measuring


def stages(path: Path, windows: int) -> Iterator[str]:
    """Do one thing after the other with a store; yield the name of each when it is done."""
    from core.store.store import EpisodeStore

    yield "importing the modules"
    store = EpisodeStore(path)
    yield f"opening {store.frame_count:,} frames, {len(store):,} episodes"
    _ = store.statistics
    yield "statistics"
    for e in range(len(store)):
        store.actions(e, 0, int(store.length[e])).sum()
        store.proprio(e, 0, int(store.length[e])).sum()
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
    """Print time and memory after each stage, as two lines of JSON.

    After each line, wait for a line from the process that started this one.
    """
    began = perf_counter(), process_time()
    for stage in stages(path, windows):
        seconds, of_cpu = perf_counter() - began[0], process_time() - began[1]
        print(json.dumps({"stage": stage, "seconds": seconds, "cpu": of_cpu}), flush=True)
        sys.stdin.readline()  # now all processes have finished the stage
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
    """Run some processes at once; yield each stage and what each process measured after it."""
    command = [sys.executable, "-m", "tests.benchmarks.scale"]
    command += ["--measure", str(path), "--windows", str(windows)]
    running = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(processes)]

    def receive() -> list[dict[str, float]]:
        return [json.loads(process.stdout.readline() or "null") for process in running]

    def proceed() -> None:
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()

    while all(times := receive()):
        proceed()
        memories = receive()
        proceed()
        yield times[0]["stage"], [time | use for time, use in zip(times, memories, strict=True)]
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
    parser.add_argument("--segments", type=int, default=500)
    parser.add_argument("--windows", type=int, default=5_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.windows)
        return
    path = arguments.data / f"{arguments.frames}_{arguments.episodes}_{arguments.segments}.zarr"
    if not path.exists():
        began, unfinished = perf_counter(), path.with_name(f"unfinished_{path.name}")
        write(unfinished, arguments.frames, arguments.episodes, arguments.segments)
        unfinished.rename(path)
        print(f"wrote {path} in {perf_counter() - began:.0f} s\n", flush=True)
    print(f"{arguments.segments} segments\n")
    print("| | s | of CPU | RSS, MB | PSS, MB | two processes at once: s | PSS of both, MB |")
    print("|---|---|---|---|---|---|---|")
    alone, both = (list(together(path, arguments.windows, processes)) for processes in (1, 2))
    for (stage, (one,)), (_, two) in zip(alone, both, strict=True):
        slower, memory_of_both = max(p["seconds"] for p in two), sum(p["Pss"] for p in two)
        print(
            f"| {stage} | {one['seconds']:.2f} | {one['cpu']:.2f} | {one['Rss']:.0f} "
            f"| {one['Pss']:.0f} | {slower:.2f} | {memory_of_both:.0f} |"
        )


if __name__ == "__main__":
    main()
