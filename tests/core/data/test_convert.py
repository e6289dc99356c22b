from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from core.data.contracts import Episode
from core.data.convert import import_episodes, main
from core.data.store import EpisodeStore
from core.errors import DataError
from tests.factories import make_episodes, make_info


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
    summary = import_episodes(Source(5), tmp_path / "a.zarr", lambda done, total: progress.append((done, total)))
    assert progress == [(i, 5) for i in range(1, 6)]
    size = sum(file.stat().st_size for file in (tmp_path / "a.zarr").rglob("*") if file.is_file())
    assert (summary.added, summary.episodes, summary.frames, summary.bytes) == (5, 5, 11 + 12 + 13 + 14 + 15, size)
    assert "5 episodes, 65 frames" in str(summary)
    assert "front zstd, wrist jpeg" in str(summary)


def test_an_import_goes_on_with_what_is_new(tmp_path: Path) -> None:
    import_episodes(Source(3), tmp_path / "a.zarr", nowhere)
    source = Source(5)
    summary = import_episodes(source, tmp_path / "a.zarr", nowhere)
    assert source.reads == ["push/3", "reach/4"]
    assert (summary.added, summary.episodes) == (2, 5)


def test_a_damaged_episode_stops_the_import_and_can_be_mended(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reach/2: damaged"):
        import_episodes(Source(4, broken=["reach/2"]), tmp_path / "a.zarr", nowhere)
    import_episodes(Source(4), tmp_path / "a.zarr", nowhere)
    store = EpisodeStore(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.actions(2, 0, 13), Source(4).episodes["reach/2"].actions)


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no episodes"):
        import_episodes(Source(0), tmp_path / "a.zarr", nowhere)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["metaworld"], 2, "no dataset is called 'metaworld'; did you mean 'metaworld_npz'?"),
        (["metaworld_npz", "cam=top"], 2, "unknown key"),
        (["metaworld_npz", "camera"], 2, "expected key=value"),
        (["metaworld_npz"], 1, "holds no .npz files"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    name, *settings = arguments
    assert main([name, str(tmp_path), str(tmp_path / "a.zarr"), *settings]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
