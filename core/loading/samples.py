"""Training samples one by one: what the network receives, and what it should predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from core.loading.buffers import BatchBuffer
from core.loading.mixture import Mixture, Places


@dataclass(frozen=True, eq=False)
class Sample:
    """One window of an episode, before augmentation.

    T frames, H actions in each chunk; Y rows and X columns of an image.
    """

    episode: str
    """the episode's id."""
    task: str
    instruction: str
    frames: np.ndarray
    """(T) int64, index of each image's frame in its episode; past the episode's end, the window's
    last index inside the episode is repeated."""
    images: Mapping[str, np.ndarray]
    """{camera: (T Y X 3) uint8}, of the cameras that the episode's store has."""
    features: Mapping[str, np.ndarray]
    """{feature: (T ...)}, as recorded."""
    proprio: np.ndarray
    """(T P) float32, in the data's units."""
    actions: np.ndarray
    """(T H A) float32: the actions that follow each frame, in the units of the policy's actions."""
    action_mask: np.ndarray
    """(T H A) bool: which actions count in the loss; False past the episode's end."""
    targets: np.ndarray
    """(T H A) float32: `actions` as the network should predict them, normalised."""
    normalized_proprio: np.ndarray
    """(T P) float32: `proprio` as the network sees it, normalised."""

    def __repr__(self) -> str:
        return (
            f"Sample({self.instruction!r}, frames {self.frames[0]}-{self.frames[-1]} of "
            f"'{self.episode}', {len(self.images)} cameras, actions {self.actions.shape})"
        )


class Samples(Sequence[Sample]):
    """The samples of some stores by index: the same windows as the loader draws, but unshuffled."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __len__(self) -> int:
        return self._mixture.window_count

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Return one sample, or a list of samples for a slice; raises DataError for damage."""
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._read(index % len(self))

    def action_chunks(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return `targets` and `action_mask` (n T H A) of some samples; no image is read.

        Of many samples, ask for a few hundred at a time.
        """
        places = self._places(np.asarray(indices))
        buffer = self._buffer(len(places))
        self._mixture.fill_numbers(buffer, places)
        return buffer.actions, buffer.action_mask

    def _places(self, indices: np.ndarray) -> Places:
        return self._mixture.locate(*self._mixture.at(indices))

    def _buffer(self, size: int) -> BatchBuffer:
        member = self._mixture.members[0]
        return BatchBuffer(
            size,
            member.dataset.view.info,
            window=member.windows.window,
            horizon=member.windows.horizon,
            lacking=self._mixture.lacking,
            pinned=False,
        )

    def _read(self, index: int) -> Sample:
        """Read one sample: fill a batch of size 1 in the same way as the loader."""
        places, buffer = self._places(np.array([index])), self._buffer(1)
        member = self._mixture.members[places.members.item()]
        view, windows = member.dataset.view, member.windows
        self._mixture.fill_numbers(buffer, places)
        self._mixture.fill_images(buffer, places, slice(None))

        episode, start = places.episodes.item(), places.starts.item()
        last = view.store.length.item(episode) - 1
        steps = np.arange(windows.window + windows.horizon - 1)
        frames = np.minimum(places.starts[:, None] + view.period * steps, last)  # (1 K)
        actions = view.actions(places.episodes, frames)  # (1 K A)
        proprio = view.proprio(places.episodes, frames[:, : windows.window])
        # after the episode's end, the window repeats its last real image
        last_step = (last - start) // view.period
        shown = start + view.period * np.minimum(steps[: windows.window], last_step)
        return Sample(
            episode=member.dataset.episode_id(episode),
            task=member.dataset.task_name(episode),
            instruction=view.store.instruction(episode),
            frames=shown,
            images={n: buffer.frames[n][0] for n in view.info.cameras if n in view.recorded},
            features={n: buffer.frames[n][0] for n in view.info.features if n in view.recorded},
            proprio=proprio[0],
            actions=actions[0].take(windows.reach, axis=0),
            action_mask=buffer.action_mask[0],
            targets=buffer.actions[0],
            normalized_proprio=buffer.proprio[0],
        )
