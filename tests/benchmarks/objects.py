"""Windows per second from a store on S3 with latency: the Loader and simpler ways of reading.

    python -m tests.benchmarks.objects [--latency 15] [--pixels 96] [--windows 1280] [--rounds 3]
    [--server nanio]

An S3 server runs on this machine; a proxy before it delays every request by `latency` milliseconds.
All read the same windows in the same, shuffled order: 8 frames of 96 px as JPEG, which are
Meta-World's with a camera's noise.

    one request a window    requests exactly a window's bytes and decodes them, without a cache;
                            then the next window
    read_frames             the store's own method, one window after the other, with a cache that
                            is empty at the beginning
    Loader, cold            starts with an empty cache
    Loader, warm            all is in the cache
    Loader, local           the same store in a folder

Every round measures all of them; ratios are taken within a round. The time of opening the store
is printed separately. The server is nanio (pip install nanio), or moto, which copies a whole file
for every range and so is itself the bottleneck.
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
    """Write Meta-World's episodes at another size, three times, each with noise of its own."""
    source, random = EpisodeStore(SOURCE), np.random.default_rng(0)
    cameras = {CAMERA: Camera(pixels, pixels)}
    with StoreWriter(path, replace(source.info, cameras=cameras, origin="benchmark")) as writer:
        for copy in range(COPIES):
            for e in range(len(source)):
                n = int(source.length[e])
                frames = resized(source, e, n, pixels) + random.normal(0, 3, (n, pixels, pixels, 3))
                episode = Episode(
                    id=f"{copy}/{source.episode_id(e)}",
                    task=source.task_name(e),
                    instruction=source.instruction(e),
                    images={CAMERA: np.clip(frames, 0, 255).astype(np.uint8)},
                    actions=source.actions(e, 0, n),
                    proprio=source.proprio(e, 0, n),
                )
                writer.append(episode)


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
    """Requests exactly the bytes that are read, and keeps none."""

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
    """Return the seconds of opening a store, and the windows per second that are then read."""
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
    """Measure one round: seconds of opening and windows per second of each way of reading."""
    measurements = {}
    with empty_cache():
        # fewer windows: without a cache, the last is as fast as the first
        measurements["one request a window"] = speed(one_request_a_window, URL, count // 4)
    with empty_cache():
        measurements["read_frames"] = speed(one_after_the_other, URL, count)
    with empty_cache():
        measurements["Loader, cold"] = speed(load, URL, count)
        measurements["Loader, warm"] = speed(load, URL, count)
    measurements["Loader, local"] = speed(load, local, count)
    return measurements


def show(rounds: Sequence[dict[str, tuple[float, float]]]) -> None:
    print("| | windows/s | times one request a window | times read_frames | opening, s |")
    print("|---|---|---|---|---|")
    opening, speeds = {}, {}
    for name in rounds[0]:
        opening[name], speeds[name] = np.array([measured[name] for measured in rounds]).T
    for name, rates in speeds.items():
        cells = [f"{np.median(rates):.0f}"]
        for reference in ("one request a window", "read_frames"):
            ratios = rates / speeds[reference]
            cells.append(f"{np.median(ratios):.1f} ({ratios.min():.1f}-{ratios.max():.1f})")
        print(f"| {name} | {' | '.join(cells)} | {np.median(opening[name]):.2f} |")


# --------------------------------------------------------------------------------------- the server


@contextmanager
def serving(server: str, store: Path) -> Iterator[int]:
    """Run a server with the store in its bucket; yield its port."""
    if server == "moto":
        with moto() as port:
            upload(store, port, store.name)
            yield port
        return
    port, keys = free_port(), {"NANIO_ACCESS_KEY": "tester", "NANIO_SECRET_KEY": "secret"}
    command = f"serve --host 127.0.0.1 --port {port} --no-access-log --data-dir".split()
    command = [sys.executable, "-m", "nanio", *command, str(store.parent.parent)]
    with patch.dict(os.environ, keys), running(command, port):
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
        size = sum(file.stat().st_size for file in local.rglob("data/c/0")) / store.frame_count
        print(
            f"{arguments.server} with {arguments.latency:g} ms; "
            f"{store.frame_count} frames of {arguments.pixels} px, "
            f"{store.codecs[CAMERA].name}, {size / 1e3:.1f} KB each"
        )
        with (
            serving(arguments.server, local) as upstream,
            slow_port(upstream, arguments.latency / 1e3) as port,
        ):
            os.environ.update(endpoint(port))
            show([measure(local, arguments.windows) for _ in range(arguments.rounds)])


if __name__ == "__main__":
    main()
