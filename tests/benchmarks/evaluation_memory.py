"""How much memory an evaluation takes while it records, and what a film costs.

    python -m tests.benchmarks.evaluation_memory                 # both; a few minutes on two cores
    python -m tests.benchmarks.evaluation_memory --films

The memory is that of the first process, in which the policy acts: 16 environments of two cameras of
256 x 256 pixels, whose task is never done, so that every attempt might be a first success and is
recorded to its end. A film is 100 frames of 640 x 480 pixels with a camera's noise.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from core.environments import Environment, Observation, Task
from core.episodes import ActionConvention, Camera, StoreInfo

SIDE, ROWS = 256, 16
LIMIT = 1.5  # GB
RECIPE = """
[train]
steps = 2
batch_size = 2
warmup_steps = 1
accelerator = "cpu"
[environment]
name = "table"
[demonstrations]
episodes = 2
[data]
path = "table.zarr"
window = 1
[action]
horizon = 1
[vision_encoder]
name = "film_cnn"
image_size = 32
[text_encoder]
name = "sentencepiece"
width = 16
[backbone]
name = "transformer"
width = 16
depth = 1
heads = 2
[action_tokens]
name = "learned"
[policy_head]
name = "lstm"
hidden_size = 16
layers = 1
mlp = [16]
[evaluate]
"""
PROCESS = """
import resource, sys
from core.cli import main
from core.registry.catalogue import load_plugins
from core.registry.components import Component, Plugin
from tests.benchmarks.evaluation_memory import Table, TableConfig
name = "tests.benchmarks.evaluation_memory"
table = Component("environment", "table", TableConfig, Table, Plugin(name, "tests", "1"))
load_plugins()["environment"].add(table)
assert main(sys.argv[1:]) == 0
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


# ------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class TableConfig:
    """Settings of the table."""

    max_steps: int = 4
    """control steps of an attempt."""
    done_after: int = 3
    """the step after which the task is done; 0: never."""


class Table(Environment):
    """A shaded table that slides below two cameras, with noise."""

    def __init__(self, config: TableConfig) -> None:
        self._config, self._step = config, 0
        self.info = StoreInfo(
            fps=20.0,
            cameras={name: Camera(SIDE, SIDE) for name in ("front", "wrist")},
            action=ActionConvention(
                ("x",), mode="delta", frame="world", rotation="none", scale=(1.0,), rate=20.0
            ),
            proprio=("x",),
            origin="a table made for a benchmark",
        )
        self.tasks = {"wait": Task("wait", ("wait",), max_steps=config.max_steps)}
        self.versions = {"table": "1"}

    def reset(self, task: str, seed: int) -> None:
        self._step, self._frames = 0, {name: noisy(SIDE, SIDE, seed) for name in self.info.cameras}

    def step(self, action: np.ndarray) -> bool:
        self._step += 1
        return self._step == self._config.done_after

    def observe(self) -> Observation:
        images = {name: next(frames) for name, frames in self._frames.items()}
        return Observation(images, np.array([self._step], np.float32))

    def expert(self) -> np.ndarray:
        return np.ones(1, np.float32)


def noisy(height: int, width: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield pictures (height width 3) of a shaded table that slides, with a camera's noise."""
    random, margin = np.random.default_rng(seed), 64
    y, x = np.mgrid[:height, :width]
    scene = (127 + 80 * np.sin(x / 90) + 40 * np.cos(y / 70)).astype(np.int16)[..., None]
    noise = random.normal(0, 3, (height + margin, width + margin, 3)).round().astype(np.int16)
    while True:
        scene = np.roll(scene, 2, axis=1)
        top, left = random.integers(0, margin, 2)  # another part of the noise in every picture
        yield (scene + noise[top : top + height, left : left + width]).clip(0, 255).astype(np.uint8)


def measure_memory(folder: Path, steps: int, episodes: int) -> float:
    """Return the most memory, in GB, that the first process of an evaluation took."""
    words = f"evaluate run environment.done_after=0 environment.max_steps={steps}"
    output = f"--episodes {episodes} --output out_{steps}_{episodes} evaluate.num_envs={ROWS}"
    return int(_run(folder, f"{words} {output}").split()[-1]) / 2**20


def _run(folder: Path, words: str) -> str:
    command = [sys.executable, "-c", PROCESS, *words.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return done.stdout


def print_memory(lengths: list[tuple[int, int]]) -> None:
    """Print a table: a row for each (steps, episodes)."""
    print("| attempts | steps | their frames | most memory of the first process | limit |")
    print("|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "table.toml").write_text(RECIPE)
        _run(folder, "run table.toml --output run")
        for steps, episodes in lengths:
            frames = episodes * (steps + 1) * 2 * SIDE * SIDE * 3 / 2**30
            most = measure_memory(folder, steps, episodes)
            print(f"| {episodes} | {steps} | {frames:.1f} GB | {most:.2f} GB | {LIMIT} GB |")


# -------------------------------------------------------------------------------------------- films


@dataclass(frozen=True)
class Cost:
    """What it costs to keep an attempt: size, processor time, and how long the evaluation waits."""

    megabytes: float
    seconds: float
    waiting: float


def film_cost(frames: list[np.ndarray], every: float) -> Cost:
    """Record frames that come every so many seconds."""
    from core.evaluation.film_recording import EncodingThread, FilmRecording
    from core.rollout.results import EpisodeResult

    camera = Camera(*frames[0].shape[:2])
    info = replace(Table(TableConfig()).info, cameras={"top": camera})
    thread, waiting, began = EncodingThread(), 0.0, time.process_time()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        recording = FilmRecording(path.parent, info, thread)
        for frame in frames:
            time.sleep(every)
            waiting += _seconds(
                lambda: recording.add_observation(Observation({"top": frame}, np.zeros(1)))  # noqa: B023 - called at once
            )
        result = EpisodeResult("standard", "wait", 0, "wait", True, len(frames))
        waiting += _seconds(lambda: recording.save(path, result))
        thread.close()
        return Cost(path.stat().st_size / 1e6, time.process_time() - began, waiting)


def arrays_cost(frames: list[np.ndarray]) -> Cost:
    """Deflate the raw frames at the end, as earlier versions did."""
    buffer, began = BytesIO(), time.process_time()
    waiting = _seconds(lambda: np.savez_compressed(buffer, frames=np.stack(frames)))
    return Cost(len(buffer.getvalue()) / 1e6, time.process_time() - began, waiting)


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def print_films() -> None:
    """Print a table: a row for each way to keep 100 frames."""
    source = noisy(480, 640)
    frames = [next(source) for _ in range(100)]
    film_cost(frames[:10], every=0)  # libraries are loaded
    print(
        "| 100 frames of 640 x 480 | size | processor | the evaluation waits |\n|---|---|---|---|"
    )
    for name, cost in {
        "deflated arrays": arrays_cost(frames),
        "a film, of frames that come every 20 ms": film_cost(frames, every=0.02),
        "a film, of frames that come all at once": film_cost(frames, every=0),
    }.items():
        print(f"| {name} | {cost.megabytes:.2f} MB | {cost.seconds:.2f} s | {cost.waiting:.2f} s |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", action="store_true", help="measure only what a film costs")
    print_films()
    if not parser.parse_args().films:
        print()
        print_memory([(10, ROWS), (500, ROWS), (500, 2 * ROWS)])


if __name__ == "__main__":
    main()
