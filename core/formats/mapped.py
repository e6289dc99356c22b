"""Makes episodes of a dataset's columns, by the settings that all formats share."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.episodes.correction import (
    corrected_units,
    override_convention,
    renamed,
    without_told,
)
from core.episodes.episode import (
    ActionConvention,
    Episode,
    Feature,
    StoreInfo,
)
from core.episodes.frames import Frames, Images
from core.errors import ConfigError, DataError, did_you_mean
from core.formats.choosing import choose_episodes
from core.formats.columns import (
    ArrayKind,
    Column,
    Selected,
    check_mapping,
    column_of,
    join_columns,
    select_numbers,
    selected_names,
)
from core.formats.contracts import Description, Reader, Recording
from core.formats.images import as_images
from core.formats.info import source_info
from core.formats.mapping import Selection, SourceMapping

# the parts of a convention that are guessed together
GUESSED = ("mode", "frame", "rotation", "scale", "grippers")


@dataclass(frozen=True)
class Plan:
    """How a dataset is read: which columns become what.

    columns: every column that is read.
    whites: {column of images: the value that stands for white}.
    texts: {number: text}, if the instruction column holds numbers that stand for texts.
    """

    info: StoreInfo
    columns: tuple[str, ...]
    cameras: Mapping[str, str]
    whites: Mapping[str, float]
    action: tuple[Selected, ...]
    proprio: tuple[Selected, ...]
    features: Mapping[str, str]
    instruction_column: str | None
    texts: Mapping[int, str]
    notes: tuple[str, ...]


class MappedSource:
    """An EpisodeSource of a reader and the user's settings; raises ConfigError for wrong ones.

    info: what all episodes have in common.
    notes: what is left out or assumed, a line each.
    """

    def __init__(self, reader: Reader, mapping: SourceMapping) -> None:
        self.reader, self.mapping = reader, mapping
        self.plan = reader.describe(lambda description: make_plan(description, mapping))
        self.info, self.notes = self.plan.info, self.plan.notes
        self._ids = choose_episodes(reader, mapping)
        self._task_of: dict[str, str] = {}
        for task, instructions in mapping.tasks.items():
            for instruction in instructions:
                if self._task_of.setdefault(instruction, task) != task:
                    raise ConfigError(
                        f"tasks: '{instruction}' belongs to {self._task_of[instruction]} and to "
                        f"{task}; drop it from one"
                    )

    def ids(self) -> Sequence[str]:
        """Return the names of the chosen episodes."""
        return self._ids

    def read(self, episode: str) -> Episode:
        """Read one episode; raises a DataError that names the file and the episode."""
        plan = self.plan
        recording = self.reader.read(episode, plan.columns)
        instruction = self._instruction(recording)
        task = self._task_of.get(instruction, recording.task or instruction)
        return Episode(
            id=episode,
            task=task,
            instruction=instruction,
            images={name: self._images(recording, key) for name, key in plan.cameras.items()},
            actions=_join(recording, plan.action),
            proprio=_join(recording, plan.proprio),
            features={name: self._feature(recording, name) for name in plan.features},
        )

    def doubts(self, instructions: Collection[str]) -> Iterator[str]:
        """Yield a line for each instruction of `tasks` that no episode has.

        instructions: those of all episodes. They are known after an import, since most formats hold
            them in their episodes.
        """
        for instruction, task in self._task_of.items():
            if instruction not in instructions:
                suggestion = did_you_mean(instruction, sorted(instructions))
                yield f"tasks.{task}: no episode is told '{instruction}'{suggestion}"

    def _instruction(self, recording: Recording) -> str:
        """Return the words of an episode; raises DataError if there are none."""
        if self.mapping.instruction:
            return self.mapping.instruction
        key = self.plan.instruction_column
        words = _words(recording, key, self.plan.texts) if key else recording.instruction
        if isinstance(words, DataError):
            raise words
        if not words:
            raise DataError(
                f"{recording.where}: does not say what the robot is told; say instruction = ..."
            )
        return words

    def _images(self, recording: Recording, key: str) -> Images:
        """Return a camera's images (n Y X 3) uint8."""
        images, where = recording.columns[key], f"{recording.where}, {key}"
        if isinstance(images, np.ndarray | Frames):
            told = self.mapping.white is not None
            return as_images(images, where, self.plan.whites[key], told=told)
        raise DataError(f"{where}: holds text, expected pictures")

    def _feature(self, recording: Recording, name: str) -> np.ndarray:
        """Return a named feature (n *shape) of its type, if that loses nothing."""
        feature, key = self.info.features[name], self.plan.features[name]
        array = np.asarray(recording.columns[key])
        fits = np.can_cast(array.dtype, feature.dtype, "safe")
        if array.shape != (recording.length, *feature.shape) or not fits:
            raise DataError(
                f"{recording.where}, {key}: {array.dtype} {array.shape}, expected "
                f"{feature.dtype} {(recording.length, *feature.shape)}; leave the episode out, or "
                f"the feature '{name}'"
            )
        return array.astype(feature.dtype, copy=False)


def _join(recording: Recording, selection: Sequence[Selected]) -> np.ndarray:
    """Join the chosen numbers of an episode -> (n D) float32."""
    names = dict.fromkeys(part.column for part in selection)
    where = f"{recording.where}, {', '.join(names)}"
    arrays = {}
    for name in names:
        if isinstance(recording.columns[name], str | list | tuple):
            raise DataError(f"{where}: holds text, expected numbers")
        arrays[name] = np.asarray(recording.columns[name])
    for array in arrays.values():
        if array.ndim < 1 or len(array) != recording.length:
            raise DataError(
                f"{where}: {array.dtype} {array.shape}, expected numbers of {recording.length} "
                "frames; name another, or leave the episode out"
            )
    chosen = [part.of(arrays[part.column]) for part in selection]
    for part, array in zip(selection, chosen, strict=True):
        if array.shape[1] != part.stop - part.first:
            raise DataError(
                f"{where}: {array.shape[1]} numbers a frame, expected {part.stop - part.first}; "
                "leave the episode out, or import it into another store"
            )
    return join_columns(chosen, recording.length, where)


def _words(recording: Recording, key: str, texts: Mapping[int, str]) -> str:
    """Return the text of an episode's first frame.

    Several numbers are those of characters, as UTF-8; a single number stands for one of `texts`.
    """
    values = recording.columns[key]
    try:
        if isinstance(values, str):
            return values.strip()
        first = values[0] if isinstance(values, list | tuple) else np.asarray(values)[0]
        if texts:
            return texts[np.asarray(first).item()].strip()
        if isinstance(first, np.ndarray):
            return bytes(first[first != 0].tolist()).decode().strip()
        return str(first).strip()
    except KeyError as error:
        raise DataError(
            f"{recording.where}, {key}: {error} is the number of no text that the dataset lists; "
            "name another instruction_column, or say instruction = ..."
        ) from None
    except (IndexError, TypeError, ValueError):  # a character above 255, or no UTF-8
        raise DataError(
            f"{recording.where}, {key}: holds no text; name another instruction_column, or say "
            "instruction = ..."
        ) from None


# ------------------------------------------------------------------------------------ the plan


def make_plan(description: Description, mapping: SourceMapping) -> Plan:
    """Decide how a dataset is read; raises ConfigError for settings that do not fit it."""
    columns = description.columns
    cameras = dict(mapping.cameras) or dict(description.cameras)
    action = _entries(mapping.action, description.action)
    proprio = _entries(mapping.proprio, description.proprio)
    features = {name: entry.column for name, entry in mapping.features.items()}
    if not mapping.cameras:  # what is kept as a feature is no camera
        cameras = {name: key for name, key in cameras.items() if key not in features.values()}
    numbers = [column_of(entry, columns) for entry in (*action, *proprio)]
    numbers += [
        key for key in features.values() if _kind(columns, key) not in ("pictures", "depth")
    ]
    expected: dict[str, Sequence[str]] = {"pictures": [*cameras.values()], "numbers": numbers}
    words = _instruction_column(description, mapping)
    if words and not _holds_words(columns.get(words)):
        expected["text"] = [words]
    kinds: dict[str, ArrayKind] = {name: column.kind for name, column in columns.items()}
    if mapping.action is None and (missing := [key for key in action if key not in columns]):
        raise ConfigError(
            f"{description.where}: there is no {description.noun} '{missing[0]}'; say action = ..."
            f"{did_you_mean(missing[0], [*columns])}"
        )
    check_mapping(description.where, description.noun, expected, kinds)
    action_parts = tuple(select_numbers(entry, columns) for entry in action)
    proprio_parts = tuple(select_numbers(entry, columns) for entry in proprio)
    read = [*cameras.values(), *numbers, *features.values(), *([words] if words else [])]
    return Plan(
        info=_make_info(description, mapping, cameras, action_parts, proprio_parts),
        columns=tuple(dict.fromkeys(read)),
        cameras=cameras,
        whites={key: mapping.white or columns[key].white for key in cameras.values()},
        action=action_parts,
        proprio=proprio_parts,
        features=features,
        instruction_column=words,
        texts=columns[words].texts if words else {},
        notes=(*description.notes, *_left_out(description, read)),
    )


def _entries(selection: Selection | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if selection is None:
        return default
    return (selection,) if isinstance(selection, str) else selection


def _kind(columns: Mapping[str, Column], name: str) -> ArrayKind | None:
    return columns[name].kind if name in columns else None


def _holds_words(column: Column | None) -> bool:
    """Return whether a column's numbers may be words.

    They stand for texts, or are those of characters: several integers a frame.
    """
    if column is not None and column.texts:
        return True
    if column is None or column.kind != "numbers" or column.width < 2:
        return False
    try:
        return bool(np.issubdtype(np.dtype(column.dtype), np.integer))
    except TypeError:  # a type that numpy does not know
        return False


def _instruction_column(description: Description, mapping: SourceMapping) -> str | None:
    """Return the column with the words, if a column has them.

    Raises ConfigError if nothing says what the robot is told, or if a column's name was given as
    the words.
    """
    if mapping.instruction is not None:
        if _kind(description.columns, mapping.instruction) is not None:
            raise ConfigError(
                f"instruction: '{mapping.instruction}' is a {description.noun} of "
                f"{description.where}, and instruction is what the robot is told; say "
                f'instruction_column = "{mapping.instruction}"'
            )
        return None
    column = mapping.instruction_column or description.instruction_column
    if column is None and not description.has_instruction:
        texts = [name for name, value in description.columns.items() if value.kind == "text"]
        raise ConfigError(
            f"{description.where}: does not say what the robot is told; say instruction = ..., or "
            f"instruction_column = ...{did_you_mean('', texts) if texts else ''}"
        )
    return column


def _make_info(
    description: Description,
    mapping: SourceMapping,
    cameras: Mapping[str, str],
    action: tuple[Selected, ...],
    proprio: tuple[Selected, ...],
) -> StoreInfo:
    columns = description.columns
    fps = mapping.fps or description.fps
    if fps is None:
        raise ConfigError(f"{description.where}: does not say the frame rate; say fps = ...")
    convention, assumed = _convention(description, mapping, action, fps)
    is_usual = _is_whole(proprio, description.proprio, columns)
    names = description.proprio_names if is_usual else None
    names = names or selected_names(proprio, columns)
    names = renamed(names, mapping.proprio_names, "proprio_names")
    units = description.proprio_units if is_usual else ()
    return source_info(
        fps=fps,
        cameras={name: columns[key].shape[:2] for name, key in cameras.items()},
        action=convention,
        proprio=names,
        proprio_units=corrected_units(names, units, mapping.proprio_units),
        origin=description.origin,
        features=_features(description, mapping),
        assumed=assumed,
    )


def _convention(
    description: Description, mapping: SourceMapping, action: tuple[Selected, ...], fps: float
) -> tuple[ActionConvention, dict[str, str]]:
    """Return the convention of the actions, and {what is assumed about it: why}."""
    recorded, guess = description.convention, description.guess
    if recorded is not None and _is_whole(action, description.action, description.columns):
        convention, assumed = recorded, dict(description.assumed)
        if convention.rate == description.fps:
            convention = replace(convention, rate=fps)  # which the user may have corrected
    else:
        names = selected_names(action, description.columns)
        if not names:
            raise ConfigError("action: names no column; name at least one")
        scale = (1.0,) * len(names)
        convention = ActionConvention(names, guess.mode, guess.frame, "none", scale, fps)
        assumed = dict.fromkeys(GUESSED, guess.reason)
        others = {key: why for key, why in description.assumed.items() if key not in GUESSED}
        assumed |= others
    assumed = without_told(assumed, mapping.meaning)
    if mapping.fps is not None:
        assumed.pop("fps", None)
    convention = override_convention(convention, mapping.meaning)
    names = renamed(convention.names, mapping.action_names, "action_names")
    return replace(convention, names=names), assumed


def _is_whole(
    selection: tuple[Selected, ...], usual: tuple[str, ...], columns: Mapping[str, Column]
) -> bool:
    """Return whether a selection is the format's usual one, with all numbers of its columns."""
    if not {*usual} <= columns.keys():
        return False
    return selection == tuple(select_numbers(entry, columns) for entry in usual)


def _features(description: Description, mapping: SourceMapping) -> dict[str, Feature]:
    features = {}
    for name, entry in mapping.features.items():
        column = description.columns[entry.column]
        try:
            features[name] = Feature(
                column.shape,
                column.dtype,  # type: ignore[arg-type]  # checked by Feature
                entry.meaning,
                entry.unit,
            )
        except ValueError as error:
            raise DataError(f"{description.where}, {entry.column}: {error}") from None
    return features


def _left_out(description: Description, read: Sequence[str]) -> Iterator[str]:
    """Yield a line for each column of images that is not read."""
    for name, column in description.columns.items():
        if name not in read and column.kind in ("pictures", "depth"):
            kind = "depth or another single channel" if column.kind == "depth" else "images"
            yield f"left out: {name}, {kind} of {' x '.join(map(str, column.shape))}"
