"""HDF5 files laid out as robomimic and LIBERO write them, through h5py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from core.commands.import_ import main
from core.episodes.correction import ConventionOverride
from core.errors import ConfigError, DataError
from core.store.store import EpisodeStore
from plugins.datasets.robomimic import Robomimic, RobomimicConfig
from tests.damage import FUZZ, bounded, overwrite, read_all

h5py = pytest.importorskip("h5py", reason="needs h5py (pip install -e '.[robomimic]')")

OSC = {
    "type": "OSC_POSE",
    "input_max": 1,
    "output_max": [0.04, 0.04, 0.04, 0.3, 0.3, 0.3],
    "control_delta": True,
}
LIFT = {
    "env_name": "Lift",
    "type": 1,
    "env_kwargs": {"control_freq": 10, "controller_configs": OSC},
}
DEMOS = ("demo_0", "demo_2", "demo_10")


def demonstration(number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    n = 5 + number
    return {
        "actions": random.uniform(-1, 1, (n, 7)),
        "obs/agentview_image": random.integers(0, 255, (n, 12, 16, 3), dtype=np.uint8),
        "obs/robot0_eef_pos": random.normal(size=(n, 3)),
        "obs/robot0_eef_quat": random.normal(size=(n, 4)),
        "obs/robot0_gripper_qpos": random.normal(size=(n, 2)),
    }


def write(path: Path, environment: dict[str, Any] = LIFT, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, value in {"env_args": environment, **attributes}.items():
            data.attrs[name] = json.dumps(value)
        for number, demo in enumerate(DEMOS):
            for key, array in demonstration(number).items():
                data.create_dataset(f"{demo}/{key}", data=array, compression="gzip")
            data[demo].attrs["num_samples"] = 5 + number
    return path


def read(path: Path, **config: Any) -> Robomimic:
    return Robomimic(RobomimicConfig(**config), source=path)


def test_demonstrations_are_read_as_written_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    source = read(write(tmp_path / "lift.hdf5"), instruction="lift the cube")
    assert source.ids() == [f"lift/{demo}" for demo in DEMOS]
    for number, episode in enumerate(map(source.read, source.ids())):
        written = demonstration(number)
        np.testing.assert_array_equal(
            episode.images["agentview_image"], written["obs/agentview_image"]
        )
        np.testing.assert_allclose(episode.actions, written["actions"], rtol=1e-6)
        state = [written[f"obs/robot0_{key}"] for key in ("eef_pos", "eef_quat", "gripper_qpos")]
        np.testing.assert_allclose(episode.proprio, np.concatenate(state, axis=1), rtol=1e-6)
        assert (episode.task, episode.instruction) == ("lift", "lift the cube")


def test_the_conventions_are_those_of_the_controller(tmp_path: Path) -> None:
    info = read(write(tmp_path / "lift.hdf5"), instruction="lift").info
    assert (info.fps, info.action.mode, info.action.rotation) == (10.0, "delta", "axis_angle")
    assert info.action.scale == (0.04, 0.04, 0.04, 0.3, 0.3, 0.3, 1.0)
    (gripper,) = info.action.grippers
    assert (gripper.dimension, gripper.closed, gripper.open) == (6, 1.0, -1.0)
    assert info.proprio[:4] == (
        "robot0_eef_pos_0",
        "robot0_eef_pos_1",
        "robot0_eef_pos_2",
        "robot0_eef_quat_0",
    )
    absolute = {"env_kwargs": {"controller_configs": OSC | {"control_delta": False}}}
    action = read(write(tmp_path / "absolute.hdf5", absolute), instruction="lift").info.action
    assert (action.mode, action.frame, action.scale[0], action.rate) == (
        "absolute",
        "world",
        1.0,
        20.0,
    )
    joints = {"env_kwargs": {"controller_configs": OSC | {"type": "JOINT_POSITION"}}}
    action = read(write(tmp_path / "joints.hdf5", joints), instruction="lift").info.action
    assert (action.frame, action.rotation, action.grippers) == ("joint", "none", ())


@pytest.mark.parametrize(
    ("settings", "mode", "frame"),
    [
        ({}, "delta", "base"),
        ({"input_type": "absolute"}, "absolute", "base"),
        ({"input_ref_frame": "world"}, "delta", "world"),
    ],
)
def test_the_conventions_since_robosuite_1_5(
    tmp_path: Path, settings: dict[str, str], mode: str, frame: str
) -> None:
    arm = {"type": "OSC_POSE", "output_max": 0.05, "gripper": {"type": "GRIP"}, **settings}
    environment = {
        "env_kwargs": {"controller_configs": {"type": "BASIC", "body_parts": {"right": arm}}}
    }
    action = read(write(tmp_path / "lift.hdf5", environment), instruction="lift").info.action
    assert (action.mode, action.frame, action.rotation) == (mode, frame, "axis_angle")
    assert action.scale == (*(0.05 if mode == "delta" else 1.0 for _ in range(6)), 1.0)


def test_other_actions_than_the_controllers_are_not_taken_for_them(tmp_path: Path) -> None:
    path = write(tmp_path / "lift.hdf5")
    with h5py.File(path, "a") as file:
        for demo in DEMOS:
            file[f"data/{demo}/actions_abs"] = file[f"data/{demo}/actions"][()]
    action = read(path, action="actions_abs", instruction="lift").info.action
    assert (action.mode, action.rotation, action.scale) == ("absolute", "none", (1.0,) * 7)


def test_where_the_instruction_is_found(tmp_path: Path) -> None:
    libero = write(
        tmp_path / "a.hdf5", problem_info={"language_instruction": ["open", "the", "drawer"]}
    )
    assert read(libero).read("a/demo_0").instruction == "open the drawer"
    named = write(tmp_path / "KITCHEN_SCENE10_put_the_bowl_away_demo.hdf5", LIFT)
    source = read(named)
    assert source.read(source.ids()[0]).instruction == "put the bowl away"
    with h5py.File(named, "a") as file:
        file["data/demo_2"].attrs["ep_meta"] = json.dumps({"lang": "pick the apple"})
    assert read(named).read(source.ids()[1]).instruction == "pick the apple"
    with pytest.raises(DataError, match="does not say what the robot is told; say instruction"):
        read(write(tmp_path / "image.hdf5")).read("image/demo_0")


def test_images_that_are_upside_down(tmp_path: Path) -> None:
    write(tmp_path / "lift.hdf5")
    written = demonstration(0)["obs/agentview_image"]
    config = {"instruction": "lift", "cameras": {"front": "agentview_image"}}
    flipped = read(tmp_path, flip=True, **config).read("lift/demo_0").images["front"]
    np.testing.assert_array_equal(flipped, written[:, ::-1])
    with h5py.File(tmp_path / "lift.hdf5", "a") as file:
        file["data"].attrs["macros_image_convention"] = "opengl"  # as in LIBERO's files
    np.testing.assert_array_equal(
        read(tmp_path, **config).read("lift/demo_0").images["front"], written[:, ::-1]
    )
    np.testing.assert_array_equal(
        read(tmp_path, flip=False, **config).read("lift/demo_0").images["front"], written
    )


def test_a_folder_of_files_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "libero").mkdir()
    for name in ("open_the_drawer_demo", "close_the_drawer_demo"):
        write(tmp_path / "libero" / f"{name}.hdf5")
    assert (
        main(["robomimic", str(tmp_path / "libero"), str(tmp_path / "out.zarr"), "--jobs", "1"])
        == 0
    )
    store = EpisodeStore(tmp_path / "out.zarr")
    assert [store.task_name(e) for e in range(6)] == ["close_the_drawer"] * 3 + [
        "open_the_drawer"
    ] * 3


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"cameras": {"front": "agentview"}}, ConfigError, "did you mean 'agentview_image'"),
        ({"proprio": ("robot0_joint",)}, ConfigError, "there is no dataset 'robot0_joint'"),
        ({"action": "action"}, ConfigError, "there is no dataset 'action'; did you mean 'actions'"),
    ],
)
def test_missing_cameras_observations_and_actions(
    tmp_path: Path, config: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(write(tmp_path / "lift.hdf5"), **config)


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no demonstrations"):
        read(tmp_path)
    (tmp_path / "text.hdf5").write_text("nothing")
    with pytest.raises(DataError, match=r"text.hdf5: cannot be read"):
        read(tmp_path)
    with h5py.File(tmp_path / "vacant.hdf5", "w") as file:
        file.create_group("data")
    with pytest.raises(
        DataError, match=r"none of 2 can be read; the first: .*text.hdf5: cannot be read"
    ):
        read(tmp_path)


def test_files_that_cannot_be_listed_are_one_episode_each(tmp_path: Path) -> None:
    (tmp_path / "a.hdf5").write_text("nothing")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file.create_group("data")
    write(tmp_path / "lift.hdf5")
    source = read(tmp_path, instruction="lift")
    assert source.ids() == ["a.hdf5", "b.hdf5", *(f"lift/{demo}" for demo in DEMOS)]
    with pytest.raises(DataError, match=r"a.hdf5: cannot be read"):
        source.read("a.hdf5")
    with pytest.raises(DataError, match=r"b.hdf5: holds no demonstrations"):
        source.read("b.hdf5")
    assert list(source.info.cameras) == ["agentview_image"]


def test_a_first_file_that_lacks_something_is_no_mistake_in_the_settings(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 7))
        file["data/demo_1/obs/agentview_image"] = demonstration(0)["obs/agentview_image"]
    write(tmp_path / "lift.hdf5")
    found = read_all(read(tmp_path, instruction="lift"))
    assert "a.hdf5, demo_0: has no 'agentview_image'; known: actions" in str(found["a/demo_0"])
    assert "a.hdf5, demo_1: has no 'actions'; known: agentview_image" in str(found["a/demo_1"])
    assert all(isinstance(found[f"lift/{demo}"], bytes) for demo in DEMOS)


def test_files_whose_episodes_would_have_the_same_names(tmp_path: Path) -> None:
    for name in ("lift.h5", "lift.hdf5"):
        write(tmp_path / name)
    with pytest.raises(
        DataError, match=r"lift.hdf5: an episode 'lift/demo_0' is in .*lift.h5, too"
    ):
        read(tmp_path)


def test_a_demonstration_that_lacks_something(tmp_path: Path) -> None:
    path = write(tmp_path / "lift.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_2/obs/robot0_eef_pos"]
    source = read(path, instruction="lift")
    with pytest.raises(
        DataError, match=r"lift.hdf5, demo_2: has no 'robot0_eef_pos'; did you mean"
    ):
        source.read("lift/demo_2")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            {"shape": (10**12, 7), "chunks": (1000, 7)},
            r"actions: says that it holds 56,000,000,000,000 bytes",
        ),
        (
            {"shape": (10**12, 7), "chunks": (1000, 7), "compression": "gzip"},
            r"says that it holds 56,000,000,000,000",
        ),
        ({"shape": (10**12, 7)}, r"says that it holds 56,000,000,000,000 bytes, and 0 are there"),
        (
            {"shape": (5, 7), "chunks": (1, 7), "compression": "gzip"},
            r"actions: lacks 5 of 5 chunks; copy it again",
        ),
        ({"shape": (5, 7)}, r"says that it holds 280 bytes, and 0 are there"),
        ({"data": ["left"] * 5}, r"actions: holds text, expected numbers"),
        ({"data": 1.0}, r"actions: float64 \(\), expected numbers of 6 frames"),
        ({"shape": (5, 7), "external": [("/dev/zero", 0, 280)]}, r"its values lie in other files"),
    ],
)
def test_claims_without_data_are_refused(
    tmp_path: Path, dataset: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "lift.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_2/actions"]
        file["data/demo_2"].create_dataset(
            "actions", **({"dtype": "f8"} if "shape" in dataset else {}), **dataset
        )
    source = read(path, instruction="lift")
    with bounded(), pytest.raises(DataError, match=message):
        source.read("lift/demo_2")


@FUZZ
@given(at=st.floats(0, 1), value=st.binary(min_size=1, max_size=8))
def test_damage_anywhere_is_an_error_in_one_line(tmp_path: Path, at: float, value: bytes) -> None:
    overwrite(path := write(tmp_path / "lift.hdf5"), at, value)
    message = ""
    with bounded():
        try:
            read_all(read(path, instruction="lift"))
        except (DataError, ConfigError) as error:
            message = str(error)
    assert len(message.splitlines()) <= 1


def test_what_the_file_does_not_say_is_assumed(tmp_path: Path) -> None:
    """OpenVLA's regenerated LIBERO files have no attributes; their images are upside down."""
    path = tmp_path / "KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5"
    with h5py.File(path, "w") as file:
        file["data/demo_0/actions"] = np.zeros((5, 7))
        file["data/demo_0/obs/agentview_rgb"] = np.zeros((5, 8, 8, 3), np.uint8)
    source = read(path)
    assert {"mode", "frame", "scale", "fps", "rows of images"} <= source.info.assumed.keys()
    assert "say flip = true or false" in source.info.assumed["rows of images"]
    told = read(path, flip=True, meaning=ConventionOverride(mode="delta", frame="world"))
    assert {"mode", "frame", "rows of images"}.isdisjoint(told.info.assumed)


def test_a_controller_that_contradicts_itself_is_unknown(tmp_path: Path) -> None:
    """It is no reason to refuse the file: `meaning` says what it means, and its rate counts."""
    odd = {"env_kwargs": {"control_freq": 25, "controller_configs": {**OSC, "output_max": "far"}}}
    info = read(write(tmp_path / "lift.hdf5", odd), instruction="lift").info
    assert "env_args describes no controller (could not convert" in info.assumed["mode"]
    assert (info.fps, "fps" in info.assumed) == (25.0, False)
    meaning = ConventionOverride(mode="delta")
    told = read(tmp_path / "lift.hdf5", instruction="lift", meaning=meaning).info
    assert (told.action.mode, told.action.rate) == ("delta", 25.0)
    assert "mode" not in told.assumed


@pytest.mark.parametrize("rate", ["fast", -5, 0, float("inf"), float("nan")])
def test_a_control_rate_that_cannot_be_is_assumed(tmp_path: Path, rate: object) -> None:
    odd = {"env_kwargs": {"control_freq": rate, "controller_configs": OSC}}
    info = read(write(tmp_path / "lift.hdf5", odd), instruction="lift").info
    assert f"the file says a rate of {rate!r}; 20 is robosuite's" in info.assumed["fps"]
    assert (info.fps, info.action.mode) == (20.0, "delta")
    assert read(tmp_path / "lift.hdf5", instruction="lift", fps=10.0).info.action.rate == 10.0


def test_an_attribute_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "lift.hdf5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = "{'env_name': 'Lift'}"
    with pytest.raises(DataError, match=r"lift.hdf5, /data: the attribute 'env_args' is no JSON"):
        read(path, instruction="lift")
    with h5py.File(path, "a") as file:
        del file["data"].attrs["env_args"]
    assert len(read(path, instruction="lift").read("lift/demo_0")) == 5


def test_the_rate_of_a_known_controller_can_be_corrected(tmp_path: Path) -> None:
    silent = {"env_kwargs": {"controller_configs": OSC}}
    info = read(write(tmp_path / "lift.hdf5", silent), instruction="lift", fps=12.0).info
    assert (info.fps, info.action.rate, "fps" in info.assumed) == (12.0, 12.0, False)


def test_two_arms_with_a_known_controller(tmp_path: Path) -> None:
    path = tmp_path / "two.hdf5"
    settings = {"control_freq": 20, "controller_configs": {"type": "OSC_POSE"}}
    with h5py.File(path, "w") as file:
        file["data/demo_0/actions"] = np.zeros((5, 14))
        file["data/demo_0/obs/front"] = np.zeros((5, 8, 8, 3), np.uint8)
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": settings})
    action = read(path, instruction="lift").info.action
    assert (action.mode, action.frame, action.rate) == ("delta", "world", 20.0)
    assert [gripper.dimension for gripper in action.grippers] == [6, 13]
    assert action.names[7] == "robot1_x"


def test_floats_in_the_unit_range_are_not_black(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        for demo in ("demo_0", "demo_1"):
            file[f"data/{demo}/actions"] = np.zeros((5, 7))
            file[f"data/{demo}/obs/front"] = (images / 255).astype(np.float32)
    source = read(path, instruction="lift")
    for name in source.ids():
        np.testing.assert_array_equal(source.read(name).images["front"], images)


def test_a_filter_key_and_attributes_choose_the_demonstrations(tmp_path: Path) -> None:
    path = write(tmp_path / "lift.hdf5")
    with h5py.File(path, "a") as file:
        file["mask/valid"] = np.array([b"demo_2", b"demo_0"])
        for number, demo in enumerate(DEMOS):
            file[f"data/{demo}"].attrs["success"] = number > 0
    names = [f"lift/{demo}" for demo in DEMOS]
    chosen = read(path, instruction="lift", mask="valid").ids()
    assert chosen == [name for name in names if name in ("lift/demo_0", "lift/demo_2")]
    assert read(path, instruction="lift", where=("success == true",)).ids() == names[1:]
    with pytest.raises(ConfigError, match="no file has the filter key 'train'"):
        read(path, instruction="lift", mask="train")


def test_another_layout_names_its_own_format(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file["action"] = np.zeros((5, 14))
        file["observations/qpos"] = np.zeros((5, 14))
    source_errors = read_all_errors(tmp_path / "episode_0.hdf5")
    assert "holds action, observations" in source_errors
    assert "are imported as hdf5" in source_errors


def read_all_errors(path: Path) -> str:
    with pytest.raises(DataError) as error_info:
        read(path, instruction="lift")
    return str(error_info.value)
