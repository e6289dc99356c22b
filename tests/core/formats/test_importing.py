"""Importing: order, damage, continuation, and several processes."""

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import parent_process
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from core.episodes.episode import Episode
from core.episodes.frames import Frames
from core.errors import DataError
from core.formats.importing import import_episodes
from core.store.store import EpisodeStore
from tests.damage import bounded
from tests.factories import contents, make_episode, make_episodes, make_info


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


def ignore(done: int, total: int) -> None: ...


def test_the_summary_of_an_import(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    summary = import_episodes(
        Source(5), tmp_path / "a.zarr", lambda done, total: progress.append((done, total))
    )
    assert progress == [(i, 5) for i in range(1, 6)]
    size = sum(file.stat().st_size for file in (tmp_path / "a.zarr").rglob("*") if file.is_file())
    assert (summary.added, summary.episodes, summary.frames, summary.bytes) == (
        5,
        5,
        11 + 12 + 13 + 14 + 15,
        size,
    )
    assert re.fullmatch(
        r"zstd, \S+ KB a frame \(jpeg 4:4:4 takes .* at \d+ dB, .*\)", summary.codecs["front"]
    )
    wrist = (
        r"jpeg 4:4:4, \S+ KB a frame at \d+ dB "
        r"\(zstd takes \S+ KB a frame, jpeg 4:2:0 takes .* at \d+ dB\)"
    )
    assert re.fullmatch(wrist, summary.codecs["wrist"])


def test_an_import_adds_only_what_is_new(tmp_path: Path) -> None:
    import_episodes(Source(3), tmp_path / "a.zarr", ignore)
    source = Source(5)
    summary = import_episodes(source, tmp_path / "a.zarr", ignore)
    compared = ["reach/0", "push/1", "reach/2"]  # with those in the store
    assert source.reads == [*compared, "push/3", "reach/4"]
    assert (summary.added, summary.episodes) == (2, 5)


def test_a_damaged_episode_stops_the_import_and_can_be_mended(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reach/2: damaged"):
        import_episodes(Source(4, broken=["reach/2"]), tmp_path / "a.zarr", ignore)
    import_episodes(Source(4), tmp_path / "a.zarr", ignore)
    store = EpisodeStore(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.actions(2, 0, 13), Source(4).episodes["reach/2"].actions)


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no episodes"):
        import_episodes(Source(0), tmp_path / "a.zarr", ignore)


def test_the_episodes_before_a_damaged_one_are_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reach/2: damaged"):
        import_episodes(Source(4, broken=["reach/2"]), tmp_path / "a.zarr", ignore)
    assert len(EpisodeStore(tmp_path / "a.zarr")) == 2


def test_damaged_episodes_are_skipped_when_asked(tmp_path: Path) -> None:
    broken = ["reach/0", "push/3"]
    summary = import_episodes(Source(5, broken), tmp_path / "a.zarr", ignore, skip_bad=True)
    assert (summary.added, summary.episodes) == (3, 3)
    assert summary.skipped == {episode: f"{episode}: damaged" for episode in broken}


def test_a_skipped_episode_is_tried_again(tmp_path: Path) -> None:
    import_episodes(Source(4, ["reach/2"]), tmp_path / "a.zarr", ignore, skip_bad=True)
    still_broken = Source(4, ["reach/2"])
    summary = import_episodes(still_broken, tmp_path / "a.zarr", ignore, skip_bad=True)
    assert still_broken.reads[-1] == "reach/2"
    assert (summary.added, summary.episodes, [*summary.skipped]) == (0, 3, ["reach/2"])
    summary = import_episodes(Source(4), tmp_path / "a.zarr", ignore, skip_bad=True)
    assert (summary.added, summary.episodes, summary.skipped) == (1, 4, {})


class Vague(Source):
    """Names the file that is damaged, and not the episode."""

    def read(self, episode: str) -> Episode:
        if episode in self.broken:
            raise DataError("videos/file-000.mp4: damaged")
        return self.episodes[episode]


def test_the_episode_is_named_where_the_source_names_the_file(tmp_path: Path) -> None:
    message = r"^episode 'reach/2': videos/file-000.mp4: damaged; --skip-bad imports the others$"
    with pytest.raises(DataError, match=message):
        import_episodes(Vague(4, ["reach/2"]), tmp_path / "a.zarr", ignore)


def test_a_fault_that_all_episodes_may_have_is_not_to_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^reach/0: damaged$"):
        import_episodes(Source(4, ["reach/0"]), tmp_path / "a.zarr", ignore)


class Long(Source):
    """An episode whose images are made when they are needed."""

    def __init__(self, length: int) -> None:
        self.info = make_info(("front",), size=256)
        self.length = length

    def ids(self) -> Sequence[str]:
        return ["long"]

    def read(self, episode: str) -> Episode:
        short = make_episode(0, self.info, length=2)

        def images(start: int, stop: int) -> np.ndarray:
            return np.repeat(short.images["front"][:1], stop - start, axis=0)

        frames = Frames((self.length, 256, 256, 3), images)
        return replace(
            short,
            id=episode,
            images={"front": frames},
            actions=np.repeat(short.actions[:1], self.length, axis=0),
            proprio=np.repeat(short.proprio[:1], self.length, axis=0),
        )


def test_memory_does_not_grow_with_the_length_of_an_episode(tmp_path: Path) -> None:
    """Decoded, the images of the longer episode take 315 MB."""
    import_episodes(Long(40), tmp_path / "short.zarr", ignore)  # loads what is needed once
    with bounded(48):
        import_episodes(Long(1_600), tmp_path / "long.zarr", ignore)
    assert EpisodeStore(tmp_path / "long.zarr").length.tolist() == [1_600]


def test_nothing_but_damaged_episodes(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="none of the 2 episodes can be read; the first: reach/0: damaged"
    ):
        import_episodes(
            Source(2, ["reach/0", "push/1"]), tmp_path / "a.zarr", ignore, skip_bad=True
        )
    assert not (tmp_path / "a.zarr").exists()


# -------------------------------------------------------------------------------- several processes


class Deadly(Source):
    """Reading one episode kills the process, as running out of memory would."""

    def read(self, episode: str) -> Episode:
        if episode == "push/5":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(episode)


class Opener(Source):
    """Counts how often it is built, and cannot be copied while it holds a file open."""

    built = 0

    def __init__(self, count: int, stream: IO[str] | None = None) -> None:
        super().__init__(count)
        self.stream = stream
        Opener.built += 1

    def read(self, episode: str) -> Episode:
        if Opener.built != (parent_process() is None):
            raise DataError("built anew")
        return super().read(episode)


def test_a_source_is_built_once_and_copied(tmp_path: Path) -> None:
    Opener.built = 0
    assert import_episodes(Opener(9), tmp_path / "a.zarr", ignore, jobs=2).added == 9


def test_a_source_that_cannot_be_copied_is_read_by_one_process(tmp_path: Path) -> None:
    Opener.built = 0
    with (tmp_path / "open").open("w") as stream:
        source = Opener(4, stream)
        with pytest.raises(
            DataError,
            match=r"Opener cannot be sent to other processes \(.*\); import with --jobs 1",
        ):
            import_episodes(source, tmp_path / "a.zarr", ignore, jobs=2)
        assert import_episodes(source, tmp_path / "a.zarr", ignore).episodes == 4


def test_processes_make_the_same_store_in_the_same_order(tmp_path: Path) -> None:
    progress: list[int] = []
    import_episodes(Source(9), tmp_path / "one.zarr", ignore)
    import_episodes(
        Source(9), tmp_path / "two.zarr", lambda done, total: progress.append(done), jobs=2
    )
    assert [*contents(tmp_path / "one.zarr").items()] == [*contents(tmp_path / "two.zarr").items()]
    assert progress == [*range(1, 10)]


def test_a_damaged_episode_in_another_process_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="push/5: damaged"):
        import_episodes(Source(9, broken=["push/5"]), tmp_path / "a.zarr", ignore, jobs=2)
    assert len(EpisodeStore(tmp_path / "a.zarr")) == 5


def test_a_process_that_dies_costs_nothing_that_was_read(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"a process that reads episodes has died, at one of .*push/5.* import again",
    ):
        import_episodes(Deadly(9), tmp_path / "a.zarr", ignore, jobs=2)
    before = len(EpisodeStore(tmp_path / "a.zarr"))
    assert 1 <= before <= 5
    import_episodes(Source(9), tmp_path / "a.zarr", ignore)
    import_episodes(Source(9), tmp_path / "whole.zarr", ignore)
    assert [*contents(tmp_path / "a.zarr").items()] == [*contents(tmp_path / "whole.zarr").items()]
