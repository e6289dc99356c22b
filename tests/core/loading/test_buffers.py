"""The memory of a batch: shapes, sharing between arrays and tensors, padding of token ids."""

import numpy as np
import torch

from core.loading.buffers import BatchBuffer, pad
from tests.factories import FEATURES, MOVING, STILL, make_info

B, T, H = 4, 3, 2


def buffer_of(**changes: object) -> BatchBuffer:
    info = make_info(features={"force": FEATURES["force"]})
    settings = {"window": T, "horizon": H, "lacking": [MOVING], "pinned": False, **changes}
    return BatchBuffer(B, info, **settings)  # type: ignore[arg-type]


def test_the_tensors_of_a_batch_share_the_memory_that_threads_fill() -> None:
    buffer = buffer_of()
    for array in (*buffer.frames.values(), *buffer.present.values(), buffer.embodiment):
        array[...] = 0
    batch = buffer.batch(["a"] * B, [np.array([1])] * B, list("abcd"))
    assert batch.images[STILL].shape == (B, T, 3, 32, 32)
    assert batch.features["force"].shape == (B, T, 6)
    assert batch.actions is not None
    assert batch.actions.shape == (B, T, H, 4)
    buffer.frames[STILL][1, 2, 5, 6] = [7, 8, 9]
    buffer.frames["force"][3, 0] = 0.5
    buffer.present[MOVING][2] = True
    buffer.embodiment[0] = 5
    assert batch.images[STILL][1, 2, :, 5, 6].tolist() == [7, 8, 9]
    assert batch.features["force"][3, 0].tolist() == 6 * [0.5]
    assert batch.present[MOVING].tolist() == [False, False, True, False]
    assert batch.embodiment is not None
    assert batch.embodiment.tolist() == [5, 0, 0, 0]


def test_a_smaller_batch_takes_the_first_rows() -> None:
    batch = buffer_of().batch(["go", "stop now"], [np.array([1]), np.array([2, 3])], ["e0", "e1"])
    assert len(batch.images[STILL]) == len(batch.images[MOVING]) == 2
    assert batch.text_ids.tolist() == [[1, 0], [2, 3]]
    assert (batch.instructions, batch.episodes) == (["go", "stop now"], ["e0", "e1"])


def test_without_proprioception_a_batch_has_none() -> None:
    buffer = BatchBuffer(B, make_info(proprio=0), window=T, horizon=H, lacking=(), pinned=False)
    assert buffer.batch(["a"], [np.array([1])], ["e"]).proprio is None


def test_ids_are_padded_with_zeros_on_the_right_and_masked() -> None:
    ids, mask = pad([np.array([5, 6, 7]), np.array([8])])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert ids.dtype == torch.int64
    assert mask is not None
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_ids_of_one_length_need_no_mask() -> None:
    ids, mask = pad([np.array([5, 6]), np.array([8, 9])])
    assert ids.tolist() == [[5, 6], [8, 9]]
    assert mask is None
