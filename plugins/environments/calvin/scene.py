"""The configuration of CALVIN's scene, which calvin_env builds by the names of classes in it.

calvin_env hands the configuration to hydra, which imports and calls whatever `_target_` names. A
configuration from a dataset is a stranger's: of it, only plain values go on, and the names of the
classes come from `CLASSES`.
"""

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from core import DataError, import_optional, one_line
from core.formats import file_size
from plugins.environments.calvin.conventions import CAMERAS

HINT = "docs/calvin.md says which files environment 'calvin' reads"
FILE = Path(".hydra") / "merged_config.yaml"
# the classes that hydra may build, each at its place in the configuration
CLASSES = {
    ("robot",): "calvin_env.robot.robot.Robot",
    ("scene",): "calvin_env.scene.play_table_scene.PlayTableScene",
    ("cameras", "static"): "calvin_env.camera.static_camera.StaticCamera",
    ("cameras", "gripper"): "calvin_env.camera.gripper_camera.GripperCamera",
}
# calvin_env's folder of meshes; a dataset does not choose another one
MESHES = "data"
LARGEST = 2**20  # bytes of a configuration; CALVIN's have 10 KB
# a value that stands elsewhere in the configuration: ${scene.robot_base_position}
REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")
LONGEST_CHAIN = 8  # references that refer to references


def read_yaml(file: Path) -> Any:
    """Read a configuration of the installed checkout; raises DataError if there is none."""
    _require(file)
    return _omegaconf().load(file)


def own_scene(checkout: Path) -> Any:
    """Return scene D of calvin_env, in which CALVIN evaluates."""
    folder = checkout / "calvin_env" / "conf"
    merge = _omegaconf().merge
    panda = read_yaml(folder / "robot" / "panda.yaml")
    longer_finger = read_yaml(folder / "robot" / "panda_longer_finger.yaml")
    cameras = {
        name: read_yaml(folder / "cameras" / "cameras" / f"{name}.yaml")
        for name in CAMERAS.values()
    }
    return merge(
        {"data_path": MESHES, "scene": read_yaml(folder / "scene" / "calvin_scene_D.yaml")},
        {"robot": merge(panda, longer_finger)},
        {"cameras": cameras},
    )


def scene_of_dataset(dataset: Path) -> Any:
    """Return the scene that a dataset was recorded in, made of plain values and of CLASSES.

    Raises DataError if its configuration is missing or damaged, if it asks for another class than
    CLASSES has, or if it refers to anything but values in the same file.
    """
    file = dataset / FILE
    _require(file)
    if file_size(file) > LARGEST:
        raise DataError(f"{file}: larger than {LARGEST:,} bytes, so it is no scene; copy it again")
    try:
        content = _read_plain(file)
        # all else is left out: a third camera, which needs another package, and hydra's settings
        kept: dict[str, Any] = {
            "data_path": MESHES,
            "robot": content["robot"],
            "scene": content["scene"],
            "cameras": {name: content["cameras"][name] for name in CAMERAS.values()},
        }
        plain = _plain(kept, kept, ())
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except KeyError as error:
        raise DataError(f"{file}: has no {error}; copy the dataset again") from None
    except Exception as error:  # noqa: BLE001 - a stranger's YAML fails in any way
        raise DataError(f"{file}: damaged ({one_line(error)}); copy the dataset again") from None
    return _omegaconf().create(plain)


def _read_plain(file: Path) -> Any:
    """Return the content of a YAML file as plain values, references as they are written."""
    yaml = import_optional("yaml")
    text = file.read_text(encoding="utf-8")
    # a few nested aliases could stand for billions of values
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise DataError("has YAML aliases, which could fill the memory; write the values out")
    omegaconf = _omegaconf()
    return omegaconf.to_container(omegaconf.load(StringIO(text)), resolve=False)


def _plain(value: Any, root: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    """Return a value, and all that it holds, without references and with no class of its own.

    root: the whole configuration, to which references refer. place: keys that lead to the value.
    """
    where = ".".join(place)
    if isinstance(value, Mapping):
        expected = CLASSES.get(place)
        if (target := value.get("_target_", expected)) != expected:
            raise DataError(
                f"{where} asks for {str(target)[:80]!r}, which is not called, because it might run "
                f"any code; expected {expected or 'no _target_'}"
            )
        return {key: _plain(entry, root, (*place, str(key))) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry, root, (*place, str(n))) for n, entry in enumerate(value)]
    return _dereferenced(value, root, where)


def _dereferenced(value: Any, root: Mapping[str, Any], where: str) -> Any:
    """Return a number or text; for a reference, return the number, text or list it refers to."""
    for _ in range(LONGEST_CHAIN):
        if not isinstance(value, str):
            break
        if match := REFERENCE.fullmatch(value):
            value = root
            for key in match[1].split("."):
                value = value[key]
            continue
        if "${" in value or value.startswith("/") or ".." in value:
            raise DataError(
                f"{where} is {value[:80]!r}, which leads out of the file; write the value itself"
            )
        return value
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, str | Mapping | list) for number in numbers):
        raise DataError(f"{where} refers to no plain value; write the value itself")
    return value


def _require(file: Path) -> None:
    if not file.is_file():
        raise DataError(f"{file}: not found; {HINT}")


def _omegaconf() -> Any:
    return import_optional("omegaconf").OmegaConf
