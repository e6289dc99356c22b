"""Episodes of robomimic's and LIBERO's files."""

import re
from collections.abc import Iterator, Mapping, Sequence
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
from plugins.datasets.robomimic.note import Note, read_episode_note, read_note

# what robomimic and LIBERO call the hand's pose and the fingers; the first that is there
PROPRIO = (
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    ("ee_states", "gripper_states"),
)
TEXTS = ENVIRONMENT, PROBLEM = "env_args", "problem_info"  # attributes, in JSON
RATE = 20.0  # Hz, robosuite's own
POSE = ("x", "y", "z", "rx", "ry", "rz", "gripper")
SCALE = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5)  # robosuite's OSC_POSE: metres and radians per 1.0
Place = tuple[Path, str]  # a file and a demonstration in it


@dataclass(frozen=True)
class RobomimicConfig:
    """Which datasets of a demonstration are what."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: observation}; all pictures among the observations unless said."""
    action: str = "actions"
    """the dataset that holds the actions."""
    proprio: tuple[str, ...] | None = None
    """observations that are joined; what `joinery write` noted, or the hand's pose and the fingers,
    unless said.
    """
    instruction: str | None = None
    """told to the robot in every episode; what the file or its name says unless said."""
    flip: bool | None = None
    """turn the rows of pictures around; those that the file says are drawn OpenGL's way, as
    LIBERO's, unless said.
    """
    meaning: ConventionOverride | None = None
    """of the actions; what `joinery write` noted, or what the file says of its controller, unless
    said.
    """


class Robomimic:
    """Reads an .hdf5 file, or a folder of them, in which `data/demo_i` holds actions and
    observations.

    What `joinery write` noted of a store comes back: ids, tasks, conventions, origin. Raises
    DataError, naming file and demonstration, for what is missing or damaged.
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
        self.places = _name_places(files)
        _raise_unless_alike(files)
        first = first_readable(self.places.values(), self._look)
        self.cameras, self.proprio, self.flip = first.cameras, first.proprio, first.flip
        noted = first.noted
        self.is_noted = noted is not None
        names = dimension_names([(key, flat_width(first.shapes[key])) for key in self.proprio])
        self.info = source_info(
            fps=noted.fps if noted else first.convention.rate,
            cameras={name: first.shapes[key][1:3] for name, key in self.cameras.items()},
            action=override_convention(first.convention, config.meaning),
            proprio=noted.proprio if noted and config.proprio is None else names,
            origin=noted.origin if noted else f"robomimic file of {first.environment}",
        )

    def _look(self, place: Place | DataError) -> "_Look":
        """Find out what all demonstrations have in common; raises ConfigError for names that are
        not there.
        """
        file, demo = _found(place)
        with open_demonstration(file, demo) as (data, group):
            observations = {
                key: x for key, x in group.get("obs", {}).items() if hasattr(x, "dtype")
            }
            kinds = {key: array_kind(x.shape, x.dtype) for key, x in observations.items()}
            where, note = f"{file}, {demo}", read_note(data, str(file))
            pictures = (
                note.info.cameras
                if note
                else [key for key, kind in kinds.items() if kind == "pictures"]
            )
            cameras = dict(self.config.cameras) or {key: key for key in pictures}
            proprio = _proprio(self.config.proprio, note, observations)
            check_mapping(
                where, "observation", {"pictures": cameras.values(), "numbers": proprio}, kinds
            )
            datasets = {
                key: array_kind(x.shape, x.dtype) for key, x in group.items() if hasattr(x, "dtype")
            }
            check_mapping(where, "dataset", {"numbers": [self.config.action]}, datasets)
            environment = read_json(data, ENVIRONMENT)
            upside_down = data.attrs.get("macros_image_convention") == "opengl"
            # env_args describes the controller's own actions, as a note does, and no others that a
            # file may hold
            own = self.config.action == RobomimicConfig.action
            width, rate = flat_width(group[self.config.action].shape), _rate(environment)
            found = _convention(width, environment if own else {}, rate)
            return _Look(
                cameras=cameras,
                proprio=proprio,
                shapes={key: x.shape for key, x in observations.items()},
                flip=upside_down if self.config.flip is None else self.config.flip,
                convention=note.info.action if note and own else found,
                environment=str(environment.get("env_name", file.stem)),
                noted=note.info if note else None,
            )

    def ids(self) -> Sequence[str]:
        """Name the episodes "<file>/<demonstration>", or as a store did; a file that cannot be
        listed by its name.
        """
        return [*self.places]

    def read(self, episode: str) -> Episode:
        """Read one demonstration; raises DataError that names it."""
        file, demo = _found(self.places[episode])
        with open_demonstration(file, demo) as (data, group):
            actions, observations = read_dataset(file, group, self.config.action), group["obs"]
            pictures = {
                name: read_dataset(file, observations, key) for name, key in self.cameras.items()
            }
            proprio = [read_dataset(file, observations, key) for key in self.proprio]
            note = read_episode_note(group, f"{file}, {demo}") if self.is_noted else None
            told = note.instruction if note else None
            instruction = self.config.instruction or told or _instruction(file, data, group)
        length = len(actions) if actions.ndim else 0
        images = {
            name: as_images(x, f"{file}, {demo}, camera {name}", unit=False)
            for name, x in pictures.items()
        }
        return Episode(
            id=episode,
            task=note.task if note else file.stem.removesuffix("_demo"),
            instruction=instruction,
            images={
                name: np.ascontiguousarray(x[:, ::-1]) if self.flip else x
                for name, x in images.items()
            },
            actions=join_columns([actions], length, f"{file}, {demo}, {self.config.action}"),
            proprio=join_columns(proprio, length, f"{file}, {demo}, {', '.join(self.proprio)}"),
        )


@dataclass(frozen=True)
class _Look:
    """What a demonstration shows of all; shapes: of its observations; noted: what `joinery write`
    left of a store.
    """

    cameras: Mapping[str, str]
    proprio: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    flip: bool
    convention: ActionConvention
    environment: str
    noted: StoreInfo | None


def _name_places(files: Sequence[Path]) -> dict[str, Place | DataError]:
    """Where each episode lies, in the order of files and numbers; raises DataError where two have
    one id.
    """
    places: dict[str, Place | DataError] = {}
    for file in files:
        for name, place in _listed(file):
            if name in places:
                other = _found(places[name])[0]
                raise DataError(
                    f"{file}: an episode '{name}' is in {other}, too; move one of the two away"
                )
            places[name] = place
    return places


def _raise_unless_alike(files: Sequence[Path]) -> None:
    """Raise DataError where notes differ in what they say of actions, rate or cameras."""
    notes: dict[Path, Note | None] = {}
    for file in files:
        with (
            suppress(DataError),
            open_demonstration(file, "") as (data, _),
        ):  # what is damaged is said when it is read
            note = read_note(data, str(file))
            notes[file] = note and replace(note, info=replace(note.info, origin=""))
    first = next(iter(notes), None)
    if different := [
        file for file, note in notes.items() if first is not None and note != notes[first]
    ]:
        raise DataError(
            f"{different[0]}: its episodes are not like those of {first}; import them one at a time"
        )


def _listed(file: Path) -> Iterator[tuple[str, Place | DataError]]:
    """The name and place of each demonstration in a file, or the file's name and why it cannot be
    read.
    """
    try:
        with open_demonstration(file, "") as (data, _):
            demos = sorted(
                data,
                key=lambda name: [int(x) if x.isdecimal() else x for x in re.split(r"(\d+)", name)],
            )
            for text in (
                TEXTS
            ):  # damaged ones cost gigabytes and seconds: once a file, not once a demonstration
                read_json(data, text)
            ours = read_note(data, str(file)) is not None
            notes = [
                read_episode_note(data[demo], f"{file}, {demo}") if ours else None for demo in demos
            ]
        if not demos:
            raise DataError(f"{file}: holds no demonstrations; copy it again")
        for demo, note in zip(demos, notes, strict=True):
            yield (note.id if note else f"{file.stem}/{demo}"), (file, demo)
    except DataError as error:
        yield file.name, error


def _found(place: Place | DataError) -> Place:
    if isinstance(place, DataError):
        raise place
    return place


def _proprio(
    wanted: tuple[str, ...] | None, note: Note | None, observations: Mapping[str, Any]
) -> tuple[str, ...]:
    if wanted is not None:
        return wanted
    if note:
        return tuple(note.proprio)
    return next((keys for keys in PROPRIO if all(key in observations for key in keys)), ())


def _rate(environment: Mapping[str, Any]) -> float:
    return float(environment.get("env_kwargs", {}).get("control_freq", RATE))


def _convention(dim: int, environment: Mapping[str, Any], rate: float) -> ActionConvention:
    """What robosuite's OSC_POSE makes of actions; of other controllers only the names are made up."""
    said = environment.get("env_kwargs", {}).get("controller_configs")
    controller = said if isinstance(said, dict) else {}
    since_1_5 = "body_parts" in controller
    controller = controller.get("body_parts", {}).get("right", controller)
    if controller.get("type") != "OSC_POSE" or dim != len(POSE):
        return ActionConvention(
            dimension_names([("action", dim)]), "absolute", "joint", "none", (1.0,) * dim, rate
        )
    delta = (
        controller.get("input_type", "delta") == "delta"
        if since_1_5
        else controller.get("control_delta", True)
    )
    frame: Frame = (
        "base" if since_1_5 and controller.get("input_ref_frame", "base") == "base" else "world"
    )
    scale = (
        np.broadcast_to(np.asarray(controller.get("output_max", SCALE), float), 6)
        if delta
        else np.ones(6)
    )
    mode: Mode = "delta" if delta else "absolute"
    grip = Gripper(6, "binary", closed=1.0, open=-1.0)
    return ActionConvention(POSE, mode, frame, "axis_angle", (*scale.tolist(), 1.0), rate, (grip,))


def _instruction(file: Path, data: Any, demo: Any) -> str:
    """What the file says: of the episode (RoboCasa), of the task (LIBERO), of its environment, or
    by its name.
    """
    said = (
        read_json(demo, "ep_meta").get("lang"),
        read_json(data, PROBLEM).get("language_instruction"),
        read_json(data, ENVIRONMENT).get("env_lang"),
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
