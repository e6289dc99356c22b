import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.contracts.batch import Batch
from core.errors import DataError
from core.loading.loader import Loader
from core.loading.mixture import Mixture
from core.loading.shuffle import windows_at
from core.loading.windows import Windows
from core.store.store import EpisodeStore
from tests.factories import MOVING, STILL, make_info, make_store
from tests.mixtures import make_member

T, H = 5, 4
CPU = torch.device("cpu")


def words(instruction: str) -> list[int]:
    return [len(word) for word in instruction.split()]


def make_loader(store: EpisodeStore, **changes: Any) -> Loader:
    settings: dict[str, Any] = {
        "batch_size": 4,
        "tokenize": words,
        "threads": 2,
        "prefetch": 2,
        "device": CPU,
    }
    return Loader(Mixture([make_member(store, T, H)]), **{**settings, **changes})


def copied(batch: Batch) -> Batch:
    tensors = {name: x.clone() for name, x in vars(batch).items() if isinstance(x, Tensor)}
    return replace(batch, images={name: x.clone() for name, x in batch.images.items()}, **tensors)


def assert_same(one: Batch, other: Batch) -> None:
    assert (one.instructions, one.episodes) == (other.instructions, other.episodes)
    for name in (STILL, MOVING):
        torch.testing.assert_close(one.images[name], other.images[name], rtol=0, atol=0)
    for name in ("text_ids", "proprio", "embodiment", "actions", "action_mask"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)


def assert_is_window(batch: Batch, row: int, store: EpisodeStore, index: int) -> None:
    """Compare one row with a naive reading of whole episodes, in float64."""
    (episode,), (start,) = Windows(store, range(len(store)), T, H).locate(np.array([index]))
    length = int(store.length[episode])
    whole = {name: np.zeros((length, 32, 32, 3), np.uint8) for name in (STILL, MOVING)}
    for name, frames in whole.items():
        store.read_frames(name, episode, 0, length, frames)
    actions = store.actions(episode, 0, length).astype(np.float64)
    low, high = store.statistics["action"].quantile(0.01), store.statistics["action"].quantile(0.99)
    actions[:, :3] = (2 * (actions - low) / (high - low + 1e-6) - 1)[:, :3]
    actions[:, 3] = actions[:, 3] > 0
    seen = store.statistics["proprio"]
    proprio = (store.proprio(episode, 0, length) - seen.mean) / seen.std
    assert (batch.episodes[row], batch.instructions[row]) == (
        store.episode_id(episode),
        store.instruction(episode),
    )
    for t in range(T):
        frame = min(start + t, length - 1)
        np.testing.assert_allclose(batch.proprio[row, t], proprio[frame], rtol=1e-4, atol=1e-5)  # type: ignore[index]
        for name in (STILL, MOVING):
            np.testing.assert_array_equal(
                batch.images[name][row, t], whole[name][frame].transpose(2, 0, 1)
            )
        before = start + t - 1
        known = 0 <= before < length
        assert batch.past is not None
        assert bool(batch.past.known[row, t]) == known
        past = actions[before] if known else np.zeros(4)
        np.testing.assert_allclose(batch.past.actions[row, t], past, rtol=1e-4, atol=1e-5)
        for h in range(H):
            assert batch.action_mask[row, t, h].tolist() == 4 * [start + t + h < length]  # type: ignore[index]
            expected = actions[min(start + t + h, length - 1)]
            np.testing.assert_allclose(batch.actions[row, t, h], expected, rtol=1e-4, atol=1e-5)  # type: ignore[index]


@pytest.mark.parametrize("threads", [1, 3, 9])
def test_a_pass_over_all_windows_equals_a_naive_reading(store: EpisodeStore, threads: int) -> None:
    index = 0
    for batch in make_loader(store, threads=threads).once():
        for row in range(len(batch.instructions)):
            assert_is_window(batch, row, store, index)
            index += 1
    assert index == store.frame_count


def test_shuffled_batches_are_the_windows_of_their_positions(store: EpisodeStore) -> None:
    for step, batch in enumerate(
        islice(make_loader(store).batches(seed=5), 30)
    ):  # well into the second epoch
        for row, index in enumerate(
            windows_at(4 * step + np.arange(4), store.frame_count, 5).tolist()
        ):
            assert_is_window(batch, row, store, index)


def test_batches_are_typed_and_shaped_as_the_contract_says(store: EpisodeStore) -> None:
    batch = next(make_loader(store).batches(seed=0))
    assert batch.images[STILL].shape == (4, T, 3, 32, 32)
    assert batch.images[STILL].dtype == torch.uint8
    assert batch.text_ids.dtype == torch.int64
    assert batch.embodiment is not None
    assert (batch.embodiment.tolist(), batch.embodiment.dtype) == ([0, 0, 0, 0], torch.int64)
    assert (batch.features, batch.present) == ({}, {})
    assert batch.actions is not None
    assert (batch.actions.shape, batch.actions.dtype) == ((4, T, H, 4), torch.float32)
    assert batch.proprio is not None
    assert (batch.proprio.shape, batch.proprio.dtype) == ((4, T, 3), torch.float32)


def test_resuming_equals_continuing(store: EpisodeStore) -> None:
    whole = [copied(batch) for batch in islice(make_loader(store).batches(seed=1), 25)]
    for first in (1, 17, 24):
        for batch, expected in zip(
            make_loader(store).batches(seed=1, first=first), whole[first:], strict=False
        ):
            assert_same(batch, expected)


def test_processes_share_each_step(store: EpisodeStore) -> None:
    together = next(make_loader(store, batch_size=6).batches(seed=2, first=3))
    apart = [
        next(make_loader(store, batch_size=3).batches(seed=2, first=3, rank=r, world=2))
        for r in (0, 1)
    ]
    torch.testing.assert_close(
        torch.cat([b.images[MOVING] for b in apart]), together.images[MOVING]
    )
    assert [e for b in apart for e in b.episodes] == list(together.episodes)


def test_processes_share_a_pass_without_overlap(store: EpisodeStore) -> None:
    seen = [
        row.numpy().tobytes()
        for rank in range(3)
        for batch in make_loader(store).once(rank, world=3)
        for row in copied(batch).images[MOVING][:, 0]
    ]
    assert len(seen) == len(set(seen)) == store.frame_count


def test_a_batch_is_not_overwritten_while_it_is_in_use(store: EpisodeStore) -> None:
    batches = make_loader(store, threads=3, prefetch=1).batches(seed=0)
    for batch in islice(batches, 4):
        before = copied(batch)
        time.sleep(0.1)  # the threads decode whatever they can meanwhile
        assert_same(batch, before)
    batches.close()  # type: ignore[attr-defined]


def test_instructions_are_tokenised_once_each_and_off_this_thread(store: EpisodeStore) -> None:
    calls: list[tuple[str, threading.Thread]] = []

    def tokenize(instruction: str) -> list[int]:
        calls.append((instruction, threading.current_thread()))
        return words(instruction)

    for _ in make_loader(store, tokenize=tokenize, threads=4).once():
        pass
    assert sorted(instruction for instruction, _ in calls) == [
        "push the puck",
        "reach the red cube",
    ]
    assert threading.current_thread() not in [thread for _, thread in calls]


def test_text_is_padded_only_where_lengths_differ(store: EpisodeStore) -> None:
    for batch in make_loader(store).once():
        expected = [words(instruction) for instruction in batch.instructions]
        if len({len(ids) for ids in expected}) == 1:
            assert batch.text_mask is None
            assert batch.text_ids.tolist() == expected
        else:
            assert batch.text_mask is not None
            assert [
                ids[mask].tolist()
                for ids, mask in zip(batch.text_ids, batch.text_mask, strict=True)
            ] == expected


def test_without_proprioception_there_is_none(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", episodes=2, info=make_info(proprio=0))
    assert next(make_loader(store).batches(seed=0)).proprio is None


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_damage_reaches_the_consumer_and_no_thread_stays(store: EpisodeStore) -> None:
    file = sorted(store.path.glob(f"parts/*/cam/{MOVING}/data/c/0"))[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        for _ in make_loader(store).batches(seed=0):
            pass
    assert decoding_threads() == []


def test_closing_ends_the_threads(store: EpisodeStore) -> None:
    batches = make_loader(store).batches(seed=0)
    next(batches)
    assert decoding_threads()
    batches.close()  # type: ignore[attr-defined]
    assert decoding_threads() == []


def test_waiting_is_counted(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    original = EpisodeStore.read_frames

    def slow(*arguments: Any) -> None:
        time.sleep(0.002)
        original(*arguments)

    monkeypatch.setattr(EpisodeStore, "read_frames", slow)
    loader = make_loader(store, threads=1, prefetch=1)
    waits = [loader.waited for _ in islice(loader.batches(seed=0), 3)]
    assert waits == sorted(waits)
    assert waits[0] >= 4 * 2 * 0.002  # four windows, two cameras: sleep never returns early


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_equal_those_on_the_cpu(store: EpisodeStore) -> None:
    def some(device: torch.device) -> Iterator[Batch]:
        return islice(make_loader(store, device=device).batches(seed=3), 20)

    kept = list(some(torch.device("cuda")))  # copies: no buffer is shared
    for batch, expected in zip(kept, some(CPU), strict=True):
        assert_same(batch.to(CPU), expected)
