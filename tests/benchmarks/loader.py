"""Windows per second of the Loader against a bare loop that only reads and decodes the same frames.

    python -m tests.benchmarks.loader [--threads 2] [--rounds 7]

The bare loop only calls pread and decodes: no checksums, actions, normalisation or text. Both read
the same windows in the same order with the same number of threads, in turns; the ratios are taken
within each round. The bare loop runs twice: into as much memory as the Loader's batches take
("batches"), and into one window per thread ("cache"), which never leaves the processor's cache and
so shows what memory costs. Shuffling is measured separately. It all takes about a minute on two
cores. To compare the Loader with another checkout's, see checkouts.py.
"""

import argparse
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from core.episodes.episode import Episode
from core.loading.shuffle import windows_at
from core.loading.windows import Windows
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.benchmarks.content import METAWORLD
from tests.benchmarks.reading import PREFETCH, BareLoop, loader_of, places_of

CAMERA = "corner2"
WINDOW, HORIZON, BATCH = 8, 10, 32
# Passes over the episodes in each round: about a second, so that starting up does not count.
PASSES = {"zstd": 5, "jpeg": 1}


def noisy(path: Path) -> Path:
    """Write the same episodes with a camera's noise, for which the store chooses JPEG."""
    clean, random = EpisodeStore(METAWORLD), np.random.default_rng(0)
    camera = clean.info.cameras[CAMERA]
    with StoreWriter(path, replace(clean.info, origin="benchmark")) as writer:
        for e in range(len(clean)):
            n = int(clean.length[e])
            frames = np.empty((n, camera.height, camera.width, 3), np.uint8)
            clean.read_frames(CAMERA, e, 0, n, frames)
            frames = np.clip(frames + random.normal(0, 4, frames.shape), 0, 255).astype(np.uint8)
            episode = Episode(
                id=clean.episode_id(e),
                task=clean.task_name(e),
                instruction=clean.instruction(e),
                images={CAMERA: frames},
                actions=clean.actions(e, 0, n),
                proprio=clean.proprio(e, 0, n),
            )
            writer.append(episode)
    return path


def compare(path: Path, threads: int, rounds: int) -> tuple[str, np.ndarray]:
    """Return the codec, and windows/s (rounds 3): of the Loader and of the two bare loops."""
    store = EpisodeStore(path)
    episodes = list(range(len(store))) * PASSES[store.codecs[CAMERA].name]
    windows = Windows(store, episodes, WINDOW, HORIZON)
    bare = [BareLoop(windows, threads, slots) for slots in ((PREFETCH + 1) * BATCH, threads)]
    loader = loader_of(windows, BATCH, threads)
    places = places_of(windows, range(len(windows)))
    consumers: list[Callable[[], object]] = [
        lambda: deque(loader.once(), maxlen=0),  # a whole pass: nothing decoded ahead of the clock
        *(partial(loop.run, places) for loop in bare),
    ]
    seconds = [[_seconds(consume) for consume in consumers] for _ in range(rounds + 1)]
    speeds = len(places) / np.array(seconds[1:])  # the first round warms up
    return store.codecs[CAMERA].name, speeds


def _seconds(consume: Callable[[], object]) -> float:
    began = perf_counter()
    consume()
    return perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the Loader against a bare read-and-decode loop."
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"windows of {WINDOW} frames at 96 px, batches of {BATCH}, {arguments.threads} threads")
    print(f"{'codec':<6} {'Loader/s':>9} {'of batches':>18} {'of cache':>18}")
    with tempfile.TemporaryDirectory() as folder:
        for path in (METAWORLD, noisy(Path(folder) / "noisy.zarr")):
            codec, speeds = compare(path, arguments.threads, arguments.rounds)
            ratios = speeds[:, :1] / speeds[:, 1:]
            columns = [f"{np.median(r):.2f} ({r.min():.2f}-{r.max():.2f})" for r in ratios.T]
            print(f"{codec:<6} {np.median(speeds[:, 0]):9.0f} {columns[0]:>18} {columns[1]:>18}")
    began = perf_counter()
    for begin in range(0, 10_000, BATCH):
        windows_at(np.arange(begin, begin + BATCH), 1_000_003, 0)
    print(f"shuffling: {(perf_counter() - began) * 100:.1f} us per window")


if __name__ == "__main__":
    main()
