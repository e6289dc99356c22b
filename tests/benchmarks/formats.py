"""Random windows per second of the episode store and of other formats, and how long training waits.

    python -W ignore -m tests.benchmarks.formats --data runs/formats

A window is 8 frames of two cameras at 128 pixels, their proprioception and 10 actions. All formats
hold the same episodes and are read in turns; ratios are taken within each round. They are read
with one core (the Loader has one decoding thread) and with two cores: the Loader then has two
threads, and the other formats are read by torch's DataLoader with two workers. Before the clock
starts, a reader hands out what it has prepared ahead, so it is measured as in the middle of
training. `--data` is the folder of the files, which are written once and kept.
docs/episode-store.md says what to install.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import multiprocessing
from torch.utils.data import Dataset

from core.contracts.generator import Generator
from core.loading.opening import open_data
from core.loading.windows import Windows
from core.policy.assembly import build_policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from core.training.optimizer import build_optimizer
from tests.benchmarks.clocks import (
    BATCH,
    SEED,
    Clock,
    Reading,
    clock_bare,
    clock_dataset,
    clock_loader,
)
from tests.benchmarks.content import BOTH, PHOTOGRAPHS, SIMULATION, episodes_of, info_of
from tests.benchmarks.peers import (
    HDF5Windows,
    LeRobotWindows,
    Numbers,
    ZarrWindows,
    write_hdf5,
    write_lerobot,
    write_zarr,
)
from tests.benchmarks.reading import loader_of

RECIPE = Path(__file__).parents[2] / "recipes" / "metaworld_offline.toml"
WINDOW, HORIZON = 8, 10
STEP = 16  # windows of a training step
LOADER = "Joinery, the Loader"
PRELOADED = [
    "core.registry.catalogue",
    "core.loading.training_data",
    "tests.benchmarks.clocks",
    "tests.benchmarks.peers",
]


# ------------------------------------------------------------------------------------------ writing


def write(content: str, folder: Path, limit: int | None) -> dict[str, int]:
    """Write the files that are missing, and return the size of each in bytes."""
    info = info_of(content)
    writers: dict[str, Callable[[Path], None]] = {
        "store.zarr": lambda path: _write_store(path, content, limit),
        "frames.hdf5": lambda path: write_hdf5(path, episodes_of(content, limit), info),
        "frames.zarr": lambda path: write_zarr(path, episodes_of(content, limit), info),
        "lerobot_video": lambda path: write_lerobot(
            path, episodes_of(content, limit), info, "video"
        ),
        "lerobot_image": lambda path: write_lerobot(
            path, episodes_of(content, limit), info, "image"
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, writer in writers.items():
        if not (folder / name).exists():
            began = perf_counter()
            writer(folder / f"unfinished_{name}")
            (folder / f"unfinished_{name}").rename(folder / name)
            print(f"wrote {folder / name} in {perf_counter() - began:.0f} s", flush=True)
    return {name: _bytes(folder / name) for name in writers}


def _write_store(path: Path, content: str, limit: int | None) -> None:
    with StoreWriter(path, info_of(content)) as writer:
        for episode in episodes_of(content, limit):
            writer.append(episode)


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


# ------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Reader:
    """One row of the table.

    file: the name of the file or folder that it reads.
    clock: makes a clock for a number of threads or processes.
    """

    name: str
    file: str
    clock: Callable[[int], Clock]


def readers_of(folder: Path, decoders: Sequence[str]) -> list[Reader]:
    """Return the readers of all files in a folder."""
    store = EpisodeStore(folder / "store.zarr")
    windows = Windows(store, range(len(store)), WINDOW, HORIZON)
    numbers = Numbers.of(windows)

    def peer(
        name: str, file: str, dataset: Callable[..., Dataset[object]], *arguments: object
    ) -> Reader:
        return Reader(
            name,
            file,
            lambda processes: clock_dataset(dataset(folder / file, *arguments), processes),
        )

    return [
        Reader(
            LOADER, "store.zarr", lambda threads: clock_loader(loader_of(windows, BATCH, threads))
        ),
        Reader("bare pread + decode", "store.zarr", partial(clock_bare, windows)),
        *(
            peer(f"LeRobot, video, {name}", "lerobot_video", LeRobotWindows, windows, name)
            for name in decoders
        ),
        peer("LeRobot, images", "lerobot_image", LeRobotWindows, windows),
        peer("HDF5, gzip", "frames.hdf5", HDF5Windows, numbers),
        peer("zarr-python, raw", "frames.zarr", ZarrWindows, numbers),
    ]


def compare(
    readers: Sequence[Reader], cores: int, rounds: int, least: float
) -> dict[str, list[Reading]]:
    """Return the readings of each reader, one for each round.

    In a round each reader takes about `least` seconds, and reads two batches at least.
    """
    clocks = {reader.name: reader.clock(cores) for reader in readers}
    for clock in clocks.values():
        clock(2)  # opens files, starts workers, fills caches
    numbers = {name: _even(least * clock(2).windows / BATCH) for name, clock in clocks.items()}
    readings: dict[str, list[Reading]] = {name: [] for name in clocks}
    for _ in range(rounds):
        for name, clock in clocks.items():
            readings[name].append(clock(numbers[name]))
    return readings


def _even(batches: float) -> int:
    """Round to an even number, two at least, so that two workers read equally many batches."""
    return 2 * max(1, round(batches / 2))


# ----------------------------------------------------------------------------------------- training


def waiting(path: Path, steps: int) -> tuple[float, float]:
    """Train a policy on a store; return seconds per step and the share of waiting for data."""
    recipe = load_recipe(
        RECIPE, [f"data.path={path.resolve()}", f"train.batch_size={STEP}"], load_plugins()
    )
    data = open_data(recipe)
    policy = build_policy(recipe, data.image_shapes, data.action_spec, data.proprio_dim).train()
    optimizer = build_optimizer(policy, recipe)
    loader, _ = data.loaders(policy.text_encoder.tokenize, STEP, torch.device("cpu"))
    with closing(loader.batches(SEED)) as batches:
        for step in range(-3, steps):  # the first ones start threads and touch memory
            if step == 0:
                began, before = perf_counter(), loader.waited
            generator = Generator.shared((0,), torch.device("cpu"))
            policy(next(batches), generator).losses["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
        elapsed = perf_counter() - began
    return elapsed / steps, (loader.waited - before) / elapsed


# ----------------------------------------------------------------------------------------- printing


def table(
    readers: Sequence[Reader],
    sizes: Mapping[str, int],
    frames: int,
    readings: dict[str, list[Reading]],
) -> str:
    """Return rows of Markdown: KB a frame, windows/s and CPU time, with ratios to the Loader's."""
    head = ["reader", "KB a frame", "windows/s", "the Loader's are"]
    head += ["CPU ms a window", "of the Loader's"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|---|"]
    speeds, costs = {}, {}
    for name, rounds in readings.items():
        speeds[name] = np.array([reading.windows for reading in rounds])
        costs[name] = np.array([reading.cpu for reading in rounds])
    for reader in readers:
        name, size = reader.name, sizes[reader.file] / frames / 1e3
        speedup = _spread(speeds[LOADER] / speeds[name])
        cost_ratio = _spread(costs[name] / costs[LOADER])
        if name == LOADER:
            speedup = cost_ratio = "1 x"
        speed, cost = f"{np.median(speeds[name]):,.0f}", f"{1e3 * np.median(costs[name]):.2f}"
        lines.append(f"| {name} | {size:.1f} | {speed} | {speedup} | {cost} | {cost_ratio} |")
    return "\n".join(lines)


def _spread(ratios: np.ndarray) -> str:
    return f"{np.median(ratios):.3g} x ({ratios.min():.3g}-{ratios.max():.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("runs/formats"),
        help="folder of the files; default: runs/formats",
    )
    parser.add_argument("--content", nargs="+", default=[SIMULATION, PHOTOGRAPHS, BOTH])
    parser.add_argument(
        "--decoders", nargs="+", default=["torchcodec"], help="LeRobot's: torchcodec, pyav"
    )
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--episodes", type=int, help="of each content; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="about how long each reader takes in a round"
    )
    parser.add_argument("--steps", type=int, default=40, help="of training; default: 40")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    multiprocessing.set_forkserver_preload(PRELOADED)
    for content in arguments.content:
        folder = arguments.data / content
        sizes = write(content, folder, arguments.episodes)
        store = EpisodeStore(folder / "store.zarr")
        codecs = ", ".join(f"{name} {codec}" for name, codec in store.codecs.items())
        print(f"\n{content}: {store.frame_count} frames of each camera; {codecs}", end="; ")
        print(f"batches of {BATCH}\n", flush=True)
        readers = readers_of(folder, arguments.decoders)
        for cores in arguments.cores:
            readings = compare(readers, cores, arguments.rounds, arguments.seconds)
            print("one thread or process:\n" if cores == 1 else f"{cores} threads or processes:\n")
            frames = store.frame_count * len(store.codecs)
            print(table(readers, sizes, frames, readings) + "\n", flush=True)
        step, share = waiting(folder / "store.zarr", arguments.steps)
        print(
            f"training, {STEP} windows a step: {step:.2f} s a step, {share:.2%} of it waiting",
            flush=True,
        )


if __name__ == "__main__":
    main()
