"""Episodes of robomimic's and LIBERO's files."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from core import ConfigError, DataError, did_you_mean
from core.episodes import images_of
from core.formats import (
    Description,
    Guess,
    MappedSource,
    Recording,
    SourceMapping,
    array_column,
    first_readable,
)
from plugins.datasets.robomimic.controller import read_controller
from plugins.datasets.robomimic.hdf5 import (
    open_demonstration,
    read_attributes,
    read_dataset,
    read_json,
    read_texts,
    with_white,
)
from plugins.datasets.robomimic.sidecar import Sidecar, read_episode_sidecar, read_sidecar

# the observations of the hand's pose and the fingers: first their names in robomimic, then in
# LIBERO; the first tuple whose names all exist is used
PROPRIO = (
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    ("ee_states", "gripper_states"),
)
ACTION = "actions"
ENVIRONMENT, PROBLEM = "env_args", "problem_info"  # attributes of `data`; they hold JSON
IMAGE_CONVENTION = "macros_image_convention"  # an attribute of `data`; "opengl" is upside down
ROWS = "rows of images"
GUESS = Guess("absolute", "joint", "the file does not describe an OSC_POSE controller")
Location = tuple[Path, str]  # a file, and the name of a demonstration in it
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RobomimicConfig(SourceMapping):
    """Which datasets of a demonstration hold images, actions and proprioception.

    Datasets beside `obs` and in `obs` are given by their names; "obs/NAME" if both have the name.
    """

    flip: bool | None = None
    """whether to reverse the rows of images; default: yes if the file says that images follow
    OpenGL's convention, as LIBERO's do.
    """


class Robomimic(MappedSource):
    """Reads an .hdf5 file, or a folder of them: `data/demo_i` holds actions and observations.

    If `joinery write` wrote the file, the episodes have the ids, tasks, conventions and origin of
    the store that it was written from.

    Raises DataError, naming file and demonstration, for missing or damaged data, and ConfigError
    for datasets that do not exist.
    """

    def __init__(self, config: RobomimicConfig, *, source: Path) -> None:
        super().__init__(DemonstrationReader(source, config.flip), config)


class DemonstrationReader:
    """The datasets of the demonstrations in one or several files."""

    def __init__(self, source: Path, flip: bool | None) -> None:
        files = (
            [source] if source.is_file() else sorted([*source.glob("*.hdf5"), *source.glob("*.h5")])
        )
        if not files:
            raise DataError(
                f"{source}: holds no demonstrations; name an .hdf5 file, or a folder of them"
            )
        self.flip = flip
        self.locations = _locate_episodes(files)
        _check_sidecars_agree(files)

    def describe(self, use: Callable[[Description], T]) -> T:
        """Describe the datasets of the first demonstration that the settings fit."""
        return first_readable(
            self.locations.values(), lambda location: use(self._describe(_readable(location)))
        )

    def _describe(self, location: Location) -> Description:
        file, demo = location
        with open_demonstration(file, demo) as (data, group):
            paths = _dataset_paths(group)
            columns = {
                name: with_white(file, group, path, array_column(group[path]))
                for name, path in paths.items()
            }
            sidecar = read_sidecar(data, str(file))
            environment = read_json(data, ENVIRONMENT)
            says_which_is_top = IMAGE_CONVENTION in data.attrs
        assumed = {}
        if not says_which_is_top and self.flip is None and sidecar is None:
            assumed[ROWS] = "the file does not say which is the top; say flip = true or false"
        width = columns[ACTION].width if ACTION in columns else 0
        controller = read_controller(width, environment)
        images = [name for name, column in columns.items() if column.kind == "pictures"]
        usual = next((keys for keys in PROPRIO if {*keys} <= columns.keys()), ())
        return Description(
            where=f"{file}, {demo}",
            noun="dataset",
            columns=columns,
            cameras={key: key for key in (sidecar.info.cameras if sidecar else images)},
            action=(ACTION,),
            proprio=tuple(sidecar.proprio) if sidecar else usual,
            guess=replace(GUESS, reason=controller.unknown) if controller.unknown else GUESS,
            origin=sidecar.info.origin
            if sidecar
            else f"robomimic file of {environment.get('env_name', file.stem)}",
            fps=sidecar.info.fps if sidecar else controller.rate,
            convention=sidecar.info.action if sidecar else controller.convention,
            assumed={**assumed, **(sidecar.info.assumed if sidecar else controller.assumed)},
            proprio_names=sidecar.info.proprio if sidecar else None,
            proprio_units=sidecar.info.proprio_units if sidecar else (),
        )

    def ids(self) -> Sequence[str]:
        """Return the ids that the episodes have in the sidecars, or else "<file>/<demonstration>".

        A file that cannot be read counts as one episode, whose id is the name of the file.
        """
        return [*self.locations]

    def facts(self, episode: str) -> Mapping[str, Any]:
        """Return the demonstration's attributes that are numbers or texts."""
        file, demo = _readable(self.locations[episode])
        with open_demonstration(file, demo) as (_, group):
            return read_attributes(group)

    def members(self, mask: str) -> Collection[str]:
        """Return the episodes of a filter key, as robomimic stores them in /mask."""
        chosen: set[Location] = set()
        known: set[str] = set()
        locations = {name: x for name, x in self.locations.items() if isinstance(x, tuple)}
        for file in sorted({file for file, _ in locations.values()}):
            with open_demonstration(file, "") as (data, _):
                masks = data.parent.get("mask", {})
                known |= {*masks}
                demos = masks[mask].asstr()[()] if mask in masks else ()
                chosen |= {(file, str(demo)) for demo in demos}
        if mask not in known:
            suggestion = did_you_mean(mask, sorted(known))
            raise ConfigError(f"mask: no file has the filter key '{mask}'{suggestion}")
        return [name for name, location in locations.items() if location in chosen]

    def read(self, episode: str, columns: Collection[str]) -> Recording:
        """Read some datasets of one demonstration; raises a DataError that names the file."""
        file, demo = _readable(self.locations[episode])
        where = f"{file}, {demo}"
        values: dict[str, Any] = {}
        with open_demonstration(file, demo) as (data, group):
            paths = _dataset_paths(group)
            is_upside_down = data.attrs.get(IMAGE_CONVENTION) == "opengl"
            flip = is_upside_down if self.flip is None else self.flip
            for name in columns:
                path = paths.get(name)
                if path is None:
                    raise DataError(f"{where}: has no '{name}'{did_you_mean(name, [*paths])}")
                dataset = group[path]
                shape = dataset.shape
                if dataset.dtype.kind not in "uifb":
                    values[name] = read_texts(file, group, path)
                elif len(shape) == 4 and shape[3] == 3:
                    read = partial(_read_frames, file, demo, path, flip)
                    values[name] = images_of(shape, read, dataset.dtype)
                else:
                    values[name] = read_dataset(file, group, path)
            sidecar = read_episode_sidecar(group, where)
            words = sidecar.instruction if sidecar else _instruction(file, data, group)
        lengths = [len(x) for x in values.values() if getattr(x, "ndim", 0)]
        task = sidecar.task if sidecar else file.stem.removesuffix("_demo")
        return Recording(where, max(lengths, default=0), values, words, task)


def _read_frames(file: Path, demo: str, path: str, flip: bool, start: int, stop: int) -> np.ndarray:
    """Read a stretch of images; the file is opened for each, so that it can be read later."""
    with open_demonstration(file, demo) as (_, group):
        frames = read_dataset(file, group, path, slice(start, stop))
    return np.ascontiguousarray(frames[:, ::-1]) if flip else frames


def _dataset_paths(group: Any) -> dict[str, str]:
    """Return {name: path} of a demonstration's datasets, and of those in its group `obs`."""
    beside = {name: name for name in _datasets(group)}
    observations = _datasets(group.get("obs", {}))
    return beside | {
        (name if name not in beside else f"obs/{name}"): f"obs/{name}" for name in observations
    }


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
            raise DataError(f"{file}: holds no demonstrations; leave it out")
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


def _instruction(file: Path, data: Any, demo: Any) -> str | None:
    """Find the instruction of a demonstration; None if there is none.

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
    return str(instruction).strip().strip('"') if instruction else None
