"""Which store gives which sample: exact over an epoch, and a function of (seed, position) alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.errors import DataError
from core.loading.dataset import Dataset
from core.loading.loader import Loader
from core.loading.mixture import Member, Mixture, apportion
from core.loading.shuffle import windows_at
from core.loading.view import common_info, view_of
from core.loading.windows import Windows
from core.store.store import EpisodeStore
from tests.factories import MOVING, make_info, make_store
from tests.mixtures import views_of

T, H = 3, 2


class Sized:
    """A member of which only the number of windows matters."""

    def __init__(self, size: int) -> None:
        self.windows = range(size)


def mixture_of(sizes: list[int], weights: list[float] | None) -> Mixture:
    return Mixture([Sized(size) for size in sizes], weights)  # type: ignore[misc]


@given(
    total=st.integers(1_000, 10_000),
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=6),
)
def test_shares_add_up_and_miss_the_weights_by_less_than_one(
    total: int, weights: list[float]
) -> None:
    shares = apportion(total, weights)
    assert sum(shares) == total
    assert np.all(np.abs(np.array(shares) - total * np.array(weights) / sum(weights)) < 1)


def test_weights_may_be_as_large_as_numbers_are() -> None:
    assert apportion(10, [1e308, 1e308]) == [5, 5]


def test_a_weight_that_gives_no_window_is_refused() -> None:
    with pytest.raises(DataError, match="leave a store without any of 10 samples"):
        apportion(10, [1.0, 1e6])


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    epochs=st.integers(1, 4),
    data=st.data(),
)
def test_every_epoch_has_exactly_the_shares_and_windows_come_equally_often(
    sizes: list[int], seed: int, epochs: int, data: Any
) -> None:
    weights = data.draw(
        st.one_of(st.none(), st.lists(st.floats(0.5, 5), min_size=len(sizes), max_size=len(sizes)))
    )
    try:
        mixture = mixture_of(sizes, weights)
    except DataError:
        return  # a store too small for its weight
    counts = [np.zeros(size, int) for size in sizes]
    for epoch in range(epochs):
        members = np.zeros(len(sizes), int)
        positions = np.arange(epoch * len(mixture), (epoch + 1) * len(mixture))
        for member, index in zip(*mixture.draw(positions, seed), strict=True):
            members[member] += 1
            counts[member][index] += 1
        assert members.tolist() == mixture.shares
    assert all(np.ptp(count) <= 1 for count in counts)
    if weights is None:
        assert all((count == epochs).all() for count in counts)


def test_one_store_alone_comes_in_the_order_of_its_windows() -> None:
    mixture = mixture_of([17], None)
    members, indices = mixture.draw(np.arange(40), 3)
    assert (members == 0).all()
    assert indices.tolist() == windows_at(np.arange(40), 17, 3).tolist()


def test_all_windows_in_order_whatever_the_weights() -> None:
    mixture = mixture_of([2, 3], [1.0, 5.0])
    places = np.stack(mixture.at(np.arange(mixture.window_count)), axis=1)
    assert places.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]]


# ---------------------------------------------------------------------------------- two real stores


def members_of(stores: list[EpisodeStore]) -> list[Member]:
    return [
        Member(
            Dataset(
                view,
                Normalizer.fit(view.statistics["action"], view.info.action, "mean_std"),
                ProprioNormalizer.fit(view.statistics["proprio"]),
                label,
            ),
            Windows(view.store, range(len(view.store)), T, H),
        )
        for view, label in zip(views_of(stores), ("first", "second"), strict=True)
    ]


def test_a_batch_of_two_stores_equals_a_naive_reading(stores: list[EpisodeStore]) -> None:
    members = members_of(stores)
    mixture = Mixture(members, [1.0, 2.0])
    assert mixture.lacking == [MOVING]
    loader = Loader(
        mixture,
        batch_size=16,
        tokenize=lambda text: [len(text)],
        threads=2,
        prefetch=1,
        device=torch.device("cpu"),
    )
    batch = next(loader.batches(seed=4))
    assert {name.partition("/")[0] for name in batch.episodes} == {"first", "second"}
    places = mixture.locate(*mixture.draw(np.arange(16), 4))
    drawn = zip(
        places.members.tolist(), places.episodes.tolist(), places.starts.tolist(), strict=True
    )
    for row, (number, episode, start) in enumerate(drawn):
        member, store = members[number], stores[number]
        length = int(store.length[episode])
        assert batch.episodes[row] == ("first/", "second/")[number] + store.episode_id(episode)
        actions = store.actions(episode, 0, length).astype(np.float64)
        actions = actions * [1, 1, 2, -1, 1] if number else np.pad(actions, ((0, 0), (0, 1)))
        statistics = member.dataset.view.statistics["action"]
        std = np.where(statistics.std > 1e-6, statistics.std, 1.0)
        normal = (actions - statistics.mean) / std
        normal[:, 3] = actions[:, 3] > 0
        assert {name: bool(mask[row]) for name, mask in batch.present.items()} == {
            MOVING: not number
        }
        assert batch.embodiment is not None
        assert int(batch.embodiment[row]) == number
        assert batch.proprio is not None
        assert number == 0 or not batch.proprio[row, :, 2].any()
        assert batch.actions is not None
        assert batch.action_mask is not None
        assert batch.past is not None
        for t in range(T):
            before = start + t - 1
            known = 0 <= before < length
            assert bool(batch.past.known[row, t]) == known
            past = normal[before] * [1, 1, 1, 1, number] if known else np.zeros(5)
            np.testing.assert_allclose(batch.past.actions[row, t], past, rtol=1e-3, atol=1e-5)
            for h in range(H):
                there = start + t + h < length
                assert batch.action_mask[row, t, h].tolist() == [
                    there,
                    there,
                    there,
                    there,
                    there and number == 1,
                ]
                expected = normal[min(start + t + h, length - 1)]
                np.testing.assert_allclose(batch.actions[row, t, h], expected, rtol=1e-3, atol=1e-5)
        if number:
            assert not batch.images[MOVING][row].any()


def test_a_faster_store_is_read_at_the_slower_rate(tmp_path: Path) -> None:
    info = make_info()
    fast = replace(info, fps=20.0, action=replace(info.action, rate=20.0))
    slow_store, store = (
        make_store(tmp_path / "slow.zarr", 2),
        make_store(tmp_path / "fast.zarr", 2, info=fast),
    )
    view = view_of(store, store.info, {}, common_info([slow_store.info, store.info], ()), ())
    assert view.period == 2
    length = int(store.length[0])
    summed = view.actions(np.array([0]), np.array([[0, 2, length - 1]]))[0]
    raw = store.actions(0, 0, length).astype(np.float64)
    np.testing.assert_allclose(summed[1, :3], raw[2:4, :3].sum(0), rtol=1e-6)
    assert summed[1, 3] == raw[3, 3]
    windows = Windows(store, [0], T, H)
    normalizers = (
        Normalizer.fit(view.statistics["action"], view.info.action, "none"),
        ProprioNormalizer.fit(view.statistics["proprio"]),
    )
    mixture = Mixture([Member(Dataset(view, *normalizers), windows)])
    loader = Loader(
        mixture,
        batch_size=length,
        tokenize=lambda text: [1],
        threads=1,
        prefetch=1,
        device=torch.device("cpu"),
    )
    batch = next(loader.once())
    whole = np.zeros((length, 32, 32, 3), np.uint8)
    store.read_frames(MOVING, 0, 0, length, whole)
    assert batch.action_mask is not None
    for start in range(length):
        for t in range(T):
            frame = start + 2 * t
            if frame < length:
                np.testing.assert_array_equal(
                    batch.images[MOVING][start, t], whole[frame].transpose(2, 0, 1)
                )
            for h in range(H):
                assert bool(batch.action_mask[start, t, h, 0]) == (start + 2 * (t + h) + 1 < length)
