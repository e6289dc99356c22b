"""A dataset's configuration of the scene names no code: calvin_env would call what it names."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from core.errors import DataError
from plugins.environments.calvin import Calvin, CalvinConfig
from plugins.environments.calvin.chains import read_chains
from plugins.environments.calvin.scene import CLASSES, scene_of_dataset
from tests import calvin_stand_in

ROBOT = CLASSES["robot",]
# what calvin_env's own configurations say, and what hydra added when the data were recorded
SCENE = {
    "data_path": "data",
    "save_dir": "/tmp/recordings",
    "hydra": {"run": {"dir": "${save_dir}/${now:%Y-%m-%d}"}, "launcher": {"_target_": "os.system"}},
    "robot": {
        "_target_": ROBOT,
        "base_position": "${scene.robot_base_position}",
        "max_velocity": 2,
        "euler_obs": True,
    },
    "scene": {
        "_target_": CLASSES["scene",],
        "_recursive_": False,
        "data_path": "${data_path}",
        "euler_obs": "${robot.euler_obs}",
        "robot_base_position": [-0.34, -0.46, 0.24],
        "objects": {
            "movable_objects": {"block": {"file": "blocks/pink.urdf", "initial_pos": "any"}}
        },
    },
    "cameras": {
        name: {"_target_": target, "width": 200, "height": 200, "name": name}
        for name, target in {
            "static": CLASSES["cameras", "static"],
            "gripper": CLASSES["cameras", "gripper"],
            "tactile": "calvin_env.camera.tactile_sensor.TactileSensor",
        }.items()
    },
}


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    names = sorted({task for chain in read_chains() for task in chain.tasks})
    calvin_stand_in.install(monkeypatch, tmp_path, names)
    return tmp_path / "training"


def write(dataset: Path, content: Any) -> None:
    calvin_stand_in.write_yaml(dataset / ".hydra" / "merged_config.yaml", content)


def changed(place: str, value: Any) -> dict[str, Any]:
    """The scene with another value at a place, "robot.base_position" for example."""
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SCENE))
    *way, key = place.split(".")
    entry = content
    for word in way:
        entry = entry[word]
    entry[key] = value
    return content


def test_calvins_own_configuration_goes_on_as_plain_values(dataset: Path) -> None:
    write(dataset, SCENE)
    scene = scene_of_dataset(dataset)
    assert scene.robot == {
        "_target_": ROBOT,
        "base_position": [-0.34, -0.46, 0.24],
        "max_velocity": 2,
        "euler_obs": True,
    }
    assert (scene.scene.data_path, scene.scene.euler_obs) == ("data", True)
    assert scene.scene["_recursive_"] is False
    assert scene.scene.objects == SCENE["scene"]["objects"]  # type: ignore[index]
    assert {*scene.cameras} == {"static", "gripper"}
    assert {*scene} == {"data_path", "robot", "scene", "cameras"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("robot._target_", "builtins.dict"),
        ("robot._target_", "${hydra.launcher._target_}"),
        ("robot._target_", CLASSES["scene",]),
        ("robot.a", {"_target_": "numpy.load", "file": "frame.npy", "allow_pickle": True}),
        ("robot.a", {"b": [[{"_target_": ROBOT}]]}),
        ("scene._target_", ["os.system"]),
        ("scene.objects._target_", "subprocess.Popen"),
        ("cameras.static._target_", "calvin_env.camera.static_camera.StaticCamera.mro"),
        ("cameras.gripper.fov", {"_target_": "os.system", "_args_": ["true"]}),
        ("robot.a", "${hydra.launcher}"),
        ("robot.a", "${scene.objects}"),
        ("robot.a", "${robot.a}"),
        ("robot.a", "${oc.env:HOME}"),
        ("robot.a", "a${oc.decode:x}"),
        ("robot.a", "${${data_path}}"),
        ("robot.filename", "/etc/passwd"),
        ("scene.objects.movable_objects.block.file", "blocks/../../other.urdf"),
        ("robot", "os.system"),
        ("cameras", []),
    ],
)
def test_what_might_call_or_read_something_else_is_refused(
    place: str, value: Any, dataset: Path
) -> None:
    write(dataset, changed(place, value))
    with pytest.raises(DataError, match=r"merged_config.yaml: ") as error:
        Calvin(CalvinConfig(dataset=dataset))
    assert "\n" not in str(error.value)


VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["os.system", "${robot}", "${a:b}", "x", ROBOT]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["_target_", "_args_", "a"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(where=st.sampled_from(["robot", "robot.a", "scene.objects", "cameras.static"]), value=VALUES)
def test_no_other_class_is_ever_handed_on(where: str, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "plugins.environments.calvin.scene._omegaconf", lambda: stand_in(where, value)
        )
        patch.setattr("plugins.environments.calvin.scene.file_size", lambda _: 1)
        patch.setattr(Path, "is_file", lambda _: True)
        patch.setattr(Path, "read_text", lambda _, encoding: "")
        try:
            scene = scene_of_dataset(Path("dataset"))
        except DataError:
            return
    assert not list(references(scene))
    assert {*targets(scene, ())} <= {*CLASSES.items()}


def stand_in(where: str, value: Any) -> type:
    class Changed(calvin_stand_in.OmegaConf):
        @staticmethod
        def load(file_: Any) -> Any:
            return changed(where, value)

    return Changed


def targets(value: Any, place: tuple[str, ...]) -> Any:
    """Yield (place, class) of everything that hydra would build."""
    if isinstance(value, list):
        for entry in value:
            yield from targets(entry, (*place, "[]"))
    if isinstance(value, dict):
        if value.get("_target_") is not None:
            yield place, value["_target_"]
        for key, entry in value.items():
            yield from targets(entry, (*place, key))


def references(value: Any) -> Any:
    """Yield texts in which omegaconf would look something up."""
    if isinstance(value, str) and "${" in value:
        yield value
    if isinstance(value, list | dict):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from references(entry)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "!!python/object/apply:os.system [touch proof]",
        "[" * 5000,
        "robot: {",
        "- 1",
        "\x00",
    ],
)
def test_a_damaged_file_is_named(
    text: str, dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (dataset / ".hydra").mkdir(parents=True)
    (dataset / ".hydra" / "merged_config.yaml").write_text(text)
    with pytest.raises(DataError, match=r"merged_config.yaml: ") as error:
        scene_of_dataset(dataset)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "proof").exists()


def test_a_huge_file_is_not_parsed(dataset: Path) -> None:
    write(dataset, {**SCENE, "comment": "x" * 2**20})
    with pytest.raises(DataError, match="larger than 1,048,576 bytes"):
        scene_of_dataset(dataset)
