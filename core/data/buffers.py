"""The memory that a batch is decoded into, used again and again."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, device

from core.contracts import Batch
from core.data.contracts import StoreInfo

_NUMPY = {torch.uint8: np.uint8, torch.float32: np.float32, torch.bool: np.bool_}


class BatchBuffer:
    """Room for one batch; the arrays are what decoding threads fill, the tensors of `batch` share their memory.

    frames: {camera: (B T Y X C) uint8}, the order in which images are decoded.
    actions, action_mask (B T H A), proprio (B T P), frame_mask (B T), camera_mask (B V): as in Batch.
    """

    def __init__(
        self, size: int, info: StoreInfo, *, window: int, horizon: int, masks_cameras: bool, pinned: bool
    ) -> None:
        steps = (size, window)
        self._pinned, self._masks_cameras = pinned, masks_cameras
        self._copied: torch.cuda.Event | None = None
        self._images = {
            name: self._room((*steps, camera.height, camera.width, 3), torch.uint8)
            for name, camera in info.cameras.items()
        }
        self._actions = self._room((*steps, horizon, info.action.dim), torch.float32)
        self._action_mask = self._room((*steps, horizon, info.action.dim), torch.bool)
        self._frame_mask = self._room(steps, torch.bool)
        self._camera_mask = self._room((size, len(info.cameras)), torch.bool)
        self._proprio = self._room((*steps, len(info.proprio)), torch.float32)
        self.frames: dict[str, np.ndarray] = {name: images.numpy() for name, images in self._images.items()}
        # (B T C Y X), made once: every tensor operation gives up the interpreter, and getting it back from the
        # decoding threads takes longer than the operation
        self._views = {name: images.movedim(-1, 2) for name, images in self._images.items()}
        self.actions: np.ndarray = self._actions.numpy()
        self.action_mask: np.ndarray = self._action_mask.numpy()
        self.frame_mask: np.ndarray = self._frame_mask.numpy()
        self.camera_mask: np.ndarray = self._camera_mask.numpy()
        self.proprio: np.ndarray = self._proprio.numpy()

    def batch(self, instructions: Sequence[str], text: Sequence[np.ndarray], episodes: Sequence[str]) -> Batch:
        """Return views of the first rows, one per instruction; text holds the token ids of each."""
        text_ids, text_mask = pad(text)
        count = len(instructions)
        return Batch(
            images={name: _first(count, images) for name, images in self._views.items()},
            instructions=instructions,
            text_ids=self._pin(text_ids),
            text_mask=None if text_mask is None else self._pin(text_mask),
            proprio=_first(count, self._proprio) if self._proprio.shape[-1] else None,
            frame_mask=_first(count, self._frame_mask),
            actions=_first(count, self._actions),
            action_mask=_first(count, self._action_mask),
            camera_mask=_first(count, self._camera_mask) if self._masks_cameras else None,
            episodes=episodes,
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

    def _room(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self._pinned:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        # numpy's memory: it asks for huge pages, as torch does not, and decoders write 7 % faster into them
        return torch.from_numpy(np.empty(shape, _NUMPY[dtype]))


def pad(text: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None]:
    """Token ids of B instructions -> ids (B N), padded with 0 on the right, and their mask, None for one length."""
    lengths = [len(ids) for ids in text]
    padded = np.zeros((len(text), max(lengths)), np.int64)
    for row, ids in zip(padded, text, strict=True):
        row[: len(ids)] = ids
    if min(lengths) == max(lengths):
        return torch.from_numpy(padded), None
    return torch.from_numpy(padded), torch.from_numpy(np.arange(max(lengths)) < np.array(lengths)[:, None])


def _first(count: int, rows: Tensor) -> Tensor:
    return rows if count == len(rows) else rows[:count]
