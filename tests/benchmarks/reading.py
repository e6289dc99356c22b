"""Shared by benchmarks of reading: the Loader as training builds it, and a bare reading loop."""

import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import torch

from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.loading.dataset import Dataset
from core.loading.loader import Loader
from core.loading.mixture import Member, Mixture
from core.loading.shuffle import windows_at
from core.loading.view import StoreView
from core.loading.windows import Windows
from core.store.layout import read_commits, stream_paths
from core.store.segment import FrameStream

PREFETCH = 3  # batches
AT_ONCE = 1024  # positions of the order that are computed together


def loader_of(windows: Windows, batch_size: int, threads: int) -> Loader:
    """A Loader of all cameras as training builds it; text becomes its bytes."""
    store = windows.store
    dataset = Dataset(
        StoreView.plain(store),
        Normalizer.fit(store.statistics["action"], store.info.action, "quantile"),
        ProprioNormalizer.fit(store.statistics["proprio"]),
    )
    return Loader(
        Mixture([Member(dataset, windows)]),
        batch_size=batch_size,
        tokenize=lambda text: list(text.encode()),
        threads=threads,
        prefetch=PREFETCH,
        device=torch.device("cpu"),
    )


def order(windows: Sized, seed: int) -> Iterator[int]:
    """Yield windows in the order in which a Loader reads them, without end."""
    for begin in count(0, AT_ONCE):
        yield from windows_at(np.arange(begin, begin + AT_ONCE), len(windows), seed).tolist()


def places_of(windows: Windows, indices: Iterable[int]) -> list[tuple[int, int]]:
    """Return the episode and the first frame of each window."""
    episodes, starts = windows.locate(np.fromiter(indices, np.int64))
    return list(zip(episodes.tolist(), starts.tolist(), strict=True))


class BareLoop:
    """Reads and decodes windows of all cameras, and nothing else.

    It has no checksums, actions, normalisation or text. It decodes into `slots` windows of memory,
    which it uses in turns. The store must have one segment.
    """

    def __init__(self, windows: Windows, threads: int, slots: int) -> None:
        store, self.window = windows.store, windows.window
        (commit,) = read_commits(store.path)
        self.length = store.length.tolist()
        self.threads = threads
        self.cameras = []
        for name, camera in store.info.cameras.items():
            path = stream_paths(store.info)[name]
            stream = FrameStream(store.path / "parts" / commit.segment, path, commit.arrays)
            codec = store.codecs[name]
            groups = -(-store.length // codec.block_size)
            memory = np.zeros((slots, self.window, camera.height, camera.width, 3), np.uint8)
            first_group = (np.cumsum(groups) - groups).tolist()
            self.cameras.append(
                (stream.file.open("rb", 0), stream.end.tolist(), codec, first_group, memory)
            )

    def run(self, places: Sequence[tuple[int, int]]) -> None:
        """Read the windows at (episode, first frame), each thread its share."""
        with ThreadPoolExecutor(self.threads) as pool:
            list(
                pool.map(
                    lambda i: self._share(places, range(i, len(places), self.threads)),
                    range(self.threads),
                )
            )

    def _share(self, places: Sequence[tuple[int, int]], share: range) -> None:
        for position in share:
            episode, start = places[position]
            length = self.length[episode]
            stop = min(start + self.window, length)
            for file, end, codec, first_group, memory in self.cameras:
                size, base = codec.block_size, first_group[episode]
                low, high = start // size, -(-stop // size)  # groups
                bounds = end[base + low : base + high + 1]
                data = os.pread(file.fileno(), bounds[-1] - bounds[0], bounds[0])
                held = min(high * size, length) - low * size  # frames of these groups
                out = memory[position % len(memory)][: stop - start]
                codec.decode(data, bounds, held, start - low * size, out)
