"""What benchmarks of reading share: the Loader as training builds it, and a bare loop that only reads and decodes."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from core.data.layout import read_commits
from core.data.loader import Loader
from core.data.mixture import Member, Mixture
from core.data.normalization import Normalizer, ProprioNormalizer
from core.data.part import CameraStream
from core.data.view import StoreView
from core.data.windows import Windows

PREFETCH = 3  # batches


def loader_of(windows: Windows, batch_size: int, threads: int) -> Loader:
    """A Loader of all cameras as training builds it; text becomes its bytes."""
    store = windows.store
    member = Member(
        StoreView.plain(store),
        windows,
        Normalizer.fit(store.statistics["action"], store.info.action, "quantile"),
        ProprioNormalizer.fit(store.statistics["proprio"]),
    )
    return Loader(
        Mixture([member]),
        batch_size=batch_size,
        tokenize=lambda text: list(text.encode()),
        threads=threads,
        prefetch=PREFETCH,
        device=torch.device("cpu"),
    )


class BareLoop:
    """pread + decode of windows, all cameras, one after the other into `slots` windows of memory, used in turns.

    Nothing else: no checksums, actions, normalisation or text. The store must have one part.
    """

    def __init__(self, windows: Windows, threads: int, slots: int) -> None:
        store, self.window = windows.store, windows.window
        (commit,) = read_commits(store.path)
        self.length = store.length.tolist()
        self.threads = threads
        self.cameras = []
        for name, camera in store.info.cameras.items():
            stream = CameraStream(store.path / "parts" / commit.part, name, commit.arrays)
            codec = store.codecs[name]
            groups = -(-store.length // codec.group)
            memory = np.zeros((slots, self.window, camera.height, camera.width, 3), np.uint8)
            first_group = (np.cumsum(groups) - groups).tolist()
            self.cameras.append((stream.file.open("rb", 0), stream.end.tolist(), codec, first_group, memory))

    def run(self, places: Sequence[tuple[int, int]]) -> None:
        """Read the windows at (episode, first frame), each thread its share."""
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda i: self._share(places, range(i, len(places), self.threads)), range(self.threads)))

    def _share(self, places: Sequence[tuple[int, int]], share: range) -> None:
        for position in share:
            episode, start = places[position]
            length = self.length[episode]
            stop = min(start + self.window, length)
            for file, end, codec, first_group, memory in self.cameras:
                out, size, base = memory[position % len(memory)], codec.group, first_group[episode]
                groups = range(base + start // size, base - (-stop // size))
                data = os.pread(file.fileno(), end[groups.stop] - end[groups.start], end[groups.start])
                for group in groups:
                    encoded = data[end[group] - end[groups.start] : end[group + 1] - end[groups.start]]
                    begin = (group - base) * size
                    low, high = max(begin, start), min(begin + size, stop)
                    codec.decode(encoded, min(size, length - begin), low - begin, out[low - start : high - start])
