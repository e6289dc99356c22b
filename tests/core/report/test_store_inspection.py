"""What an inspection of a store finds suspicious."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.episodes.episode import Episode
from core.report.store_inspection import STRETCH_FRAMES, STRETCHES, inspect
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import make_episode, make_episodes, make_info, with_actions


def store_of(path: Path, episodes: list[Episode]) -> EpisodeStore:
    with StoreWriter(path, make_info()) as writer:
        for episode in episodes:
            writer.append(episode)
    return EpisodeStore(path)


def test_nothing_is_suspicious_without_a_reason(tmp_path: Path) -> None:
    assert (
        inspect(store_of(tmp_path / "store.zarr", make_episodes(6, make_info()))).suspicions == ()
    )


def test_what_looks_wrong_is_named(tmp_path: Path) -> None:
    episodes = make_episodes(40, make_info())
    for episode in episodes:
        episode.proprio[:, 1] = 7
    episodes[3].actions[5, 0] = 1e4
    still = episodes[11].actions
    still[:] = still[0]
    single = episodes[17]
    cut = {name: frames[:1] for name, frames in single.images.items()}
    episodes[17] = replace(
        single, images=cut, actions=single.actions[:1], proprio=single.proprio[:1]
    )
    suspicions = inspect(store_of(tmp_path / "store.zarr", episodes)).suspicions
    assert len(suspicions) == 4
    assert any(
        line.startswith("action x reaches from") and "to 1e+04" in line for line in suspicions
    )
    assert "proprio p1 is 7 throughout" in suspicions
    assert f"1 episodes of a single frame: {episodes[17].id}" in suspicions
    assert f"1 episodes whose actions hardly change: {episodes[11].id}" in suspicions


def test_a_camera_that_repeats_itself_is_named(tmp_path: Path) -> None:
    episodes = make_episodes(4, make_info())
    slow = [
        replace(e, images={**e.images, "wrist": e.images["wrist"][np.arange(len(e)) // 2 * 2]})
        for e in episodes
    ]
    (suspicion,) = inspect(store_of(tmp_path / "store.zarr", slow)).suspicions
    assert suspicion.startswith("camera wrist: ")
    assert suspicion.endswith("% of the frames equal the one before")


def test_a_camera_that_stands_still_for_an_episode_is_named(tmp_path: Path) -> None:
    episodes = make_episodes(16, make_info())
    frozen = np.repeat(episodes[9].images["wrist"][:1], len(episodes[9]), axis=0)
    episodes[9] = replace(episodes[9], images={**episodes[9].images, "wrist": frozen})
    (suspicion,) = inspect(store_of(tmp_path / "store.zarr", episodes)).suspicions
    assert (
        suspicion
        == f"camera wrist: most frames equal the one before in 1 episodes: {episodes[9].id}"
    )


def test_frames_of_a_single_colour_are_named(tmp_path: Path) -> None:
    episodes = make_episodes(4, make_info())
    dark = episodes[2].images["wrist"].copy()
    dark[3], dark[7] = 0, (200, 30, 30)
    episodes[2] = replace(episodes[2], images={**episodes[2].images, "wrist": dark})
    (suspicion,) = inspect(store_of(tmp_path / "store.zarr", episodes)).suspicions
    frames = sum(map(len, episodes))
    assert (
        suspicion
        == f"camera wrist: 2 of {frames} frames are of a single colour, in {episodes[2].id}"
    )


def test_episodes_that_come_twice_are_named(tmp_path: Path) -> None:
    episodes = make_episodes(6, make_info())
    episodes[5] = with_actions(episodes[0], episodes[0].actions)
    episodes[5] = replace(episodes[5], id="again")
    (suspicion,) = inspect(store_of(tmp_path / "store.zarr", episodes)).suspicions
    assert suspicion == f"1 episodes have the very actions of another: again as {episodes[0].id}"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    """Our writer refuses them, but not in episodes that were encoded elsewhere."""
    episodes = make_episodes(4, make_info())
    with StoreWriter(tmp_path / "store.zarr", make_info()) as writer:
        encoded = [writer.encode(episode) for episode in episodes]
        encoded[1].actions[4, 2] = value
        with np.errstate(invalid="ignore"):
            writer.append_encoded(encoded[0])
            for episode in encoded[1:]:
                writer.append_encoded(episode)
            writer.commit()
    suspicions = inspect(EpisodeStore(tmp_path / "store.zarr")).suspicions
    assert f"action z is NaN or infinite in 1 episodes: {episodes[1].id}" in suspicions


def test_long_episodes_are_checked_in_stretches(tmp_path: Path) -> None:
    """Beginning, end and between, and the very last frame."""
    episode = make_episode(0, make_info(), length=2 * STRETCHES * STRETCH_FRAMES + 1)
    dark = {name: frames.copy() for name, frames in episode.images.items()}
    dark["wrist"][[0, -1]] = 0
    (suspicion,) = inspect(
        store_of(tmp_path / "store.zarr", [replace(episode, images=dark)])
    ).suspicions
    checked = (STRETCHES - 1) * STRETCH_FRAMES + 1
    assert (
        suspicion == f"camera wrist: 2 of {checked} frames are of a single colour, in {episode.id}"
    )
