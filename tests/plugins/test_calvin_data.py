"""A split of CALVIN in small: one file a frame, annotations that numpy pickled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.convert import main
from core.data.store import EpisodeStore
from core.errors import DataError
from plugins.environments.calvin import CalvinData, CalvinDataConfig

FIRST, LAST = 100, 119
SPANS = [(100, 104), (103, 110), (100, 104)]  # the first is annotated twice
TASKS, TEXTS = ["open_drawer", "turn_on_led", "open_drawer"], ["open the drawer", "switch on the led", "pull it open"]


def frame(number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    return {
        "rgb_static": random.integers(0, 255, (20, 20, 3), dtype=np.uint8),
        "rgb_gripper": random.integers(0, 255, (8, 8, 3), dtype=np.uint8),
        "rgb_tactile": random.integers(0, 255, (4, 4, 6), dtype=np.uint8),
        "actions": random.normal(size=7),
        "rel_actions": random.uniform(-1, 1, 7),
        "robot_obs": random.normal(size=15),
        "scene_obs": random.normal(size=24),
    }


@pytest.fixture
def split(tmp_path: Path) -> Path:
    (folder := tmp_path / "training").mkdir()
    for number in range(FIRST, LAST + 1):
        np.savez(folder / f"episode_{number:07d}.npz", **frame(number))
    np.save(folder / "ep_start_end_ids.npy", np.array([(FIRST, 108), (109, LAST)]))
    (folder / "lang_annotations").mkdir()
    language = {"ann": TEXTS, "task": TASKS, "emb": np.random.default_rng(0).normal(size=(3, 1, 384))}
    save_annotations(folder, {"language": language, "info": {"indx": SPANS, "episodes": []}})
    return folder


def save_annotations(folder: Path, content: Any) -> None:
    np.save(folder / "lang_annotations" / "auto_lang_ann.npy", content, allow_pickle=True)


def read(folder: Path, **config: Any) -> CalvinData:
    return CalvinData(CalvinDataConfig(**config), source=folder)


def test_annotated_stretches(split: Path) -> None:
    source = read(split)
    assert source.ids() == ["00000_0000100_0000104", "00001_0000103_0000110", "00002_0000100_0000104"]
    for (first, last), task, text, episode in zip(SPANS, TASKS, TEXTS, map(source.read, source.ids()), strict=True):
        frames = [frame(number) for number in range(first, last + 1)]
        np.testing.assert_array_equal(episode.images["static"], [f["rgb_static"] for f in frames])
        np.testing.assert_array_equal(episode.images["wrist"], [f["rgb_gripper"] for f in frames])
        np.testing.assert_array_equal(episode.actions, np.array([f["rel_actions"] for f in frames], np.float32))
        np.testing.assert_array_equal(episode.proprio, np.array([f["robot_obs"] for f in frames], np.float32))
        assert (episode.task, episode.instruction) == (task, text)


def test_play(split: Path) -> None:
    source = read(split, episodes="play", instruction="play with everything")
    assert source.ids() == ["play_0000100_0000108", "play_0000109_0000119"]
    episode = source.read("play_0000109_0000119")
    assert (len(episode), episode.instruction) == (11, "play with everything")


def test_the_conventions_are_those_of_the_simulator(split: Path) -> None:
    info = read(split).info
    assert (info.fps, info.action.mode, info.action.rotation) == (30.0, "delta", "euler_xyz")
    assert info.action.scale == (0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1.0)
    assert (info.cameras["static"].height, info.cameras["wrist"].height) == (20, 8)


def test_the_command(split: Path, tmp_path: Path) -> None:
    assert main(["calvin", str(split), str(tmp_path / "out.zarr"), "--jobs", "1"]) == 0
    store = EpisodeStore(tmp_path / "out.zarr")
    assert [store.instruction(e) for e in range(3)] == TEXTS


class Exploit:
    def __reduce__(self) -> Any:
        return (print, ("this ran",))


def test_annotations_that_would_run_code_are_refused(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_annotations(split, {"language": Exploit()})
    with pytest.raises(DataError, match=r"auto_lang_ann.npy: asks for builtins.print, which is no data .*not loaded"):
        read(split)
    assert "this ran" not in capsys.readouterr().out


def test_damage_is_named(split: Path) -> None:
    source = read(split)
    (split / "episode_0000105.npz").unlink()
    with pytest.raises(DataError, match=r"episode_0000105.npz: not there, and the episodes listed need it"):
        source.read(source.ids()[1])
    (split / "episode_0000103.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"episode_0000103.npz: damaged"):
        source.read(source.ids()[1])
    np.savez(split / "episode_0000103.npz", **{**frame(103), "rel_actions": np.zeros(6)})
    with pytest.raises(DataError, match=r"episode_0000103.npz: holds .*expected pictures, rel_actions \(7\)"):
        source.read(source.ids()[1])
    path = split / "lang_annotations" / "auto_lang_ann.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"auto_lang_ann.npy: damaged"):
        read(split)
    save_annotations(split, {"language": {}})
    with pytest.raises(DataError, match=r"auto_lang_ann.npy: lacks language and info"):
        read(split)
    path.unlink()
    with pytest.raises(DataError, match=r"auto_lang_ann.npy: not there; name a split's"):
        read(split)
