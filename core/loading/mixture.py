"""Several datasets as one stream of samples: the samples' order, and how they fill a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.errors import DataError
from core.loading.dataset import Dataset
from core.loading.shuffle import permute, windows_at
from core.loading.windows import Windows

if TYPE_CHECKING:
    from core.loading.buffers import BatchBuffer


@dataclass(frozen=True)
class Member:
    """A dataset of a mixture, and the windows that are drawn from it."""

    dataset: Dataset
    windows: Windows

    def prepare(self, episodes: np.ndarray, starts: np.ndarray) -> None:
        """Begin to fetch the frames of windows (n); no-op for a local store."""
        places = zip(episodes.tolist(), starts.tolist(), strict=True)
        self.dataset.view.prepare(places, self.windows.window)

    def fill_images(self, buffer: "BatchBuffer", row: int, episode: int, start: int) -> None:
        """Decode a window into a row of a buffer.

        Past the episode's end, the window's last frame inside the episode is repeated. Frames of a
        camera or a feature that the store lacks are zero.
        """
        view, window = self.dataset.view, self.windows.window
        remaining = view.store.length.item(episode) - start
        count = min(window, -(-remaining // view.period))  # number of frames inside the episode
        for name, rows in buffer.frames.items():
            frames = rows[row]  # (T Y X C) of a camera, (T *shape) of a feature
            if name not in view.recorded:
                frames[...] = 0
                continue
            view.read_frames(name, episode, start, frames[:count])
            if count < window:
                frames[count:] = frames[count - 1]

    def fill_numbers(
        self, buffer: "BatchBuffer", rows: np.ndarray, episodes: np.ndarray, starts: np.ndarray
    ) -> None:
        """Write masks, actions and proprioception of windows (n) into rows (n) of a buffer.

        Actions past an episode's end repeat the last action and are masked. The action before a
        frame is the first target of the frame before; the window's first frame has one, too, unless
        it is the first of its episode.
        """
        dataset, view = self.dataset, self.dataset.view
        window, reach = self.windows.window, self.windows.reach
        steps, complete = self._steps(episodes, starts)
        frames = np.minimum(steps, view.store.length[episodes][:, None] - 1)
        has_dimension = view.conversion.has_dimension
        buffer.action_mask[rows] = (complete[..., None] & has_dimension).take(reach, axis=1)
        for name, present in buffer.present.items():
            present[rows] = name in view.recorded
        before = starts[:, None] - view.period
        frames = np.concatenate([np.maximum(before, 0), frames], axis=1)  # (n 1+K)
        actions = dataset.action_normalizer.normalize(view.actions(episodes, frames))
        buffer.actions[rows] = actions[:, 1:].take(reach, axis=1)
        known = np.concatenate([before >= 0, complete[:, : window - 1]], axis=1)  # (n T)
        buffer.past_known[rows] = known
        buffer.past_actions[rows] = np.where(
            known[..., None] & has_dimension, actions[:, :window], 0
        )
        proprio = view.proprio(episodes, frames[:, 1 : window + 1])
        buffer.proprio[rows] = dataset.proprio_normalizer.normalize(proprio)

    def count_actions(self, episodes: np.ndarray, starts: np.ndarray) -> int:
        """Return how many entries of the action masks of windows (n) are True."""
        _, complete = self._steps(episodes, starts)
        times = np.bincount(self.windows.reach.ravel())  # (K), how often a window has each step
        return int((complete @ times).sum() * self.dataset.view.conversion.has_dimension.sum())

    def _steps(self, episodes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames (n K) of the windows' actions, and which are complete (n K).

        An action covers `period` frames; it is incomplete if some of them lie past the end.
        """
        view = self.dataset.view
        count = self.windows.window + self.windows.horizon - 1  # K
        steps = starts[:, None] + view.period * np.arange(count)
        return steps, steps + view.period <= view.store.length[episodes][:, None]


@dataclass(frozen=True)
class Places:
    """Where the windows of a batch lie.

    members: (B) int64, index of the member in the mixture.
    episodes: (B) int64, index of the episode in the member's store.
    starts: (B) int64, index of the window's first frame in the episode.
    """

    members: np.ndarray
    episodes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.members)

    def take(self, rows: np.ndarray) -> "Places":
        """Return the places of some rows (n), given by their indices."""
        return Places(self.members[rows], self.episodes[rows], self.starts[rows])

    def of(self, member: int) -> np.ndarray:
        """Return which rows of the batch hold windows of the member with index `member`."""
        return np.flatnonzero(self.members == member)


class Mixture:
    """The windows of several datasets, drawn by weight.

    The number of samples in an epoch is the number of windows of all members together. Without
    weights, an epoch has every window once. With weights, a member's number of samples in an epoch
    is proportional to its weight, rounded by the method of largest remainders. At the end of an
    epoch, all windows of a member have been drawn equally often, give or take one.
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
        """Return which member (n) and which of its windows (n) is at each position (n) of a stream.

        The stream of shuffled windows is endless. The result is a pure function of the positions
        and the seed, so a run can resume at any position without drawing earlier windows again.
        """
        epochs, offsets = np.divmod(positions, len(self))
        slots = permute(offsets, len(self), seed, epochs)
        members = np.searchsorted(self._ends, slots, "right")
        # `share` is the number of slots (samples) that a member has in each epoch. `windows` first
        # holds each slot's index among the slots of its member. If the member has as many windows
        # as slots, this index is also the index of a window. If not, the member's slots are
        # numbered across all epochs, and a slot's number is a position in an endless stream of the
        # member's shuffled windows.
        windows = slots - (self._ends - self.shares)[members]
        for number, (share, size) in enumerate(zip(self.shares, self.sizes, strict=True)):
            if share != size:
                rows = members == number
                member_positions = epochs[rows] * share + windows[rows]
                windows[rows] = windows_at(member_positions, size, seed + 1 + number)
        return members, windows

    def at(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each window's member (n), and the window's index (n) within that member.

        indices: (n), positions in the unshuffled list of all windows, member after member.
        """
        members = np.searchsorted(self._size_ends, indices, "right")
        return members, indices - (self._size_ends - self.sizes)[members]

    def locate(self, members: np.ndarray, indices: np.ndarray) -> Places:
        """Return the places of windows, given each window's member (B) and index in it (B)."""
        places = Places(members, np.zeros_like(indices), np.zeros_like(indices))
        for number, member in enumerate(self.members):
            rows = places.of(number)
            places.episodes[rows], places.starts[rows] = member.windows.locate(indices[rows])
        return places

    def episodes_and_instructions(self, places: Places) -> tuple[list[str], list[str]]:
        """Return the episode id and the instruction of each window."""
        episode_ids, instructions = [], []
        for number, episode in zip(places.members.tolist(), places.episodes.tolist(), strict=True):
            dataset = self.members[number].dataset
            episode_ids.append(dataset.episode_id(episode))
            instructions.append(dataset.view.store.instruction(episode))
        return episode_ids, instructions

    def prepare(self, places: Places) -> None:
        """Begin to fetch the frames of a batch; no-op for local stores."""
        for number, member in enumerate(self.members):
            rows = places.of(number)
            member.prepare(places.episodes[rows], places.starts[rows])

    def fill_numbers(self, buffer: "BatchBuffer", places: Places) -> None:
        """Fill in the masks, actions, past actions and proprioception of a batch.

        For each row, `buffer.embodiment` receives the index of the row's dataset, and
        `buffer.begins` whether the row's window begins its episode.
        """
        buffer.embodiment[: len(places)] = places.members
        buffer.begins[: len(places)] = places.starts == 0
        for number, member in enumerate(self.members):
            if len(rows := places.of(number)):
                member.fill_numbers(buffer, rows, places.episodes[rows], places.starts[rows])

    def count_actions(self, places: Places) -> int:
        """Return how many actions of a batch count: True entries of its action mask."""
        counts = 0
        for number, member in enumerate(self.members):
            rows = places.of(number)
            counts += member.count_actions(places.episodes[rows], places.starts[rows])
        return counts

    def fill_images(self, buffer: "BatchBuffer", places: Places, rows: slice) -> None:
        """Decode the images and features of some rows of a batch."""
        columns = (np.arange(len(places)), places.members, places.episodes, places.starts)
        for row, number, episode, start in zip(
            *(column[rows].tolist() for column in columns), strict=True
        ):
            self.members[number].fill_images(buffer, row, episode, start)

    @property
    def lacking(self) -> list[str]:
        """Names of the cameras and features that some members have and other members lack."""
        views = [member.dataset.view for member in self.members]
        return [
            name
            for name in (*views[0].info.cameras, *views[0].info.features)
            if any(name not in view.recorded for view in views)
        ]

    @property
    def window_count(self) -> int:
        """Number of windows of all members together; each window counts once."""
        return int(self._size_ends[-1])


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Divide `total` into whole numbers in proportion to weights, by largest remainders.

    Raises DataError if a share would be zero.
    """
    relative = np.array(weights, np.float64) / max(weights)  # each at most 1, so the sum is finite
    exact = total * (relative / relative.sum())
    shares = np.floor(exact).astype(np.int64)
    largest_remainders = np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]
    shares[largest_remainders] += 1
    if not shares.all():
        raise DataError(
            f"data.stores: weights {list(weights)} leave a store without any of {total} samples; "
            "raise the smallest"
        )
    return [int(share) for share in shares]
