"""Several stores as one stream of samples: which store gives the sample at a position, and how it fills a batch."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from core.data.normalization import Normalizer, ProprioNormalizer
from core.data.view import StoreView
from core.data.windows import Windows, shuffled, window_at
from core.errors import DataError

if TYPE_CHECKING:
    from core.data.buffers import BatchBuffer


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

    def prepare(self, indices: Iterable[int]) -> None:
        """Begin to fetch the frames of windows that will be filled soon; a local store does not even ask which."""
        self.view.prepare((self.windows.locate(index) for index in indices), self.windows.window)

    def fill(self, buffer: "BatchBuffer", rows: np.ndarray, places: Sequence[tuple[int, int]]) -> None:
        """Read windows, (episode, first frame) each, into rows (n) of a buffer."""
        for row, (episode, start) in zip(rows.tolist(), places, strict=True):
            self._fill_images(buffer, row, episode, start)
        self._fill_numbers(buffer, rows, places)

    def _fill_images(self, buffer: "BatchBuffer", row: int, episode: int, start: int) -> None:
        """Frames past the episode's end repeat the last one; a camera that the store lacks is black."""
        view, window = self.view, self.windows.window
        real = min(window, -(-(view.store.length.item(episode) - start) // view.period))
        for camera, images in buffer.frames.items():
            frames = images[row]  # (T Y X C)
            if camera in view.cameras:
                view.read_frames(camera, episode, start, frames[:real])
                frames[real:] = frames[real - 1]
            else:
                frames[...] = 0

    def _fill_numbers(self, buffer: "BatchBuffer", rows: np.ndarray, places: Sequence[tuple[int, int]]) -> None:
        """Fill masks, actions and proprioception, all rows at once: what lies past an end repeats the last, masked."""
        view, window, reach = self.view, self.windows.window, self.windows.reach
        episodes, starts = np.array(places).T
        lengths = view.store.length[episodes][:, None]
        steps = starts[:, None] + view.period * np.arange(window + self.windows.horizon - 1)  # (n K)
        frames = np.minimum(steps, lengths - 1)
        whole = (steps + view.period <= lengths)[:, reach]  # (n T H): an action over a part of its period is none
        buffer.action_mask[rows] = whole[..., None] & view.conversion.present
        buffer.frame_mask[rows] = (steps < lengths)[:, :window]
        buffer.camera_mask[rows] = view.camera_mask
        buffer.actions[rows] = self.action_normalizer.normalize(view.actions(episodes, frames))[:, reach]
        buffer.proprio[rows] = self.proprio_normalizer.normalize(view.proprio(episodes, frames[:, :window]))


class Mixture:
    """The windows of several stores, drawn by weight.

    An epoch has as many windows as all members hold. With weights it has of each member its share of them, to within
    one, and after every epoch no window of a member was drawn more than once more often than another of it. Without, it
    has every window once.
    """

    def __init__(self, members: Sequence[Member], weights: Sequence[float] | None = None) -> None:
        self.members = tuple(members)
        self.sizes = [len(member.windows) for member in members]
        self.shares = self.sizes if weights is None else apportion(sum(self.sizes), weights)
        self._ends = list(accumulate(self.shares))
        self._size_ends = list(accumulate(self.sizes))

    def __len__(self) -> int:
        return self._ends[-1]

    def draw(self, position: int, seed: int) -> tuple[int, int]:
        """Return which member, and which of its windows, comes at `position` of an endless stream of shuffled epochs.

        A pure function, so that resuming at any position costs nothing.
        """
        epoch, turn = divmod(position, len(self))
        slot = shuffled(turn, len(self), seed, epoch)
        member = bisect_right(self._ends, slot)
        share, size = self.shares[member], self.sizes[member]
        drawn = slot - (self._ends[member] - share)  # how many of the epoch's before it come from this member
        if share == size:
            return member, drawn
        return member, window_at(epoch * share + drawn, size, seed + 1 + member)

    def at(self, index: int) -> tuple[int, int]:
        """Return member and window number `index` of all, in order."""
        member = bisect_right(self._size_ends, index)
        return member, index - (self._size_ends[member] - self.sizes[member])

    @property
    def lacks_cameras(self) -> bool:
        """Whether some member lacks a camera that another has."""
        return not all(member.view.camera_mask.all() for member in self.members)

    @property
    def window_count(self) -> int:
        """Number of different windows."""
        return self._size_ends[-1]


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Share `total` out by weight, by largest remainder; raises DataError where a share would be less than one."""
    relative = np.array(weights, np.float64) / max(weights)  # the sum of the largest numbers is infinite
    exact = total * (relative / relative.sum())
    shares = np.floor(exact).astype(np.int64)
    most_missed = np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]
    shares[most_missed] += 1
    if not shares.all():
        raise DataError(
            f"data.stores: weights {list(weights)} leave one without any of {total} windows; raise the least"
        )
    return [int(share) for share in shares]
