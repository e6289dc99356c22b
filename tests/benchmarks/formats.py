"""Random windows per second: the episode store against other formats, and the time that a training step waits for it.

    python -W ignore -m tests.benchmarks.formats --data runs/formats

A window is 8 frames of two cameras at 128 pixels, their proprioception and 10 actions. All read the same episodes in
one run, in turns; ratios are taken within each round. Once in one process (ours: one decoding thread), and once with
two cores: ours with two threads, others by torch's DataLoader with two workers. Before the clock starts, a reader hands
out what it has prepared ahead, so it is measured as in the middle of training. `--data` keeps what was written.
docs/episode-store.md says what to install.
"""

import argparse
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import multiprocessing
from torch.utils.data import DataLoader, Dataset, Sampler

from core.data.store import EpisodeStore
from core.data.windows import Windows, window_at
from core.data.writer import StoreWriter
from core.plugins import load_plugins
from core.policy import build_policy
from core.recipe import load_recipe
from core.training.data import open_data
from core.training.optimizer import build_optimizer
from tests.benchmarks.content import PHOTOGRAPHS, SIMULATION, episodes_of, info_of
from tests.benchmarks.peers import (
    HDF5Windows,
    LeRobotWindows,
    Numbers,
    ZarrWindows,
    write_hdf5,
    write_lerobot,
    write_zarr,
)
from tests.benchmarks.reading import PREFETCH, BareLoop, loader_of

RECIPE = Path(__file__).parents[2] / "recipes" / "metaworld_offline.toml"
WINDOW, HORIZON, BATCH = 8, 10, 16
WORKERS, AHEAD = 2, 2  # AHEAD: batches that each worker prepares, torch's default
SEED = 0
PRELOADED = ["core.plugins", "core.training.data", "tests.benchmarks.peers", "tests.benchmarks.reading"]
OURS, BARE = "Joinery, the Loader", "bare pread + decode"

Seconds = Callable[[int], float]  # how long a reader takes for that many batches


# ------------------------------------------------------------------------------------------------------- writing


def write(content: str, folder: Path, limit: int | None) -> dict[str, int]:
    """Write what is not there yet, and return the bytes of each."""
    info = info_of(content)
    writers: dict[str, Callable[[Path], None]] = {
        "store.zarr": lambda path: _write_store(path, content, limit),
        "frames.hdf5": lambda path: write_hdf5(path, episodes_of(content, limit), info),
        "frames.zarr": lambda path: write_zarr(path, episodes_of(content, limit), info),
        "lerobot_video": lambda path: write_lerobot(path, episodes_of(content, limit), info, "video"),
        "lerobot_image": lambda path: write_lerobot(path, episodes_of(content, limit), info, "image"),
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


# ------------------------------------------------------------------------------------------------------- reading


class Shuffled(Sampler[int]):
    """The order in which the Loader reads, without end."""

    def __init__(self, windows: Sized) -> None:
        self.windows = windows

    def __iter__(self) -> Iterator[int]:
        return (window_at(position, len(self.windows), SEED) for position in count())


def time_batches(batches: Iterator[object], ahead: int) -> Seconds:
    """Clock a stream of batches, after the `ahead` ones that may be ready."""

    def seconds(number: int) -> float:
        for _ in islice(batches, ahead):
            pass
        began = perf_counter()
        for _ in islice(batches, number):
            pass
        return perf_counter() - began

    return seconds


def time_bare(windows: Windows, threads: int) -> Seconds:
    """Clock the bare loop over the windows that the Loader reads."""
    loop, positions = BareLoop(windows, threads, slots=(PREFETCH + 1) * BATCH), count()

    def seconds(number: int) -> float:
        order = [window_at(position, len(windows), SEED) for position in islice(positions, number * BATCH)]
        places = [windows.locate(index) for index in order]
        began = perf_counter()
        loop.run(places)
        return perf_counter() - began

    return seconds


def time_dataset(make: Callable[[], Dataset[object]], processes: int) -> Seconds:
    """Clock torch's DataLoader as its users have it: in the process itself, or with workers."""
    dataset, workers = make(), 0 if processes == 1 else processes
    loader = DataLoader(
        dataset,
        BATCH,
        sampler=Shuffled(dataset),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="forkserver" if workers else None,  # of a process that has read nothing yet
    )
    return time_batches(iter(loader), AHEAD * workers)


@dataclass(frozen=True)
class Reader:
    """One row of the table. file: which of the files is read. time: threads or processes -> its clock."""

    name: str
    file: str
    time: Callable[[int], Seconds]


def readers_of(folder: Path, decoders: Sequence[str], stack: ExitStack) -> list[Reader]:
    """All who read the files in a folder."""
    store = EpisodeStore(folder / "store.zarr")
    windows = Windows(store, range(len(store)), WINDOW, HORIZON)
    numbers = Numbers.of(windows)

    def loader(threads: int) -> Seconds:
        batches = stack.enter_context(closing(loader_of(windows, BATCH, threads).batches(SEED)))
        return time_batches(batches, PREFETCH)

    def peer(name: str, file: str, make: Callable[[], Dataset[object]]) -> Reader:
        return Reader(name, file, lambda processes: time_dataset(make, processes))

    video, image = folder / "lerobot_video", folder / "lerobot_image"
    return [
        Reader(OURS, "store.zarr", loader),
        Reader(BARE, "store.zarr", lambda threads: time_bare(windows, threads)),
        *(
            peer(f"LeRobot, video, {name}", video.name, partial(LeRobotWindows, video, windows, name))
            for name in decoders
        ),
        peer("LeRobot, images", image.name, partial(LeRobotWindows, image, windows)),
        peer("HDF5, gzip", "frames.hdf5", partial(HDF5Windows, folder / "frames.hdf5", numbers)),
        peer("zarr-python, raw", "frames.zarr", partial(ZarrWindows, folder / "frames.zarr", numbers)),
    ]


def compare(readers: Sequence[Reader], cores: int, rounds: int, least: float) -> dict[str, np.ndarray]:
    """Windows/s of each reader in each round; a round takes each at least about `least` seconds."""
    clocks = {reader.name: reader.time(cores) for reader in readers}
    gc.collect()
    first = {name: clock(2) for name, clock in clocks.items()}  # opens files, starts workers, fills caches
    numbers = {name: _even(least / (clocks[name](2) / 2)) for name in first}
    speeds = [{name: numbers[name] * BATCH / clocks[name](numbers[name]) for name in clocks} for _ in range(rounds)]
    return {name: np.array([speed[name] for speed in speeds]) for name in clocks}


def _even(batches: float) -> int:
    """At least two, and as many of each of two workers."""
    return 2 * max(1, round(batches / 2))


# ------------------------------------------------------------------------------------------------------ training


def waiting(path: Path, steps: int) -> tuple[float, float]:
    """Train a recipe's policy on a store; return seconds a step, and the share of them that waited for data."""
    recipe = load_recipe(RECIPE, [f"data.path={path.resolve()}", f"train.batch_size={BATCH}"], load_plugins())
    data = open_data(recipe)
    policy = build_policy(recipe, data.image_shapes, data.action_spec, data.proprio_dim).train()
    optimizer = build_optimizer(policy, recipe)
    loader, _ = data.loaders(policy.text_encoder.tokenize, BATCH, torch.device("cpu"))
    with closing(loader.batches(SEED)) as batches:
        for step in range(-3, steps):  # the first ones start threads and touch memory
            if step == 0:
                began, before = perf_counter(), loader.waited
            policy(next(batches))["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
        elapsed = perf_counter() - began
    return elapsed / steps, (loader.waited - before) / elapsed


# ------------------------------------------------------------------------------------------------------ printing


def table(readers: Sequence[Reader], sizes: Mapping[str, int], frames: int, *measured: dict[str, np.ndarray]) -> str:
    """Rows of Markdown: bytes a frame, then for one and two cores windows/s and how many times that ours is."""
    lines = [
        "| reader | KB a frame | one process, windows/s | the Loader is | two cores, windows/s | the Loader is |",
        "|---|---|---|---|---|---|",
    ]
    for reader in readers:
        columns = []
        for speeds in measured:
            ratio = speeds[OURS] / speeds[reader.name]
            spread = f"{np.median(ratio):.3g} x ({ratio.min():.3g}-{ratio.max():.3g})"
            columns += [f"{np.median(speeds[reader.name]):,.0f}", "" if reader.name == OURS else spread]
        lines.append(f"| {reader.name} | {sizes[reader.file] / frames / 1e3:.1f} | {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/formats"), help="folder for what is written and read")
    parser.add_argument("--content", nargs="+", default=[SIMULATION, PHOTOGRAPHS])
    parser.add_argument("--decoders", nargs="+", default=["torchcodec"], help="LeRobot's: torchcodec, pyav")
    parser.add_argument("--episodes", type=int, help="of each content, at most")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="that each reader takes in a round, about")
    parser.add_argument("--steps", type=int, default=40, help="of training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    multiprocessing.set_forkserver_preload(PRELOADED)
    for content in arguments.content:
        folder = arguments.data / content
        sizes = write(content, folder, arguments.episodes)
        store = EpisodeStore(folder / "store.zarr")
        codecs = ", ".join(f"{name} {codec.name}" for name, codec in store.codecs.items())
        print(f"\n{content}: {store.frame_count} frames of each camera; {codecs}; batches of {BATCH}\n", flush=True)
        with ExitStack() as stack:
            readers = readers_of(folder, arguments.decoders, stack)
            measured = [compare(readers, cores, arguments.rounds, arguments.seconds) for cores in (1, 2)]
        print(table(readers, sizes, store.frame_count * len(store.codecs), *measured))
        step, share = waiting(folder / "store.zarr", arguments.steps)
        print(f"\ntraining, {BATCH} windows a step: {step:.2f} s a step, {share:.2%} of it waiting", flush=True)


if __name__ == "__main__":
    main()
