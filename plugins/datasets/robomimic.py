"""robomimic (https://github.com/ARISE-Initiative/robomimic) and LIBERO: demonstrations of robosuite in HDF5 files."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core import (
    ActionConvention,
    DataError,
    Episode,
    Frame,
    Gripper,
    Meaning,
    Mode,
    RecipeError,
    Register,
    as_pictures,
    correct_convention,
    describe_source,
    hookimpl,
    import_optional,
    join_columns,
    numbered,
    one_line,
    raise_if_unknown,
)

PROPRIO = (  # what robomimic and LIBERO call the hand's pose and the fingers; the first that is there
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    ("ee_states", "gripper_states"),
)
RATE = 20.0  # Hz, robosuite's own
INFLATION = 2_000  # more than any compression of pictures reaches: a file that promises more is damaged
POSE = ("x", "y", "z", "rx", "ry", "rz", "gripper")
SCALE = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5)  # robosuite's OSC_POSE: metres and radians per 1.0


@dataclass(frozen=True)
class RobomimicConfig:
    """Which datasets of a demonstration are what.

    cameras: {name: observation}; all pictures among the observations unless said.
    action: the dataset that holds the actions.
    proprio: observations that are joined; the hand's pose and the fingers unless said.
    instruction: told to the robot in every episode; what the file or its name says unless said.
    flip: turn the rows of pictures around; those that the file says are drawn OpenGL's way, as LIBERO's, unless said.
    meaning: of the actions; what the file says of its controller unless said.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    action: str = "actions"
    proprio: tuple[str, ...] | None = None
    instruction: str | None = None
    flip: bool | None = None
    meaning: Meaning | None = None


class Robomimic:
    """Reads an .hdf5 file, or a folder of them, in which `data/demo_i` holds actions and observations.

    Raises DataError, naming file and demonstration, for what is missing or damaged.
    """

    def __init__(self, config: RobomimicConfig, *, source: Path) -> None:
        self.config = config
        files = [source] if source.is_file() else sorted([*source.glob("*.hdf5"), *source.glob("*.h5")])
        self.demos = {f"{file.stem}/{demo}": (file, demo) for file in files for demo in _demos(file)}
        if not self.demos:
            raise DataError(f"{source}: holds no demonstrations; name an .hdf5 file, or a folder of them")
        file, demo = next(iter(self.demos.values()))
        with _opened(file, demo) as (data, group):
            observations = group.get("obs", {})
            pictures = {key: key for key, x in observations.items() if len(x.shape) == 4 and x.shape[3] == 3}
            self.cameras = dict(config.cameras) or pictures
            self.proprio = _proprio(config.proprio, observations)
            raise_if_unknown("observation", [*self.cameras.values(), *self.proprio], observations)
            raise_if_unknown("dataset", [config.action], group)
            environment = json.loads(data.attrs.get("env_args", "{}"))
            upside_down = data.attrs.get("macros_image_convention") == "opengl"
            self.flip = upside_down if config.flip is None else config.flip
            # env_args describes the controller's own actions, and no others that a file may hold
            controller = environment if config.action == RobomimicConfig.action else {}
            found = _convention(int(group[config.action].shape[1]), controller)
            self.info = describe_source(
                fps=_rate(environment),
                cameras={name: observations[key].shape[1:3] for name, key in self.cameras.items()},
                action=correct_convention(found, config.meaning),
                proprio=numbered([(key, int(np.prod(observations[key].shape[1:]))) for key in self.proprio]),
                origin=f"robomimic file of {environment.get('env_name', file.stem)}",
            )

    def ids(self) -> Sequence[str]:
        """Name the episodes "<file>/<demonstration>", in the order of their numbers."""
        return [*self.demos]

    def read(self, episode: str) -> Episode:
        """Read one demonstration; raises DataError that names it."""
        file, demo = self.demos[episode]
        with _opened(file, demo) as (data, group):
            actions, observations = _array(file, group[self.config.action]), group["obs"]
            images = {
                name: as_pictures(_array(file, observations[key]), f"{file}, {demo}, {key}", unit=False)
                for name, key in self.cameras.items()
            }
            proprio = [_array(file, observations[key]) for key in self.proprio]
            instruction = self.config.instruction or _instruction(file, data, group)
        return Episode(
            id=episode,
            task=file.stem.removesuffix("_demo"),
            instruction=instruction,
            images={name: np.ascontiguousarray(x[:, ::-1]) if self.flip else x for name, x in images.items()},
            actions=join_columns([actions], len(actions), f"{file}, {demo}, {self.config.action}"),
            proprio=join_columns(proprio, len(actions), f"{file}, {demo}, {', '.join(self.proprio)}"),
        )


@contextmanager
def _opened(file: Path, demo: str) -> Iterator[tuple[Any, Any]]:
    """Open `data` and one demonstration in it; whatever a damaged file makes of that becomes a DataError."""
    h5py = import_optional("h5py", extra="robomimic")
    try:
        with h5py.File(file, "r") as opened:
            data = opened["data"]
            yield data, data[demo] if demo else None
    except (DataError, RecipeError):
        raise
    except Exception as error:  # noqa: BLE001 - h5py raises almost anything for damaged bytes
        where = f"{file}, {demo}" if demo else f"{file}"
        raise DataError(f"{where}: cannot be read ({one_line(error)}); copy it again") from None


def _demos(file: Path) -> list[str]:
    with _opened(file, "") as (data, _):
        return sorted(
            data, key=lambda name: [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", name)]
        )


def _array(file: Path, dataset: Any) -> np.ndarray:
    """Read a dataset that can be as large as it says."""
    if dataset.nbytes > INFLATION * file.stat().st_size:
        raise DataError(f"{file}: {dataset.name} says that it holds {dataset.nbytes:,} bytes, more than the file can")
    array: np.ndarray = dataset[()]
    return array


def _proprio(wanted: tuple[str, ...] | None, observations: Mapping[str, Any]) -> tuple[str, ...]:
    if wanted is not None:
        return wanted
    return next((keys for keys in PROPRIO if all(key in observations for key in keys)), ())


def _rate(environment: Mapping[str, Any]) -> float:
    return float(environment.get("env_kwargs", {}).get("control_freq", RATE))


def _convention(dim: int, environment: Mapping[str, Any]) -> ActionConvention:
    """What robosuite's OSC_POSE makes of actions; of other controllers only the names are made up."""
    said = environment.get("env_kwargs", {}).get("controller_configs")
    controller = said if isinstance(said, dict) else {}
    since_1_5 = "body_parts" in controller
    controller = controller.get("body_parts", {}).get("right", controller)
    rate = _rate(environment)
    if controller.get("type") != "OSC_POSE" or dim != len(POSE):
        return ActionConvention(numbered([("action", dim)]), "absolute", "joint", "none", (1.0,) * dim, rate)
    delta = controller.get("input_type", "delta") == "delta" if since_1_5 else controller.get("control_delta", True)
    frame: Frame = "base" if since_1_5 and controller.get("input_ref_frame", "base") == "base" else "world"
    scale = np.broadcast_to(np.asarray(controller.get("output_max", SCALE), float), 6) if delta else np.ones(6)
    mode: Mode = "delta" if delta else "absolute"
    grip = Gripper(6, "binary", closed=1.0, open=-1.0)
    return ActionConvention(POSE, mode, frame, "axis_angle", (*scale.tolist(), 1.0), rate, (grip,))


def _instruction(file: Path, data: Any, demo: Any) -> str:
    """What the file says: of the episode (RoboCasa), of the task (LIBERO), of its environment, or by its name."""
    said = (
        json.loads(demo.attrs.get("ep_meta", "{}")).get("lang"),
        json.loads(data.attrs.get("problem_info", "{}")).get("language_instruction"),
        json.loads(data.attrs.get("env_args", "{}")).get("env_lang"),
        _told_by_name(file.stem),
    )
    found = next((text for text in said if text), None)
    if isinstance(found, list | tuple):
        found = " ".join(map(str, found))
    if not found:
        raise DataError(f"{file}: does not say what the robot is told; say instruction = ...")
    return str(found).strip().strip('"')


def _told_by_name(stem: str) -> str | None:
    """LIBERO's names: "KITCHEN_SCENE1_open_the_bottom_drawer_demo" -> "open the bottom drawer"."""
    if not stem.endswith("_demo"):
        return None
    return re.sub(r"^[A-Z_]+_SCENE\d+_", "", stem.removesuffix("_demo")).replace("_", " ")


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "robomimic"."""
    register("robomimic", RobomimicConfig, Robomimic)
