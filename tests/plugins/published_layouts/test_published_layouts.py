"""Five layouts in which the field publishes its data, from nothing to 20 steps of training.

The datasets are written without Joinery. The commands and mappings are those of docs/importing.md.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numcodecs.blosc import Blosc

from core import cli
from core.episodes import Episode, Gripper
from core.store.store import EpisodeStore
from tests.plugins.published_layouts import datasets
from tests.plugins.published_layouts.checks import assert_imported, assert_trained, episode_of
from tests.plugins.published_layouts.commands import run_commands, train_small
from tests.plugins.published_layouts.demonstrations import Demonstration


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which the commands are typed."""
    monkeypatch.chdir(tmp_path)


def expected_as_usual(
    demonstrations: list[Demonstration], cameras: dict[str, str]
) -> list[Episode]:
    """With LeRobot's columns for actions and proprioception, whole; cameras: {name: column}."""
    expected = []
    for number, told in enumerate(demonstrations):
        images = {name: told.images[key] for name, key in cameras.items()}
        expected.append(episode_of(number, told, images=images))
    return expected


def test_libero_in_the_format_of_lerobot() -> None:
    demonstrations = datasets.write_libero()
    run_commands("LIBERO in LeRobot's format")
    cameras = {"front": "observation.images.image", "wrist": "observation.images.image2"}
    expected = expected_as_usual(demonstrations, cameras)
    store = EpisodeStore(Path("libero.zarr"))
    assert_imported(store, expected)
    assert store.info.proprio == (*datasets.POSE, "left_finger", "right_finger")
    assert store.info.action.names == (*datasets.POSE, "gripper")
    assert (store.info.fps, dict(store.info.assumed)) == (10.0, {})
    assert_trained(Path("runs/libero"), expected, held_out=[3, 4, 5])


def test_the_schema_of_gr00t() -> None:
    demonstrations = datasets.write_pick_n_place()
    run_commands("GR00T's schema")
    parts = json.loads(Path("pick_n_place/meta/modality.json").read_text())["action"]
    named = ("left_arm", "left_hand", "right_arm", "right_hand")
    arms = [i for part in named for i in range(parts[part]["start"], parts[part]["end"])]
    expected = [
        episode_of(
            number,
            told,
            proprio=told.columns["observation.state"][:, arms],
            actions=told.columns["action"][:, arms],
            images={"ego_view": told.images["observation.images.ego_view"]},
        )
        for number, told in enumerate(demonstrations)
    ]
    store = EpisodeStore(Path("pick_n_place.zarr"))
    assert_imported(store, expected)
    assert store.info.proprio == store.info.action.names == tuple(f"motor_{i}" for i in arms)
    assert (store.info.fps, store.info.action.frame) == (20.0, "joint")
    assert_trained(Path("runs/pick_n_place"), expected, held_out=[3, 4, 5])


def expected_of_bridge(demonstrations: list[Demonstration]) -> list[Episode]:
    """As the page maps them: the state without the number that is always zero."""
    return [
        episode_of(
            number,
            told,
            proprio=told.columns["observation.state"][:, [0, 1, 2, 3, 4, 5, 7]],
            images={"front": told.images["observation.images.image_0"]},
            task="drawer" if "drawer" in told.instruction else "",
        )
        for number, told in enumerate(demonstrations)
    ]


def test_bridge_with_an_instruction_for_each_episode() -> None:
    expected = expected_of_bridge(datasets.write_bridge())
    run_commands("Bridge, with an instruction for each episode")
    store = EpisodeStore(Path("bridge.zarr"))
    assert_imported(store, expected)
    assert len({episode.instruction for episode in expected}) == 40
    assert len({episode.task for episode in expected}) == 39
    assert_trained(Path("runs/bridge"), expected, held_out=[9, 19, 29, 39])


def test_forty_instructions_without_a_mapping(capsys: pytest.CaptureFixture[str]) -> None:
    """Each instruction is then a task, and the last episode of all is held out by default."""
    demonstrations = datasets.write_bridge()
    assert cli.main(["import", "lerobot", "bridge", "bridge.zarr", "--jobs", "1"]) == 0
    cameras = {"image_0": "observation.images.image_0"}
    expected = expected_as_usual(demonstrations, cameras)
    store = EpisodeStore(Path("bridge.zarr"))
    assert_imported(store, expected)
    assert {"mode", "frame"} <= {*store.info.assumed}
    fitting = ("data.path=bridge.zarr", "action.mode=absolute", "action.gripper=none")
    train_small(*fitting, "--output", "runs/bridge")
    assert "validation: 1 of 40 episodes, of 1 task" in capsys.readouterr().out
    assert_trained(Path("runs/bridge"), expected, held_out=[39])


def test_a_pair_of_arms_whose_videos_have_another_rate() -> None:
    demonstrations = datasets.write_aloha()
    run_commands("A pair of arms, as ALOHA")
    expected, places = [], set()
    for number, told in enumerate(demonstrations):
        nearest = np.rint(told.times * 30).astype(int)
        places |= {*(nearest % 3).tolist()}
        images = {
            name: told.images[f"observation.images.cam_{name}"][nearest]
            for name in ("high", "left_wrist", "right_wrist")
        }
        expected.append(episode_of(number, told, images=images))
    store = EpisodeStore(Path("aloha.zarr"))
    assert_imported(store, expected)
    assert places == {0, 1, 2}  # not merely every third image
    assert store.info.proprio == store.info.action.names == datasets.ARMS
    grippers = [gripper.dimension for gripper in store.info.action.grippers]
    assert [datasets.ARMS[d] for d in grippers] == ["left_gripper", "right_gripper"]
    assert_trained(Path("runs/aloha"), expected, held_out=[3])


def expected_of_umi(demonstrations: list[Demonstration]) -> list[Episode]:
    """The pose of the hand and the gripper's width are the actions, too."""
    names = ("robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width")
    expected = []
    for number, told in enumerate(demonstrations):
        pose = np.hstack([told.columns[name] for name in names])
        images = {"wrist": told.images["camera0_rgb"]}
        expected.append(episode_of(number, told, proprio=pose, actions=pose, images=images))
    return expected


def test_a_replay_buffer_without_an_array_of_actions() -> None:
    expected = expected_of_umi(datasets.write_umi(Blosc("zstd")))
    run_commands("A replay buffer, as UMI")
    store = EpisodeStore(Path("umi.zarr"))
    assert_imported(store, expected)
    assert store.info.action.names == ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert store.info.action.grippers == (Gripper(6, "continuous", closed=0.0, open=0.08),)
    assert (store.info.fps, dict(store.info.assumed)) == (59.94, {})
    assert_trained(Path("runs/umi"), expected, held_out=[3])


def test_a_replay_buffer_whose_images_are_jpeg_xl() -> None:
    """As UMI's own are, though these lose nothing, so that they can be compared."""
    codecs = pytest.importorskip("imagecodecs.numcodecs", reason="needs imagecodecs")
    codecs.register_codecs(verbose=False)
    jpeg_xl = codecs.Jpegxl(lossless=True, numthreads=1)
    expected = expected_of_umi(datasets.write_umi(jpeg_xl))
    run_commands("A replay buffer, as UMI", train=False)
    assert_imported(EpisodeStore(Path("umi.zarr")), expected)
