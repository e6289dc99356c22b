"""Several stores as one stream of samples: which store gives the sample at a position, and how it
fills a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.errors import DataError
from core.loading.shuffle import shuffled, windows_at
from core.loading.view import StoreView
from core.loading.windows import Windows

if TYPE_CHECKING:
    from core.loading.buffers import BatchBuffer


@dataclass(frozen=True)
class Member:
    """One store of a mixture: its windows, and the normalisers that are its own.

    prefix: before the ids of its episodes, so that they are unique among all stores.
    """

    view: StoreView
    windows: Windows
    action_normalizer: Normalizer
    proprio_normalizer: ProprioNormalizer
    prefix: str = ""

    def episode_id(self, episode: int) -> str:
        """Return the id that batches give."""
        return self.prefix + self.view.store.episode_id(episode)

    def prepare(self, episodes: np.ndarray, starts: np.ndarray) -> None:
        """Begin to fetch the frames of windows (n) that will be filled soon; nothing on a local
        store.
        """
        self.view.prepare(zip(episodes.tolist(), starts.tolist(), strict=True), self.windows.window)

    def fill_images(self, buffer: "BatchBuffer", row: int, episode: int, start: int) -> None:
        """Decode a window into a row of a buffer.

        Frames past the episode's end repeat the last one; a camera or a feature that the store
        lacks is zero.
        """
        view, window = self.view, self.windows.window
        real = min(window, -(-(view.store.length.item(episode) - start) // view.period))
        for name, rows in buffer.frames.items():
            frames = rows[row]  # (T Y X C), or of a feature (T *shape)
            if name not in view.recorded:
                frames[...] = 0
                continue
            view.read_frames(name, episode, start, frames[:real])
            if real < window:
                frames[real:] = frames[real - 1]

    def fill_numbers(
        self, buffer: "BatchBuffer", rows: np.ndarray, episodes: np.ndarray, starts: np.ndarray
    ) -> None:
        """Fill masks, actions and proprioception of windows (n) in rows (n) of a buffer, all at
        once.

        What lies past an episode's end repeats the last and is masked.
        """
        view, window, reach = self.view, self.windows.window, self.windows.reach
        lengths = view.store.length[episodes][:, None]
        steps = starts[:, None] + view.period * np.arange(
            window + self.windows.horizon - 1
        )  # (n K)
        frames = np.minimum(steps, lengths - 1)
        whole = (steps + view.period <= lengths)[
            ..., None
        ]  # (n K 1): an action over a part of its period is none
        buffer.action_mask[rows] = (whole & view.conversion.has_dimension).take(reach, axis=1)
        for name, present in buffer.present.items():
            present[rows] = name in view.recorded
        actions = self.action_normalizer.normalize(view.actions(episodes, frames))  # (n K A)
        buffer.actions[rows] = actions.take(reach, axis=1)
        buffer.proprio[rows] = self.proprio_normalizer.normalize(
            view.proprio(episodes, frames[:, :window])
        )


@dataclass(frozen=True)
class Places:
    """Where the windows of a batch lie, (B) integers each: the member of the mixture, its episode,
    the first frame.
    """

    members: np.ndarray
    episodes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.members)

    def of(self, member: int) -> np.ndarray:
        """Return the rows of a member's windows."""
        return np.flatnonzero(self.members == member)


class Mixture:
    """The windows of several stores, drawn by weight.

    An epoch has as many windows as all members hold. With weights it has of each member its share
    of them, to within one, and after every epoch no window of a member was drawn more than once
    more often than another of it. Without, it has every window once.
    """

    def __init__(self, members: Sequence[Member], weights: Sequence[float] | None = None) -> None:
        self.members = tuple(members)
        self.sizes = [len(member.windows) for member in members]
        self.shares = self.sizes if weights is None else apportion(sum(self.sizes), weights)
        self._ends = np.cumsum(self.shares)
        self._size_ends = np.cumsum(self.sizes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def draw(self, positions: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which members (n), and which of their windows (n), come at positions (n) of an
        endless stream.

        A pure function, so that resuming at any position costs nothing.
        """
        epochs, turns = np.divmod(positions, len(self))
        slots = shuffled(turns, len(self), seed, epochs)
        members = np.searchsorted(self._ends, slots, "right")
        drawn = (
            slots - (self._ends - self.shares)[members]
        )  # how many of the epoch's before it come from its member
        for number, (share, size) in enumerate(zip(self.shares, self.sizes, strict=True)):
            if share != size:
                chosen = members == number
                drawn[chosen] = windows_at(
                    epochs[chosen] * share + drawn[chosen], size, seed + 1 + number
                )
        return members, drawn

    def at(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return members (n) and their windows (n), numbers `indices` (n) of all, in order."""
        members = np.searchsorted(self._size_ends, indices, "right")
        return members, indices - (self._size_ends - self.sizes)[members]

    def locate(self, members: np.ndarray, indices: np.ndarray) -> Places:
        """Return where windows (B) of members (B) lie."""
        places = Places(members, np.zeros_like(indices), np.zeros_like(indices))
        for number, member in enumerate(self.members):
            rows = places.of(number)
            places.episodes[rows], places.starts[rows] = member.windows.locate(indices[rows])
        return places

    def describe(self, places: Places) -> tuple[list[str], list[str]]:
        """Return of each window the episode's id, and what the robot was told."""
        pairs = zip(places.members.tolist(), places.episodes.tolist(), strict=True)
        sources = [(self.members[number], episode) for number, episode in pairs]
        told = [member.view.store.instruction(episode) for member, episode in sources]
        return [member.episode_id(episode) for member, episode in sources], told

    def prepare(self, places: Places) -> None:
        """Begin to fetch the frames of windows that will be filled soon; nothing on local stores."""
        for number, member in enumerate(self.members):
            rows = places.of(number)
            member.prepare(places.episodes[rows], places.starts[rows])

    def fill_numbers(self, buffer: "BatchBuffer", places: Places) -> None:
        """Fill masks, actions and proprioception of a batch, and the member of each row."""
        buffer.embodiment[: len(places)] = places.members
        for number, member in enumerate(self.members):
            if len(rows := places.of(number)):
                member.fill_numbers(buffer, rows, places.episodes[rows], places.starts[rows])

    def fill_images(self, buffer: "BatchBuffer", places: Places, rows: slice) -> None:
        """Decode the windows of some rows of a batch: images and features."""
        columns = (np.arange(len(places)), places.members, places.episodes, places.starts)
        for row, number, episode, start in zip(
            *(column[rows].tolist() for column in columns), strict=True
        ):
            self.members[number].fill_images(buffer, row, episode, start)

    @property
    def lacking(self) -> list[str]:
        """Cameras and features that some member lacks and another has."""
        info = self.members[0].view.info
        return [
            name
            for name in (*info.cameras, *info.features)
            if any(name not in member.view.recorded for member in self.members)
        ]

    @property
    def window_count(self) -> int:
        """Number of different windows."""
        return int(self._size_ends[-1])


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Share `total` out by weight, by largest remainder; raises DataError where a share would be
    less than one.
    """
    relative = np.array(weights, np.float64) / max(
        weights
    )  # the sum of the largest numbers is infinite
    exact = total * (relative / relative.sum())
    shares = np.floor(exact).astype(np.int64)
    most_missed = np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]
    shares[most_missed] += 1
    if not shares.all():
        raise DataError(
            f"data.stores: weights {list(weights)} leave one without any of {total} windows; raise the least"
        )
    return [int(share) for share in shares]
