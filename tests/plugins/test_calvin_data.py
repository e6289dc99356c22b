"""A small split of CALVIN: one file per frame, and annotations that numpy pickled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from core.commands.import_ import main
from core.errors import DataError
from core.store.store import EpisodeStore
from plugins.environments.calvin import CalvinData, CalvinDataConfig
from plugins.environments.calvin.dataset import ANNOTATIONS, PLAY
from tests.damage import FUZZ, bounded, overwrite, read_all

FIRST, LAST = 100, 119
SPANS = [(100, 104), (103, 110), (100, 104)]  # the first is annotated twice
TASKS, TEXTS = (
    ["open_drawer", "turn_on_led", "open_drawer"],
    ["open the drawer", "switch on the led", "pull it open"],
)


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
    return write(tmp_path / "training")


def write(folder: Path) -> Path:
    folder.mkdir()
    for number in range(FIRST, LAST + 1):
        np.savez(folder / f"episode_{number:07d}.npz", **frame(number))
    np.save(folder / "ep_start_end_ids.npy", np.array([(FIRST, 108), (109, LAST)]))
    (folder / "lang_annotations").mkdir()
    language = {
        "ann": TEXTS,
        "task": TASKS,
        "emb": np.random.default_rng(0).normal(size=(3, 1, 384)),
    }
    save_annotations(folder, {"language": language, "info": {"indx": SPANS, "episodes": []}})
    return folder


def save_annotations(folder: Path, content: Any) -> None:
    np.save(folder / "lang_annotations" / "auto_lang_ann.npy", content, allow_pickle=True)


def read(folder: Path, **config: Any) -> CalvinData:
    return CalvinData(CalvinDataConfig(**config), source=folder)


def test_annotated_stretches(split: Path) -> None:
    source = read(split)
    assert source.ids() == [
        "00000_0000100_0000104",
        "00001_0000103_0000110",
        "00002_0000100_0000104",
    ]
    for (first, last), task, text, episode in zip(
        SPANS, TASKS, TEXTS, map(source.read, source.ids()), strict=True
    ):
        frames = [frame(number) for number in range(first, last + 1)]
        np.testing.assert_array_equal(episode.images["static"], [f["rgb_static"] for f in frames])
        np.testing.assert_array_equal(episode.images["wrist"], [f["rgb_gripper"] for f in frames])
        np.testing.assert_array_equal(
            episode.actions, np.array([f["rel_actions"] for f in frames], np.float32)
        )
        np.testing.assert_array_equal(
            episode.proprio, np.array([f["robot_obs"] for f in frames], np.float32)
        )
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


def test_damage_is_named(split: Path) -> None:
    source = read(split)
    (split / "episode_0000105.npz").unlink()
    with pytest.raises(
        DataError, match=r"episode_0000105.npz: cannot be read \(No such file or directory\)"
    ):
        source.read(source.ids()[1])
    (split / "episode_0000103.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"episode_0000103.npz: damaged"):
        source.read(source.ids()[1])
    np.savez(split / "episode_0000103.npz", **{**frame(103), "rel_actions": np.zeros(6)})
    with pytest.raises(
        DataError, match=r"episode_0000103.npz: holds .*expected pictures, rel_actions \(7\)"
    ):
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


def test_the_first_frame_that_can_be_read_describes_the_others(split: Path) -> None:
    (split / "episode_0000100.npz").write_bytes(b"PK nothing")
    actual = read_all(read(split))
    assert [isinstance(content, bytes) for content in actual.values()] == [False, True, False]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 10**15)], "lists frames 0 to 1000000000000000, which cannot be"),
        ([(0, 9_000_000), (0, 9_000_000)], "which cannot be"),
        ([(0, 10**7)], "which cannot be"),  # the last of them has a number of eight digits
        ([(5, 3)], "lists frames 5 to 3"),
        ([1, 2], r"int64 \(2,\), expected the first and the last frame"),
        ([(0.5, 2.5)], r"float64 \(1, 2\), expected"),
    ],
)
def test_recordings_that_cannot_be(split: Path, spans: Any, message: str) -> None:
    np.save(split / "ep_start_end_ids.npy", np.array(spans))
    with bounded(), pytest.raises(DataError, match=f"ep_start_end_ids.npy: .*{message}"):
        read(split, episodes="play")


def test_a_recording_is_cut_into_stretches_that_hold_each_frame_once(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last frame of a recording belongs to it, and a full split has 10,000,000 frames."""
    monkeypatch.setattr("plugins.environments.calvin.dataset.MAX_LENGTH", 4)
    monkeypatch.setattr("plugins.environments.calvin.dataset.MAX_FRAMES", LAST + 1 - FIRST)
    source = read(split, episodes="play")
    assert [len(source.read(name)) for name in source.ids()] == [4, 4, 1, 4, 4, 3]
    monkeypatch.setattr("plugins.environments.calvin.dataset.MAX_FRAMES", LAST - FIRST)
    with pytest.raises(DataError, match="lists frames 100 to 119, which cannot be"):
        read(split, episodes="play")


def test_an_annotated_stretch_is_no_whole_recording(split: Path) -> None:
    language = {"ann": TEXTS, "task": TASKS}
    save_annotations(
        split, {"language": language, "info": {"indx": [SPANS[0], (100, 10**12), (104, 100)]}}
    )
    actual = [*read_all(read(split)).values()]
    assert isinstance(actual[0], bytes)
    assert "has 999,999,999,901 frames, expected 1 to 1,000" in str(actual[1])
    assert "has -3 frames" in str(actual[2])


@FUZZ
@given(
    file=st.sampled_from((str(ANNOTATIONS), str(PLAY))),
    at=st.floats(0, 1),
    value=st.binary(min_size=1, max_size=8),
)
def test_damaged_lists_are_an_error_in_one_line(
    split: Path, file: str, at: float, value: bytes
) -> None:
    whole = (split / file).read_bytes()
    overwrite(split / file, at, value)
    message = ""
    with bounded():
        try:
            read_all(read(split, episodes="play" if file == str(PLAY) else "language"))
        except DataError as error:
            message = str(error)
    assert len(message.splitlines()) <= 1
    (split / file).write_bytes(whole)
