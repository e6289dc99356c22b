"""Episodes of robomimic's and LIBERO's files."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core import DataError
from core.episodes import ActionConvention, Episode, Frame, Gripper, Mode, StoreInfo
from core.formats import (
    ConventionOverride,
    array_kind,
    as_images,
    check_mapping,
    dimension_names,
    first_readable,
    flat_width,
    join_columns,
    override_convention,
    source_info,
)
from plugins.datasets.robomimic.hdf5 import open_demonstration, read_dataset, read_json
from plugins.datasets.robomimic.sidecar import Sidecar, read_episode_sidecar, read_sidecar

# the observations of the hand's pose and the fingers: first their names in robomimic, then in
# LIBERO; the first tuple whose names all exist is used
PROPRIO = (
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    ("ee_states", "gripper_states"),
)
ENVIRONMENT, PROBLEM = "env_args", "problem_info"  # attributes of `data`; they hold JSON
RATE = 20.0  # Hz, robosuite's default
POSE = ("x", "y", "z", "rx", "ry", "rz", "gripper")
# how many metres or radians an action of 1.0 moves the hand in robosuite's OSC_POSE
SCALE = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5)
Location = tuple[Path, str]  # a file, and the name of a demonstration in it


@dataclass(frozen=True)
class RobomimicConfig:
    """Which datasets of a demonstration hold images, actions and proprioception."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: observation}; default: every observation that is an image."""
    action: str = "actions"
    """the dataset that holds the actions."""
    proprio: tuple[str, ...] | None = None
    """observations that are joined to form the proprioception; default: those that `joinery write`
    recorded, or else the hand's pose and the fingers.
    """
    instruction: str | None = None
    """the instruction of every episode; default: the instruction in the file or in its name."""
    flip: bool | None = None
    """whether to reverse the rows of images; default: yes if the file says that images follow
    OpenGL's convention, as LIBERO's do.
    """
    meaning: ConventionOverride | None = None
    """meaning of the actions; default: as `joinery write` recorded it, or else as the file
    describes the robot's controller.
    """


class Robomimic:
    """Reads an .hdf5 file, or a folder of them: `data/demo_i` holds actions and observations.

    If `joinery write` wrote the file, the episodes have the ids, tasks, conventions and origin of
    the store that it was written from.

    Raises DataError, naming file and demonstration, for missing or damaged data, and ConfigError
    for datasets that do not exist.
    """

    def __init__(self, config: RobomimicConfig, *, source: Path) -> None:
        self.config = config
        files = (
            [source] if source.is_file() else sorted([*source.glob("*.hdf5"), *source.glob("*.h5")])
        )
        if not files:
            raise DataError(
                f"{source}: holds no demonstrations; name an .hdf5 file, or a folder of them"
            )
        self.locations = _locate_episodes(files)
        _check_sidecars_agree(files)
        common = first_readable(self.locations.values(), self._read_properties)
        self.cameras, self.proprio, self.flip = common.cameras, common.proprio, common.flip
        info = common.store_info
        self.has_sidecar = info is not None
        names = dimension_names([(key, flat_width(common.shapes[key])) for key in self.proprio])
        self.info = source_info(
            fps=info.fps if info else common.convention.rate,
            cameras={name: common.shapes[key][1:3] for name, key in self.cameras.items()},
            action=override_convention(common.convention, config.meaning),
            proprio=info.proprio if info and config.proprio is None else names,
            origin=info.origin if info else f"robomimic file of {common.environment}",
        )

    def _read_properties(self, location: Location | DataError) -> "_Properties":
        """Read from one demonstration the properties that all demonstrations share.

        Raises ConfigError if the configuration names datasets that the demonstration does not have.
        """
        config = self.config
        file, demo = _readable(location)
        where = f"{file}, {demo}"
        with open_demonstration(file, demo) as (data, group):
            observations = _datasets(group.get("obs", {}))
            kinds = {key: array_kind(x.shape, x.dtype) for key, x in observations.items()}
            sidecar = read_sidecar(data, str(file))
            images = [key for key, kind in kinds.items() if kind == "pictures"]
            cameras = dict(config.cameras) or {
                key: key for key in (sidecar.info.cameras if sidecar else images)
            }
            if config.proprio is not None:
                proprio = config.proprio
            elif sidecar:
                proprio = tuple(sidecar.proprio)
            else:
                proprio = next((keys for keys in PROPRIO if {*keys} <= observations.keys()), ())
            check_mapping(
                where, "observation", {"pictures": cameras.values(), "numbers": proprio}, kinds
            )
            datasets = {key: array_kind(x.shape, x.dtype) for key, x in _datasets(group).items()}
            check_mapping(where, "dataset", {"numbers": [config.action]}, datasets)
            environment = read_json(data, ENVIRONMENT)
            is_upside_down = data.attrs.get("macros_image_convention") == "opengl"
            # the conventions in the sidecar and in env_args are about the dataset "actions" only
            is_default = config.action == RobomimicConfig.action
            rate = float(environment.get("env_kwargs", {}).get("control_freq", RATE))
            width = flat_width(group[config.action].shape)
            convention = _convention(width, environment if is_default else {}, rate)
            return _Properties(
                cameras=cameras,
                proprio=proprio,
                shapes={key: x.shape for key, x in observations.items()},
                flip=is_upside_down if config.flip is None else config.flip,
                convention=sidecar.info.action if sidecar and is_default else convention,
                environment=str(environment.get("env_name", file.stem)),
                store_info=sidecar.info if sidecar else None,
            )

    def ids(self) -> Sequence[str]:
        """Return the ids that the episodes have in the sidecars, or else "<file>/<demonstration>".

        A file that cannot be read counts as one episode, whose id is the name of the file.
        """
        return [*self.locations]

    def read(self, episode: str) -> Episode:
        """Read one demonstration; raises a DataError that names the file."""
        config = self.config
        file, demo = _readable(self.locations[episode])
        where = f"{file}, {demo}"
        with open_demonstration(file, demo) as (data, group):
            actions, observations = read_dataset(file, group, config.action), group["obs"]
            frames = {
                name: read_dataset(file, observations, key) for name, key in self.cameras.items()
            }
            proprio = [read_dataset(file, observations, key) for key in self.proprio]
            sidecar = read_episode_sidecar(group, where) if self.has_sidecar else None
            instruction = config.instruction or (sidecar.instruction if sidecar else None)
            instruction = instruction or _instruction(file, data, group)
        length = len(actions) if actions.ndim else 0
        images = {}
        for name, array in frames.items():
            rows = as_images(array, f"{where}, camera {name}", unit=False)
            images[name] = np.ascontiguousarray(rows[:, ::-1]) if self.flip else rows
        return Episode(
            id=episode,
            task=sidecar.task if sidecar else file.stem.removesuffix("_demo"),
            instruction=instruction,
            images=images,
            actions=join_columns([actions], length, f"{where}, {config.action}"),
            proprio=join_columns(proprio, length, f"{where}, {', '.join(self.proprio)}"),
        )


@dataclass(frozen=True)
class _Properties:
    """Properties that all demonstrations share.

    shapes: {observation: shape}, read from one demonstration.
    environment: name of the environment.
    store_info: info of the episode store that `joinery write` wrote the file from; None if another
        program wrote the file.
    """

    cameras: Mapping[str, str]
    proprio: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    flip: bool
    convention: ActionConvention
    environment: str
    store_info: StoreInfo | None


def _locate_episodes(files: Sequence[Path]) -> dict[str, Location | DataError]:
    """Return {episode: location}, sorted by file and then by the demonstration's index.

    For a file that cannot be read, the entry is {name of the file: error}. Raises DataError if two
    episodes have the same id.
    """
    locations: dict[str, Location | DataError] = {}
    for file in files:
        for name, location in _list_file(file):
            if name in locations:
                other, _ = _readable(locations[name])
                raise DataError(
                    f"{file}: an episode '{name}' is in {other}, too; move one of the two away"
                )
            locations[name] = location
    return locations


def _list_file(file: Path) -> list[tuple[str, Location | DataError]]:
    """Return (id, location) of each demonstration.

    For a file that cannot be read, return only (name of the file, error).
    """
    try:
        with open_demonstration(file, "") as (data, _):
            demos = sorted(data, key=_natural_order)
            # Reading a damaged attribute may take gigabytes of memory and several seconds. The
            # attributes are therefore tried here, once for the whole file: if they are damaged,
            # none of its demonstrations is read later.
            for attribute in (ENVIRONMENT, PROBLEM):
                read_json(data, attribute)
            names = [f"{file.stem}/{demo}" for demo in demos]
            if read_sidecar(data, str(file)) is not None:
                for number, demo in enumerate(demos):
                    sidecar = read_episode_sidecar(data[demo], f"{file}, {demo}")
                    if sidecar:
                        names[number] = sidecar.id
        if not demos:
            raise DataError(f"{file}: holds no demonstrations; copy it again")
    except DataError as error:
        return [(file.name, error)]
    return [(name, (file, demo)) for name, demo in zip(names, demos, strict=True)]


def _natural_order(name: str) -> list[int | str]:
    """Return a sort key that puts demo_2 before demo_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _check_sidecars_agree(files: Sequence[Path]) -> None:
    """Raise DataError if sidecars differ in more than the origin, or only some files have one."""
    sidecars: dict[Path, Sidecar | None] = {}
    for file in files:
        # a damaged file is skipped here, because reading its episodes raises its error
        with suppress(DataError), open_demonstration(file, "") as (data, _):
            sidecar = read_sidecar(data, str(file))
            if sidecar:
                # origins may differ
                sidecar = replace(sidecar, info=replace(sidecar.info, origin=""))
            sidecars[file] = sidecar
    first = next(iter(sidecars), None)
    for file, sidecar in sidecars.items():
        if first is not None and sidecar != sidecars[first]:
            raise DataError(
                f"{file}: its episodes are not like those of {first}; import them one at a time"
            )


def _readable(location: Location | DataError) -> Location:
    """Return an episode's location; raises the file's error if the file cannot be read."""
    if isinstance(location, DataError):
        raise location
    return location


def _datasets(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the datasets of a group, but not its subgroups."""
    return {key: node for key, node in group.items() if hasattr(node, "dtype")}


def _convention(width: int, environment: Mapping[str, Any], rate: float) -> ActionConvention:
    """Return the action convention of the controller that `environment` describes.

    Only robosuite's OSC_POSE is known. The actions of any other controller are taken for absolute
    joint positions, and their names are made up.
    """
    settings = environment.get("env_kwargs", {}).get("controller_configs")
    controller = settings if isinstance(settings, dict) else {}
    # robosuite 1.5 renamed the keys of this dictionary
    since_1_5 = "body_parts" in controller
    controller = controller.get("body_parts", {}).get("right", controller)
    if controller.get("type") != "OSC_POSE" or width != len(POSE):
        names = dimension_names([("action", width)])
        return ActionConvention(names, "absolute", "joint", "none", (1.0,) * width, rate)
    if since_1_5:
        is_delta = controller.get("input_type", "delta") == "delta"
    else:
        is_delta = controller.get("control_delta", True)
    in_base = since_1_5 and controller.get("input_ref_frame", "base") == "base"
    frame: Frame = "base" if in_base else "world"
    mode: Mode = "delta" if is_delta else "absolute"
    scale = np.ones(6)
    if is_delta:
        scale = np.broadcast_to(np.asarray(controller.get("output_max", SCALE), float), 6)
    gripper = Gripper(6, "binary", closed=1.0, open=-1.0)
    return ActionConvention(
        POSE, mode, frame, "axis_angle", (*scale.tolist(), 1.0), rate, (gripper,)
    )


def _instruction(file: Path, data: Any, demo: Any) -> str:
    """Find the instruction of a demonstration; raises DataError if there is none.

    RoboCasa records the instruction in each demonstration. LIBERO records it in an attribute of
    `data` or in the file's name ("KITCHEN_SCENE1_open_the_bottom_drawer_demo"). Other programs
    record it in env_args.
    """
    name = None
    if file.stem.endswith("_demo"):
        name = re.sub(r"^[A-Z_]+_SCENE\d+_", "", file.stem.removesuffix("_demo")).replace("_", " ")
    candidates = (
        read_json(demo, "ep_meta").get("lang"),
        read_json(data, PROBLEM).get("language_instruction"),
        read_json(data, ENVIRONMENT).get("env_lang"),
        name,
    )
    instruction = next((text for text in candidates if text), None)
    if isinstance(instruction, list | tuple):
        instruction = " ".join(map(str, instruction))
    if not instruction:
        raise DataError(f"{file}: does not say what the robot is told; say instruction = ...")
    return str(instruction).strip().strip('"')
