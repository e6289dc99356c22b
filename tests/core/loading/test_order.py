"""Episode streams: every frame of every episode, in order, whatever the step they begin at."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from core.loading.loader import Loader
from core.loading.mixture import Member, Mixture, Places
from core.loading.order import EpisodeStreams, ShuffledWindows, with_shares
from core.loading.windows import Windows
from core.store.store import EpisodeStore
from tests.mixtures import make_member

T, H = 3, 2
Window = tuple[int, int, int]  # member, episode, first frame

LENGTHS = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=5), min_size=1, max_size=3)
BATCHES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))  # size, micro, world


def streams_of(
    lengths: Sequence[Sequence[int]],
    *,
    weights: Sequence[float] | None = None,
    micro_batches: int = 1,
    periods: Sequence[int] = (1, 1, 1),
) -> EpisodeStreams:
    """Return streams of stores with episodes of these lengths; nothing else of a store matters."""
    members = []
    for of_store, period in zip(lengths, periods, strict=False):
        store = SimpleNamespace(path="", length=np.array(of_store))
        dataset = SimpleNamespace(view=SimpleNamespace(period=period))
        windows = Windows(store, range(len(of_store)), T, H, stride=max(of_store))  # type: ignore[arg-type]
        members.append(Member(dataset, windows))  # type: ignore[arg-type]
    return EpisodeStreams(Mixture(members, weights), micro_batches)


def listed(places: Places) -> list[Window]:
    columns = (places.members, places.episodes, places.starts)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def windows_of_rows(streams: EpisodeStreams, size: int, world: int, steps: int) -> np.ndarray:
    """Return the windows (steps R 3) of all rows, as all processes together read them."""
    micro = streams.micro_batches
    ranks = [
        [
            listed(places)
            for places in islice(streams.endless(size, 7, 0, rank, world), steps * micro)
        ]
        for rank in range(world)
    ]
    batches = [batch for together in zip(*ranks, strict=True) for batch in together]
    return np.array(batches).reshape(steps, micro * world * size, 3)


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, shape=BATCHES)
def test_each_row_reads_the_episodes_at_its_positions_frame_after_frame(
    lengths: list[list[int]], shape: tuple[int, int, int]
) -> None:
    size, micro, world = shape
    streams = streams_of(lengths, micro_batches=micro)
    windows = windows_of_rows(streams, size, world, steps=25)
    total = windows.shape[1]
    for row in range(total):
        members, indices = streams.mixture.draw(row + total * np.arange(25), 7)
        expected = [
            [member, episode, start]
            for member, episode in zip(members.tolist(), indices.tolist(), strict=True)
            for start in range(0, lengths[member][episode], T)
        ]
        assert windows[:, row].tolist() == expected[:25]


@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, rows=st.integers(1, 4))
def test_all_rows_together_read_each_episode_equally_often(
    lengths: list[list[int]], rows: int
) -> None:
    """As many episodes in each row as there are, R rows: each window exactly R times."""
    episodes = sum(map(len, lengths))
    streams = streams_of(lengths)
    steps = episodes * 7  # no episode has more than seven windows
    windows, seen = windows_of_rows(streams, rows, 1, steps), Counter[Window]()
    for row in range(rows):
        of_row = [(m, e, s) for m, e, s in windows[:, row].tolist()]
        begins = [i for i, (_, _, start) in enumerate(of_row) if start == 0] + [steps]
        seen.update(of_row[: begins[episodes]])
    assert seen == {
        (member, episode, start): rows
        for member, of_store in enumerate(lengths)
        for episode, length in enumerate(of_store)
        for start in range(0, length, T)
    }


@settings(max_examples=20, deadline=None)
@given(
    lengths=LENGTHS,
    shape=BATCHES,
    first=st.sampled_from([0, 1, 2, 5, 17, 700]),
    seed=st.integers(0, 2**31),
)
def test_any_batch_can_be_computed_alone(
    lengths: list[list[int]], shape: tuple[int, int, int], first: int, seed: int
) -> None:
    size, micro, world = shape
    streams = streams_of(lengths, micro_batches=micro)
    for rank in range(world):
        begun = islice(streams.endless(size, seed, 0, rank, world), first, first + 5)
        alone = islice(streams.endless(size, seed, first, rank, world), 5)
        assert [listed(places) for places in begun] == [listed(places) for places in alone]


def test_the_rows_of_a_step_are_the_same_for_any_processes_and_micro_batches() -> None:
    lengths = [[4, 9, 1], [12, 7]]
    whole = windows_of_rows(streams_of(lengths), 8, 1, steps=40)
    for size, micro, world in ((4, 2, 1), (4, 1, 2), (2, 2, 2)):
        streams = streams_of(lengths, micro_batches=micro)
        assert np.array_equal(windows_of_rows(streams, size, world, steps=40), whole)


def test_a_weight_is_a_share_of_the_episodes() -> None:
    streams = streams_of([[9] * 10, [9] * 10], weights=[3.0, 1.0])
    starts = windows_of_rows(streams, 4, 1, steps=60).reshape(-1, 3)
    begun = starts[starts[:, 2] == 0]
    assert np.bincount(begun[:, 0]).tolist() == [60, 20]


def test_a_window_spans_more_frames_of_a_faster_store() -> None:
    streams = streams_of([[13], [13]], periods=(1, 2))
    windows = windows_of_rows(streams, 1, 1, steps=16)[:, 0].tolist()
    starts = {m: [s for member, _, s in windows if member == m] for m in (0, 1)}
    assert starts[0][:5] == [0, 3, 6, 9, 12]
    assert starts[1][:3] == [0, 6, 12]


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 4), world=st.integers(1, 3))
def test_held_out_episodes_go_on_in_the_first_rows(
    lengths: list[list[int]], size: int, world: int
) -> None:
    seen = []
    for rank in range(world):
        before: list[Window] = []
        for places in streams_of(lengths).once(size, rank, world):
            batch = listed(places)
            seen += batch
            starts = {start for _, _, start in batch}
            assert len(starts) == 1  # all rows are at the same window of their episodes
            if starts != {0}:
                assert [(m, e, s - T) for m, e, s in batch] == before[: len(batch)]
            before = batch
    assert sorted(seen) == [
        (member, episode, start)
        for member, of_store in enumerate(lengths)
        for episode, length in enumerate(of_store)
        for start in range(0, length, T)
    ]


# ------------------------------------------------------------------------------------- a real store


def test_batches_say_which_rows_begin_an_episode(store: EpisodeStore) -> None:
    member = make_member(store, T, H)
    windows = Windows(store, range(len(store)), T, H, stride=int(store.length.max()))
    mixture = Mixture([Member(member.dataset, windows)])
    loader = Loader(
        mixture,
        batch_size=2,
        tokenize=lambda text: [len(text)],
        threads=2,
        prefetch=2,
        device=torch.device("cpu"),
        order=EpisodeStreams(mixture),
    )
    read: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    whole = {store.episode_id(e): store.proprio(e, 0, int(store.length[e])) for e in range(6)}
    statistics = store.statistics["proprio"]
    for batch in islice(loader.batches(seed=3), 30):
        assert batch.begins is not None
        assert batch.proprio is not None
        assert batch.action_mask is not None
        for row, episode in enumerate(batch.episodes):
            if batch.begins[row]:
                read[row] = []
            inside = batch.action_mask[row, :, 0, 0]
            read[row] += list(batch.proprio[row][inside].clone())
            expected = (whole[episode][: len(read[row])] - statistics.mean) / statistics.std
            np.testing.assert_allclose(torch.stack(read[row]), expected, rtol=1e-4, atol=1e-5)
            if not inside.all():
                assert len(read[row]) == len(whole[episode])


# ----------------------------------------------------------------- how much each batch counts


def loader_of(store: EpisodeStore, micro_batches: int, *, streams: bool) -> Loader:
    """A loader of shuffled windows, or of episode streams."""
    member = make_member(store, T, 6)
    stride = int(store.length.max()) if streams else 1
    windows = Windows(store, range(len(store)), T, 6, stride)
    mixture = Mixture([Member(member.dataset, windows)])
    return Loader(
        mixture,
        batch_size=2,
        tokenize=lambda text: [len(text)],
        threads=1,
        prefetch=2,
        device=torch.device("cpu"),
        order=EpisodeStreams(mixture, micro_batches) if streams else ShuffledWindows(mixture),
    )


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("micro", "world"), [(1, 1), (3, 1), (1, 2), (2, 2)])
def test_shares_are_those_of_the_actions_that_count(
    pristine_store: Path, streams: bool, micro: int, world: int
) -> None:
    loader = loader_of(EpisodeStore(pristine_store), micro, streams=streams)
    steps = 4
    counts, shares = np.zeros((steps, micro, world)), np.zeros((steps, micro, world))
    for rank in range(world):
        with closing(loader.batches(7, 0, rank, world, micro)) as batches:
            for number, batch in enumerate(islice(batches, steps * micro)):
                assert batch.action_mask is not None
                place = (*divmod(number, micro), rank)
                counts[place], shares[place] = batch.action_mask.sum(), batch.share
    np.testing.assert_allclose(shares, counts / counts.mean((1, 2), keepdims=True))
    assert micro * world == 1 or (shares != 1).any()


def test_shares_go_on_where_a_run_resumes(pristine_store: Path) -> None:
    order = loader_of(EpisodeStore(pristine_store), 1, streams=False).order
    whole, rest = (
        [share for _, share in islice(with_shares(order, 2, 7, first, 1, 2, 3), count)]
        for first, count in ((0, 12), (6, 6))
    )
    assert whole[6:] == rest
