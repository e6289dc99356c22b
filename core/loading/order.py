"""Which windows each batch holds: shuffled windows, or episodes from their first frame to the last.

Both orders are pure functions of the seed and the number of a batch, so a run can resume at any
batch without drawing earlier windows again.
"""

from collections.abc import Iterator
from itertools import count
from typing import Protocol

import numpy as np

from core.loading.mixture import Mixture, Places

# number of episodes of a row that are drawn at once when a run resumes
_BLOCK = 256


class Order(Protocol):
    """Says which windows each batch holds.

    mixture: the datasets that the windows lie in.

    Arguments:
    size: number of rows in a batch (B).
    rank, world: index of this process, and number of processes.
    """

    mixture: Mixture

    def endless(self, size: int, seed: int, first: int, rank: int, world: int) -> Iterator[Places]:
        """Yield the places of the batches of one process, from its batch number `first` on."""

    def once(self, size: int, rank: int, world: int) -> Iterator[Places]:
        """Yield places such that all processes together get every window once."""


def with_shares(
    order: Order, size: int, seed: int, first: int, rank: int, world: int, micro_batches: int
) -> Iterator[tuple[Places, float]]:
    """Yield the places of the batches of one process, each with its share of the step's actions.

    The share is the number of the batch's actions that count, divided by the mean of all batches of
    the same optimiser step. So if the mean over each batch's actions is multiplied by the batch's
    share, the average of all batches is the mean over all actions of the step.

    micro_batches: number of batches in an optimiser step of one process; `first` is a multiple.
    """
    if world * micro_batches == 1:
        yield from ((places, 1.0) for places in order.endless(size, seed, first, rank, world))
        return
    processes = [order.endless(size, seed, first, other, world) for other in range(world)]
    while True:
        step = [[next(places) for places in processes] for _ in range(micro_batches)]
        counts = np.array([[order.mixture.count_actions(p) for p in batches] for batches in step])
        shares = counts / max(counts.mean(), 1e-9)
        for micro, batches in enumerate(step):
            yield batches[rank], float(shares[micro, rank])


class ShuffledWindows:
    """Windows of a mixture in a random order; the processes take the batches in turn."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def endless(self, size: int, seed: int, first: int, rank: int, world: int) -> Iterator[Places]:
        """Yield the places of the batches of one process, from its batch number `first` on."""
        for begin in count((first * world + rank) * size, size * world):
            positions = np.arange(begin, begin + size)
            yield self.mixture.locate(*self.mixture.draw(positions, seed))

    def once(self, size: int, rank: int, world: int) -> Iterator[Places]:
        """Yield the places of every window once, unshuffled; the last batch may be smaller."""
        total = self.mixture.window_count
        for begin in range(rank * size, total, size * world):
            positions = np.arange(begin, min(begin + size, total))
            yield self.mixture.locate(*self.mixture.at(positions))


class EpisodeStreams:
    """Each row reads episode after episode, in consecutive windows without overlap.

    An optimiser step has R rows: B rows of each of its batches, in every process and micro-batch.
    The i-th episode of row r is the episode at position r + R * i of the mixture's endless stream
    of shuffled episodes. Its windows follow one another in the row, and then comes episode i + 1.

    So a row keeps to one episode from step to step, as when language models are trained on
    consecutive segments of a text (Dai et al. 2019).

    mixture: a mixture with one window for each episode (`TrainingData` makes it).
    micro_batches: number of batches in an optimiser step of one process.
    """

    def __init__(self, mixture: Mixture, micro_batches: int = 1) -> None:
        self.mixture = mixture
        self.micro_batches = micro_batches
        # (members), number of the store's frames from one window to the next
        self._spans = np.array(
            [m.windows.window * m.dataset.view.period for m in mixture.members], np.int64
        )

    def endless(self, size: int, seed: int, first: int, rank: int, world: int) -> Iterator[Places]:
        """Yield the places of the batches of one process, from its batch number `first` on."""
        total = self.micro_batches * world * size  # R
        streams = []
        for micro in range(self.micro_batches):
            begin = (micro * world + rank) * size
            steps = -(-(first - micro) // self.micro_batches)  # those before batch `first`
            streams.append(self._follow(np.arange(begin, begin + size), total, seed, steps))
        for number in count(first):
            yield next(streams[number % self.micro_batches])

    def once(self, size: int, rank: int, world: int) -> Iterator[Places]:
        """Yield the places of every window once: groups of episodes, an episode in each row.

        In a group, the episodes with most windows come first. So the rows whose episodes go on are
        the first rows of the next batch. The processes take the groups in turn.
        """
        places = self.mixture.locate(*self.mixture.at(np.arange(self.mixture.window_count)))
        longest_first = np.argsort(-self._window_counts(places), kind="stable")
        for begin in range(rank * size, len(places), size * world):
            group = places.take(longest_first[begin : begin + size])
            counts = self._window_counts(group)
            for window in range(counts[0]):
                rows = np.flatnonzero(counts > window)
                yield self._windows_at(group.take(rows), np.full(len(rows), window))

    def _follow(self, rows: np.ndarray, total: int, seed: int, steps: int) -> Iterator[Places]:
        """Yield the places of these rows (B) at each step, without the first `steps` steps.

        total: number of rows in an optimiser step (R).
        """
        # (2 B): the number of each row's episode in its stream, and of its window in that episode
        episodes, windows = np.array(
            [self._find(row, total, seed, steps) for row in rows.tolist()], np.int64
        ).T
        while True:
            places = self._draw(rows + total * episodes, seed)
            yield self._windows_at(places, windows)
            is_last = windows + 1 == self._window_counts(places)
            episodes = episodes + is_last
            windows = np.where(is_last, 0, windows + 1)

    def _find(self, row: int, total: int, seed: int, steps: int) -> tuple[int, int]:
        """Return in which episode of its stream, and which window of it, a row is after `steps`."""
        begin = 0
        while True:
            places = self._draw(row + total * np.arange(begin, begin + _BLOCK), seed)
            counts = self._window_counts(places)
            ends = np.cumsum(counts)
            if steps < ends[-1]:
                index = int(np.searchsorted(ends, steps, "right"))
                return begin + index, int(steps - ends[index] + counts[index])
            begin, steps = begin + _BLOCK, steps - int(ends[-1])

    def _draw(self, positions: np.ndarray, seed: int) -> Places:
        """Return the first frames of the episodes at positions (n) of the stream."""
        return self.mixture.locate(*self.mixture.draw(positions, seed))

    def _windows_at(self, episodes: Places, windows: np.ndarray) -> Places:
        """Return the places of windows, by their number (n) in each of the episodes (n)."""
        return Places(episodes.members, episodes.episodes, windows * self._spans[episodes.members])

    def _window_counts(self, episodes: Places) -> np.ndarray:
        """Return the number of windows of each episode (n)."""
        lengths = np.zeros_like(episodes.episodes)
        for number, member in enumerate(self.mixture.members):
            rows = episodes.of(number)
            lengths[rows] = member.windows.store.length[episodes.episodes[rows]]
        counts: np.ndarray = -(-lengths // self._spans[episodes.members])
        return counts
