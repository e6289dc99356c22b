"""The memory that a batch is decoded into, used again and again."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, device

from core.contracts.batch import Batch
from core.episodes.episode import StoreInfo


class BatchBuffer:
    """Room for one batch; the arrays are what decoding threads fill, the tensors of `batch` share
    their memory.

    frames: {camera: (B T Y X C) uint8, feature: (B T *shape)}, the order in which they are decoded.
    actions, action_mask (B T H A), proprio (B T P), present {name: (B)}, embodiment (B): as in
    Batch.
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
        """Make room; lacking: the cameras and features that a sample may lack."""
        steps = (size, window)
        self._pinned = pinned
        self._copied: torch.cuda.Event | None = None
        self._images = {
            name: self._room((*steps, camera.height, camera.width, 3), "uint8")
            for name, camera in info.cameras.items()
        }
        self._features = {
            name: self._room((*steps, *feature.shape), feature.dtype)
            for name, feature in info.features.items()
        }
        self._actions = self._room((*steps, horizon, info.action.dim), "float32")
        self._action_mask = self._room((*steps, horizon, info.action.dim), "bool")
        self._proprio = self._room((*steps, len(info.proprio)), "float32")
        self._present = {name: self._room((size,), "bool") for name in lacking}
        self._embodiment = self._room((size,), "int64")
        self.frames: dict[str, np.ndarray] = _as_arrays({**self._images, **self._features})
        # (B T C Y X), made once: every tensor operation gives up the interpreter, and getting it
        # back from the decoding threads takes longer than the operation
        self._views = {name: images.movedim(-1, 2) for name, images in self._images.items()}
        self.actions: np.ndarray = self._actions.numpy()
        self.action_mask: np.ndarray = self._action_mask.numpy()
        self.proprio: np.ndarray = self._proprio.numpy()
        self.present: dict[str, np.ndarray] = _as_arrays(self._present)
        self.embodiment: np.ndarray = self._embodiment.numpy()

    def batch(
        self, instructions: Sequence[str], text: Sequence[np.ndarray], episodes: Sequence[str]
    ) -> Batch:
        """Return views of the first rows, one per instruction; text holds the token ids of each."""
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
        )

    def copy(self, batch: Batch, where: device) -> Batch:
        """Copy a batch of this buffer to a CUDA device without waiting for it."""
        moved = batch.to(where)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record(torch.cuda.current_stream(where))
        return moved

    def wait_until_copied(self) -> None:
        """Wait until the last copy has read this buffer; at once on the CPU."""
        if self._copied is not None:
            self._copied.synchronize()

    def _pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._pinned else tensor

    def _room(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Memory for numbers of a dtype that numpy and torch call the same."""
        if self._pinned:
            return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
        # numpy's memory: it asks for huge pages, as torch does not, and decoders write 7 % faster
        # into them
        return torch.from_numpy(np.empty(shape, dtype))


def pad(text: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None]:
    """Token ids of B instructions -> ids (B N), padded with 0 on the right, and their mask, None
    for one length.
    """
    lengths = [len(ids) for ids in text]
    padded = np.zeros((len(text), max(lengths)), np.int64)
    for row, ids in zip(padded, text, strict=True):
        row[: len(ids)] = ids
    if min(lengths) == max(lengths):
        return torch.from_numpy(padded), None
    return torch.from_numpy(padded), torch.from_numpy(
        np.arange(max(lengths)) < np.array(lengths)[:, None]
    )


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _first(count: int, rows: Tensor) -> Tensor:
    return rows if count == len(rows) else rows[:count]
