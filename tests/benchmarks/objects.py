"""Windows per second from a store on S3 with latency: the Loader, against reading one window after
the other.

    python -m tests.benchmarks.objects [--latency 15] [--pixels 96] [--windows 1280] [--rounds 3]
    [--server nanio]

An S3 server runs on this machine; a proxy before it holds every request back for `latency`
milliseconds. All read the same windows in the same, shuffled order: 8 frames of 96 px as JPEG,
Meta-World's with a camera's noise.

    one request a window    one range request of exactly its bytes, decoded, then the next: no cache, nothing in flight
    read_frames             the store's own reading, one window after the other, which starts with an empty cache
    Loader, cold            starts with an empty cache
    Loader, warm            all is in the cache
    Loader, local           the same store in a folder

Every round measures all of them; ratios are taken within a round. Opening the store is not counted,
but printed. The server is nanio (pip install nanio), or moto, which copies a whole part for every
range and so is the bottleneck itself.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from core.episodes.episode import Camera, Episode
from core.loading.windows import Windows
from core.store.location import Location, RemotePath
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.benchmarks.reading import loader_of, order, places_of
from tests.s3 import BUCKET, endpoint, free_port, moto, running, slow_port, upload

SOURCE = Path(__file__).parents[2] / "recipes" / "data" / "metaworld.zarr"
CAMERA, COPIES = "corner2", 3
WINDOW, HORIZON, BATCH, SEED = 8, 10, 32, 0
URL = f"s3://{BUCKET}/store.zarr"


def make_store(path: Path, pixels: int) -> None:
    """Meta-World's episodes at another size, three times, each with noise of its own."""
    source, random = EpisodeStore(SOURCE), np.random.default_rng(0)
    with StoreWriter(
        path, replace(source.info, cameras={CAMERA: Camera(pixels, pixels)}, origin="benchmark")
    ) as writer:
        for copy in range(COPIES):
            for e in range(len(source)):
                n = int(source.length[e])
                frames = resized(source, e, n, pixels) + random.normal(0, 3, (n, pixels, pixels, 3))
                writer.append(
                    Episode(f"{copy}/{source.episode_id(e)}", source.task_name(e), source.instruction(e),
                            {CAMERA: np.clip(frames, 0, 255).astype(np.uint8)},
                            source.actions(e, 0, n), source.proprio(e, 0, n))
                )  # fmt: skip


def resized(source: EpisodeStore, episode: int, length: int, pixels: int) -> np.ndarray:
    camera = source.info.cameras[CAMERA]
    frames = np.empty((length, camera.height, camera.width, 3), np.uint8)
    source.read_frames(CAMERA, episode, 0, length, frames)
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).resize((pixels, pixels), Image.Resampling.BICUBIC))
            for frame in frames
        ]
    )


# --------------------------------------------------------------------------------- what is measured


class OneRequest:
    """Asks for exactly what is read, and keeps nothing."""

    def __init__(self, file: Location, size: int) -> None:
        assert isinstance(file, RemotePath)
        self.file = file

    def read(self, start: int, stop: int) -> bytes:
        return self.file.objects.read_range(self.file.key, start, stop)


def one_after_the_other(store: EpisodeStore, count: int) -> None:
    windows = Windows(store, range(len(store)), WINDOW, HORIZON)
    camera = store.info.cameras[CAMERA]
    out = np.empty((WINDOW, camera.height, camera.width, 3), np.uint8)
    for episode, start in places_of(windows, islice(order(windows, SEED), count)):
        stop = min(start + WINDOW, int(store.length[episode]))
        store.read_frames(CAMERA, episode, start, stop, out[: stop - start])


def one_request_a_window(store: EpisodeStore, count: int) -> None:
    with patch("core.store.segment.open_ranges", OneRequest):
        one_after_the_other(store, count)


def load(store: EpisodeStore, count: int) -> None:
    loader = loader_of(Windows(store, range(len(store)), WINDOW, HORIZON), BATCH, threads=2)
    for _ in islice(loader.batches(SEED), count // BATCH):
        pass


def speed(
    read: Callable[[EpisodeStore, int], None], place: str | Path, count: int
) -> tuple[float, float]:
    """How many seconds opening a store takes, and how many windows per second are then read."""
    began = perf_counter()
    store = EpisodeStore(place)
    opened = perf_counter()
    read(store, count)
    return opened - began, count / (perf_counter() - opened)


@contextmanager
def empty_cache() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, JOINERY_CACHE=folder):
        yield


def measure(local: Path, count: int) -> dict[str, tuple[float, float]]:
    """One round."""
    found = {}
    with empty_cache():
        found["one request a window"] = speed(
            one_request_a_window, URL, count // 4
        )  # the last is as fast as the first
    with empty_cache():
        found["read_frames"] = speed(one_after_the_other, URL, count)
    with empty_cache():
        found["Loader, cold"] = speed(load, URL, count)
        found["Loader, warm"] = speed(load, URL, count)
    found["Loader, local"] = speed(load, local, count)
    return found


def show(rounds: Sequence[dict[str, tuple[float, float]]]) -> None:
    print(
        "| | windows/s | times one request a window | times read_frames | opening, s |\n|---|---|---|---|---|"
    )
    opening, speeds = (
        {name: np.array([one[name][i] for one in rounds]) for name in rounds[0]} for i in (0, 1)
    )
    for name in speeds:
        ratios = [
            speeds[name] / speeds[reference]
            for reference in ("one request a window", "read_frames")
        ]
        cells = [f"{np.median(r):.1f} ({r.min():.1f}-{r.max():.1f})" for r in ratios]
        print(
            f"| {name} | {np.median(speeds[name]):.0f} | {' | '.join(cells)} | {np.median(opening[name]):.2f} |"
        )


# --------------------------------------------------------------------------------------- the server


@contextmanager
def serving(server: str, store: Path) -> Iterator[int]:
    """A server with the store in its bucket; gives its port."""
    if server == "moto":
        with moto() as port:
            upload(store, port, store.name)
            yield port
        return
    port, keys = free_port(), {"NANIO_ACCESS_KEY": "tester", "NANIO_SECRET_KEY": "secret"}
    command = [
        "serve",
        "--host",
        "127.0.0.1",
        "--data-dir",
        str(store.parent.parent),
        "--port",
        str(port),
        "--no-access-log",
    ]
    with patch.dict(os.environ, keys), running([sys.executable, "-m", "nanio", *command], port):
        yield port


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--latency", type=float, default=15.0, help="added to each request, milliseconds"
    )
    parser.add_argument(
        "--windows", type=int, default=1280, help="read in each round, a multiple of 32"
    )
    parser.add_argument("--pixels", type=int, default=96, help="height and width of the frames")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", choices=("nanio", "moto"), default="nanio")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / BUCKET / "store.zarr"
        local.parent.mkdir()
        make_store(local, arguments.pixels)
        store = EpisodeStore(local)
        size = sum(file.stat().st_size for file in local.rglob("data/c/0"))
        print(
            f"{arguments.server} with {arguments.latency:g} ms; {store.frame_count} frames of {arguments.pixels} px, "
            f"{store.codecs[CAMERA].name}, {size / store.frame_count / 1e3:.1f} KB each"
        )
        with (
            serving(arguments.server, local) as upstream,
            slow_port(upstream, arguments.latency / 1e3) as port,
        ):
            os.environ.update(endpoint(port))
            show([measure(local, arguments.windows) for _ in range(arguments.rounds)])


if __name__ == "__main__":
    main()
