"""Random windows per second: the episode store against other formats, and the time that a training
step waits for it.

    python -W ignore -m tests.benchmarks.formats --data runs/formats

A window is 8 frames of two cameras at 128 pixels, their proprioception and 10 actions. All read the
same episodes in one run, in turns; ratios are taken within each round. Once in one process (ours:
one decoding thread), and once with two cores: ours with two threads, others by torch's DataLoader
with two workers. Before the clock starts, a reader hands out what it has prepared ahead, so it is
measured as in the middle of training. `--data` keeps what was written. docs/episode-store.md says
what to install.
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
from core.loading.training_data import open_data
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
OURS = "Joinery, the Loader"
PRELOADED = [
    "core.registry.catalogue",
    "core.loading.training_data",
    "tests.benchmarks.clocks",
    "tests.benchmarks.peers",
]


# ------------------------------------------------------------------------------------------ writing


def write(content: str, folder: Path, limit: int | None) -> dict[str, int]:
    """Write what is not there yet, and return the bytes of each."""
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
    """One row of the table. file: which of the files is read. clock: for a number of threads or
    processes.
    """

    name: str
    file: str
    clock: Callable[[int], Clock]


def readers_of(folder: Path, decoders: Sequence[str]) -> list[Reader]:
    """All who read the files in a folder."""
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
            OURS, "store.zarr", lambda threads: clock_loader(loader_of(windows, BATCH, threads))
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
    """What each reader did in each round; a round takes each about `least` seconds, or two batches."""
    clocks = {reader.name: reader.clock(cores) for reader in readers}
    for clock in clocks.values():
        clock(2)  # opens files, starts workers, fills caches
    numbers = {name: _even(least * clock(2).windows / BATCH) for name, clock in clocks.items()}
    taken = [{name: clock(numbers[name]) for name, clock in clocks.items()} for _ in range(rounds)]
    return {name: [one[name] for one in taken] for name in clocks}


def _even(batches: float) -> int:
    """At least two, and as many of each of two workers."""
    return 2 * max(1, round(batches / 2))


# ----------------------------------------------------------------------------------------- training


def waiting(path: Path, steps: int) -> tuple[float, float]:
    """Train a recipe's policy on a store; return seconds a step, and the share of them that waited
    for data.
    """
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
            policy(next(batches), Generator.shared((0,), torch.device("cpu")))["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
        elapsed = perf_counter() - began
    return elapsed / steps, (loader.waited - before) / elapsed


# ----------------------------------------------------------------------------------------- printing


def table(
    readers: Sequence[Reader],
    sizes: Mapping[str, int],
    frames: int,
    taken: dict[str, list[Reading]],
) -> str:
    """Rows of Markdown: KB a frame, windows/s, how many times that ours are, and the same of the
    processors' time.
    """
    lines = [
        "| reader | KB a frame | windows/s | the Loader's are | CPU ms a window | of the Loader's |",
        "|---|---|---|---|---|---|",
    ]
    speeds = {name: np.array([one.windows for one in readings]) for name, readings in taken.items()}
    costs = {name: np.array([one.cpu for one in readings]) for name, readings in taken.items()}
    for name, file in ((reader.name, reader.file) for reader in readers):
        faster, dearer = _spread(speeds[OURS] / speeds[name]), _spread(costs[name] / costs[OURS])
        if name == OURS:
            faster = dearer = "1 x"
        speed, cost = f"{np.median(speeds[name]):,.0f}", f"{1e3 * np.median(costs[name]):.2f}"
        lines.append(
            f"| {name} | {sizes[file] / frames / 1e3:.1f} | {speed} | {faster} | {cost} | {dearer} |"
        )
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
        help="folder for what is written and read",
    )
    parser.add_argument("--content", nargs="+", default=[SIMULATION, PHOTOGRAPHS, BOTH])
    parser.add_argument(
        "--decoders", nargs="+", default=["torchcodec"], help="LeRobot's: torchcodec, pyav"
    )
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--episodes", type=int, help="of each content, at most")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="that each reader takes in a round, about"
    )
    parser.add_argument("--steps", type=int, default=40, help="of training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    multiprocessing.set_forkserver_preload(PRELOADED)
    for content in arguments.content:
        folder = arguments.data / content
        sizes = write(content, folder, arguments.episodes)
        store = EpisodeStore(folder / "store.zarr")
        codecs = ", ".join(f"{name} {codec}" for name, codec in store.codecs.items())
        print(
            f"\n{content}: {store.frame_count} frames of each camera; {codecs}; batches of {BATCH}\n",
            flush=True,
        )
        readers = readers_of(folder, arguments.decoders)
        for cores in arguments.cores:
            taken = compare(readers, cores, arguments.rounds, arguments.seconds)
            print("one thread or process:\n" if cores == 1 else f"{cores} threads or processes:\n")
            print(
                table(readers, sizes, store.frame_count * len(store.codecs), taken) + "\n",
                flush=True,
            )
        step, share = waiting(folder / "store.zarr", arguments.steps)
        print(
            f"training, {STEP} windows a step: {step:.2f} s a step, {share:.2%} of it waiting",
            flush=True,
        )


if __name__ == "__main__":
    main()
