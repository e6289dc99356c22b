"""What the command shows of a store, and what it finds suspicious."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.data.contracts import Episode
from core.data.inspection import inspect
from core.data.show import main
from core.data.store import EpisodeStore
from core.data.writer import StoreWriter
from tests.factories import make_episodes, make_info, make_store


def store_of(path: Path, episodes: list[Episode]) -> EpisodeStore:
    with StoreWriter(path, make_info()) as writer:
        for episode in episodes:
            writer.append(episode)
    return EpisodeStore(path)


def test_a_store_and_its_meaning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store.zarr")
    assert main([str(store.path)]) == 0
    shown = capsys.readouterr().out
    for said in (
        f"{store.path}: 6 episodes, {store.frame_count} frames; made for tests",
        "camera wrist: 32 x 32, 10 Hz",
        "camera wrist is stored as jpeg",
        "3 gripper: 1.0 is 1, binary gripper: -1 closed, 1 open",
        "proprioception: p0, p1, p2",
        "proprio p2",
    ):
        assert said in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["reach", "3", "39", "11", "15", "1"] in rows
    assert ["push", "3", "37", "11", "14", "1"] in rows
    mean = store.statistics["action"].mean[0]
    assert any(row[:2] == ["action", "x"] and row[4] == f"{mean:.4g}" for row in rows)


def test_an_empty_place_and_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing.zarr")]) == 1
    assert "no episode store here" in capsys.readouterr().err


def test_nothing_is_suspicious_without_a_reason(tmp_path: Path) -> None:
    assert inspect(store_of(tmp_path / "store.zarr", make_episodes(6, make_info()))).suspicions == ()


def test_what_looks_wrong_is_named(tmp_path: Path) -> None:
    episodes = make_episodes(40, make_info())
    for episode in episodes:
        episode.proprio[:, 1] = 7
    episodes[3].actions[5, 0] = 1e4
    still = episodes[11].actions
    still[:] = still[0]
    single = episodes[17]
    cut = {name: frames[:1] for name, frames in single.images.items()}
    episodes[17] = replace(single, images=cut, actions=single.actions[:1], proprio=single.proprio[:1])
    found = inspect(store_of(tmp_path / "store.zarr", episodes)).suspicions
    assert len(found) == 4
    assert any(line.startswith("action x reaches from") and "to 1e+04" in line for line in found)
    assert "proprio p1 is 7 throughout" in found
    assert f"1 episodes of a single frame: {episodes[17].id}" in found
    assert f"1 episodes whose actions hardly change: {episodes[11].id}" in found


def test_a_camera_that_repeats_itself_is_named(tmp_path: Path) -> None:
    episodes = make_episodes(4, make_info())
    slow = [replace(e, images={**e.images, "wrist": e.images["wrist"][np.arange(len(e)) // 2 * 2]}) for e in episodes]
    (found,) = inspect(store_of(tmp_path / "store.zarr", slow)).suspicions
    assert found.startswith("camera wrist: ")
    assert found.endswith("% of the frames equal the one before")
