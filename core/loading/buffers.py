"""Memory into which batches are decoded; later batches use the same memory again."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, device

from core.contracts.batch import Batch, PastActions
from core.episodes.episode import StoreInfo


class BatchBuffer:
    """Memory for one batch: threads fill its arrays, and the tensors of `batch` are views of them.

    frames: {camera: (B T Y X C) uint8, feature: (B T *shape)}; decoders write the channels last.
    actions, action_mask: (B T H A), as in Batch.
    past_actions, past_known: (B T A) and (B T), as in PastActions.
    proprio: (B T P), as in Batch.
    present: {camera or feature: (B)}, as in Batch.
    embodiment: (B), as in Batch.
    begins: (B), as in Batch.
    """

    def __init__(
        self,
        size: int,
        info: StoreInfo,
        *,
        window: int,
        horizon: int,
        lacking: Sequence[str],
        pinned: bool,
    ) -> None:
        """Reserve the memory.

        size: number of samples in a batch (B).
        info: what the policy sees.
        window: number of frames in a sample (T).
        horizon: number of actions in a chunk (H).
        lacking: the cameras and features that a sample may lack.
        pinned: use page-locked memory, which is copied to a CUDA device in the background.
        """
        steps = (size, window)
        self._pinned = pinned
        self._end_of_copy: torch.cuda.Event | None = None
        self._images = {
            name: self._allocate((*steps, camera.height, camera.width, 3), "uint8")
            for name, camera in info.cameras.items()
        }
        self._features = {
            name: self._allocate((*steps, *feature.shape), feature.dtype)
            for name, feature in info.features.items()
        }
        self._actions = self._allocate((*steps, horizon, info.action.dim), "float32")
        self._action_mask = self._allocate((*steps, horizon, info.action.dim), "bool")
        self._past_actions = self._allocate((*steps, info.action.dim), "float32")
        self._past_known = self._allocate(steps, "bool")
        self._proprio = self._allocate((*steps, len(info.proprio)), "float32")
        self._present = {name: self._allocate((size,), "bool") for name in lacking}
        self._embodiment = self._allocate((size,), "int64")
        self._begins = self._allocate((size,), "bool")
        self.frames: dict[str, np.ndarray] = _as_arrays({**self._images, **self._features})
        # These views (B T C Y X) are made once, not for every batch: making a view is a tensor
        # operation, and a tensor operation releases the GIL. While other threads decode,
        # reacquiring the GIL takes longer than the operation itself.
        self._views = {name: images.movedim(-1, 2) for name, images in self._images.items()}
        self.actions: np.ndarray = self._actions.numpy()
        self.action_mask: np.ndarray = self._action_mask.numpy()
        self.past_actions: np.ndarray = self._past_actions.numpy()
        self.past_known: np.ndarray = self._past_known.numpy()
        self.proprio: np.ndarray = self._proprio.numpy()
        self.present: dict[str, np.ndarray] = _as_arrays(self._present)
        self.embodiment: np.ndarray = self._embodiment.numpy()
        self.begins: np.ndarray = self._begins.numpy()

    def batch(
        self,
        instructions: Sequence[str],
        text: Sequence[np.ndarray],
        episodes: Sequence[str],
        share: float = 1.0,
    ) -> Batch:
        """Return views of the buffer's first rows as a batch, a row for each instruction.

        instructions: the instruction of each row.
        text: the token ids of each instruction.
        episodes: the episode id of each row.
        share: as in Batch.
        """
        text_ids, text_mask = pad(text)
        count = len(instructions)
        return Batch(
            images={name: _first(count, images) for name, images in self._views.items()},
            instructions=instructions,
            text_ids=self._pin(text_ids),
            text_mask=None if text_mask is None else self._pin(text_mask),
            proprio=_first(count, self._proprio) if self._proprio.shape[-1] else None,
            actions=_first(count, self._actions),
            action_mask=_first(count, self._action_mask),
            episodes=episodes,
            features={name: _first(count, frames) for name, frames in self._features.items()},
            present={name: _first(count, mask) for name, mask in self._present.items()},
            embodiment=_first(count, self._embodiment),
            begins=_first(count, self._begins),
            share=share,
            past=PastActions(_first(count, self._past_actions), _first(count, self._past_known)),
        )

    def copy(self, batch: Batch, where: device) -> Batch:
        """Begin to copy a batch, which is a view of this buffer, to a CUDA device."""
        copy = batch.to(where)
        self._end_of_copy = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._end_of_copy.record(torch.cuda.current_stream(where))
        return copy

    def wait_until_copied(self) -> None:
        """Wait until the last copy that `copy` began is complete; no-op if it began none."""
        if self._end_of_copy is not None:
            self._end_of_copy.synchronize()

    def _pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._pinned else tensor

    def _allocate(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Return memory for an array; dtype: a name that numpy and torch share."""
        if self._pinned:
            return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
        # numpy, unlike torch, asks for huge pages, into which decoders write 7 % faster
        return torch.from_numpy(np.empty(shape, dtype))


def pad(text: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None]:
    """Pad B lists of token ids with 0 on the right; return the ids (B N) and their mask (B N).

    The mask is None if all instructions have the same length.
    """
    lengths = [len(ids) for ids in text]
    rows = np.zeros((len(text), max(lengths)), np.int64)
    for row, ids in zip(rows, text, strict=True):
        row[: len(ids)] = ids
    if min(lengths) == max(lengths):
        return torch.from_numpy(rows), None
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return torch.from_numpy(rows), torch.from_numpy(mask)


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _first(count: int, rows: Tensor) -> Tensor:
    return rows if count == len(rows) else rows[:count]
