import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from core.data.contracts import Episode
from core.data.imports import import_episodes
from core.data.store import EpisodeStore
from core.errors import DataError
from tests.factories import contents, make_episodes, make_info


class Source:
    """Episodes in memory; reading one of `broken` fails as a damaged file would."""

    def __init__(self, count: int, broken: Sequence[str] = ()) -> None:
        self.info = make_info()
        self.episodes = {episode.id: episode for episode in make_episodes(count, self.info)}
        self.broken = broken
        self.reads: list[str] = []

    def ids(self) -> Sequence[str]:
        return list(self.episodes)

    def read(self, episode: str) -> Episode:
        self.reads.append(episode)
        if episode in self.broken:
            raise DataError(f"{episode}: damaged")
        return self.episodes[episode]


def nowhere(done: int, total: int) -> None: ...


def test_an_import_says_what_it_did(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    summary = import_episodes(
        lambda: Source(5), tmp_path / "a.zarr", lambda done, total: progress.append((done, total))
    )
    assert progress == [(i, 5) for i in range(1, 6)]
    size = sum(file.stat().st_size for file in (tmp_path / "a.zarr").rglob("*") if file.is_file())
    assert (summary.added, summary.episodes, summary.frames, summary.bytes) == (5, 5, 11 + 12 + 13 + 14 + 15, size)
    assert summary.codecs["front"].startswith("zstd, ")
    assert summary.codecs["wrist"].startswith("jpeg, ")
    assert "zstd takes" in summary.codecs["wrist"]


def test_an_import_goes_on_with_what_is_new(tmp_path: Path) -> None:
    import_episodes(lambda: Source(3), tmp_path / "a.zarr", nowhere)
    source = Source(5)
    summary = import_episodes(lambda: source, tmp_path / "a.zarr", nowhere)
    assert source.reads == ["push/3", "reach/4"]
    assert (summary.added, summary.episodes) == (2, 5)


def test_a_damaged_episode_stops_the_import_and_can_be_mended(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reach/2: damaged"):
        import_episodes(lambda: Source(4, broken=["reach/2"]), tmp_path / "a.zarr", nowhere)
    import_episodes(lambda: Source(4), tmp_path / "a.zarr", nowhere)
    store = EpisodeStore(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.actions(2, 0, 13), Source(4).episodes["reach/2"].actions)


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no episodes"):
        import_episodes(lambda: Source(0), tmp_path / "a.zarr", nowhere)


def test_what_came_before_a_damaged_episode_is_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reach/2: damaged"):
        import_episodes(lambda: Source(4, broken=["reach/2"]), tmp_path / "a.zarr", nowhere)
    assert len(EpisodeStore(tmp_path / "a.zarr")) == 2


def test_damaged_episodes_are_skipped_when_asked(tmp_path: Path) -> None:
    broken = ["reach/0", "push/3"]
    summary = import_episodes(lambda: Source(5, broken), tmp_path / "a.zarr", nowhere, skip_bad=True)
    assert (summary.added, summary.episodes) == (3, 3)
    assert summary.skipped == {episode: f"{episode}: damaged" for episode in broken}


def test_nothing_but_damaged_episodes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 2 episodes can be read; the first: reach/0: damaged"):
        import_episodes(lambda: Source(2, ["reach/0", "push/1"]), tmp_path / "a.zarr", nowhere, skip_bad=True)
    assert not (tmp_path / "a.zarr").exists()


# ---------------------------------------------------------------------------------------------- several processes


def make_good() -> Source:
    return Source(9)


def make_damaged() -> Source:
    return Source(9, broken=["push/5"])


class Deadly(Source):
    """Reading one episode kills the process, as running out of memory would."""

    def read(self, episode: str) -> Episode:
        if episode == "push/5":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(episode)


def make_deadly() -> Source:
    return Deadly(9)


def test_processes_make_the_same_store_in_the_same_order(tmp_path: Path) -> None:
    progress: list[int] = []
    import_episodes(make_good, tmp_path / "one.zarr", nowhere)
    import_episodes(make_good, tmp_path / "two.zarr", lambda done, total: progress.append(done), jobs=2)
    assert [*contents(tmp_path / "one.zarr").items()] == [*contents(tmp_path / "two.zarr").items()]
    assert progress == [*range(1, 10)]


def test_a_damaged_episode_in_another_process_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="push/5: damaged"):
        import_episodes(make_damaged, tmp_path / "a.zarr", nowhere, jobs=2)
    assert len(EpisodeStore(tmp_path / "a.zarr")) == 5


def test_a_process_that_dies_costs_nothing_that_was_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a process that reads episodes has died, at one of .*push/5.* import again"):
        import_episodes(make_deadly, tmp_path / "a.zarr", nowhere, jobs=2)
    before = len(EpisodeStore(tmp_path / "a.zarr"))
    assert 1 <= before <= 5
    import_episodes(make_good, tmp_path / "a.zarr", nowhere)
    import_episodes(make_good, tmp_path / "whole.zarr", nowhere)
    assert [*contents(tmp_path / "a.zarr").items()] == [*contents(tmp_path / "whole.zarr").items()]
