"""A second dataset enters a store beside the first, and the same dataset is recognised."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.episodes.episode import Episode
from core.errors import DataError
from core.formats.importing import ImportSummary, import_episodes
from core.store.store import EpisodeStore
from tests.factories import make_episodes, make_info


class Numbered:
    """A source whose episodes are called 0, 1, 2 ... whatever they hold.

    numbers: which episodes of a series it holds; day: another day has other episodes.
    """

    def __init__(self, numbers: Sequence[int], day: int = 0) -> None:
        self.info = make_info()
        series = list(make_episodes(max(numbers) + 1, self.info))
        self.episodes = {
            str(place): replace(
                series[number], id=str(place), actions=series[number].actions + np.float32(day)
            )
            for place, number in enumerate(numbers)
        }

    def ids(self) -> Sequence[str]:
        return [*self.episodes]

    def read(self, episode: str) -> Episode:
        return self.episodes[episode]


def add(source: Numbered, out: Path, name: str) -> ImportSummary:
    return import_episodes(source, out, lambda done, total: None, name=name)


def ids(out: Path) -> list[str]:
    store = EpisodeStore(out)
    return [store.episode_id(episode) for episode in range(len(store))]


def test_a_second_dataset_is_added_under_its_own_name(tmp_path: Path) -> None:
    out = tmp_path / "all.zarr"
    assert add(Numbered([0, 1]), out, "monday").prefix == ""
    summary = add(Numbered([0, 1, 2], day=1), out, "tuesday")
    assert (summary.added, summary.prefix) == (3, "tuesday/")
    assert ids(out) == ["0", "1", "tuesday/0", "tuesday/1", "tuesday/2"]
    store = EpisodeStore(out)
    np.testing.assert_array_equal(
        store.actions(2, 0, int(store.length[2])), Numbered([0], day=1).read("0").actions
    )


def test_the_same_dataset_again_adds_what_is_new(tmp_path: Path) -> None:
    out = tmp_path / "all.zarr"
    add(Numbered([0, 1]), out, "monday")
    assert add(Numbered([0, 1, 2]), out, "moved").added == 1
    add(Numbered([0, 1], day=1), out, "tuesday")
    assert add(Numbered([0, 1, 2, 3], day=1), out, "tuesday").added == 2
    assert add(Numbered([0, 1, 2, 3], day=1), out, "tuesday").added == 0
    assert ids(out) == ["0", "1", "2", *(f"tuesday/{number}" for number in range(4))]


def test_a_source_that_was_renumbered_is_seen(tmp_path: Path) -> None:
    out = tmp_path / "all.zarr"
    add(Numbered([0, 1, 2]), out, "monday")
    with pytest.raises(DataError, match="holds this source's episode '0' as '1', so"):
        add(Numbered([1, 2]), out, "monday")
    assert ids(out) == ["0", "1", "2"]


def test_two_datasets_of_one_name(tmp_path: Path) -> None:
    out = tmp_path / "all.zarr"
    for day in range(2):
        add(Numbered([0, 1], day), out, "run")
    with pytest.raises(DataError, match=r"holds other episodes called run/...; rename the source"):
        add(Numbered([0, 1], day=2), out, "run")


class Damaged(Numbered):
    """A source whose first episodes cannot be read."""

    def read(self, episode: str) -> Episode:
        if episode != "3":
            raise DataError(f"{episode}: damaged")
        return self.episodes[episode]


def test_whether_damaged_episodes_are_the_same_cannot_be_told(tmp_path: Path) -> None:
    out = tmp_path / "all.zarr"
    add(Numbered([0, 1, 2]), out, "monday")
    with pytest.raises(DataError, match=r"cannot be told: none of them .* \(0: damaged\)"):
        add(Damaged([0, 1, 2, 3], day=1), out, "tuesday")
    assert ids(out) == ["0", "1", "2"]
