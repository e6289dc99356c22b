"""Corrections of a store, which leave what was recorded as it is.

    edits/<index>.json  {"content": ..., "crc32c": ...}: one correction, with its date

Readers apply all edits in order. A store with edits requires readers that know them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt
from pydantic import ConfigDict, TypeAdapter, with_config

from core.episodes.correction import (
    ConventionOverride,
    corrected_units,
    override_convention,
    renamed,
    without_told,
)
from core.episodes.episode import StoreInfo
from core.errors import ConfigError, DataError, did_you_mean
from core.store.attributes import VERSION_WITH_EDITS, read_attributes, require_reader
from core.store.layout import Task, checked_json, list_numbered, parse_checked, publish_file
from core.store.location import Location
from core.system.links import refuse_links_out
from core.system.strict import from_plain, one_line, parse_json

FOLDER = "edits"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Words:
    """The task and the instruction of one episode; None leaves the present one."""

    task: str | None = None
    instruction: str | None = None


@dataclass(frozen=True)
class Edit:
    """One correction of a store; what is left out stays as it is."""

    meaning: ConventionOverride | None = None
    """meaning of the actions."""
    action_names: Mapping[str, str] = field(default_factory=dict)
    """dimensions of the action to rename: {new name: present name}."""
    proprio_names: Mapping[str, str] = field(default_factory=dict)
    """proprioceptive numbers to rename: {new name: present name}."""
    proprio_units: Mapping[str, str] = field(default_factory=dict)
    """units of proprioceptive numbers: {name: unit}, by their present names; {x = "m"} for example.
    """
    confirm: tuple[str, ...] = ()
    """properties that are assumed and right, "mode" for example; they then count as recorded."""
    fps: Annotated[float, Gt(0)] | None = None
    """frames per second; a control rate that was the same changes with it."""
    origin: str | None = None
    """where the data come from, and their licence."""
    instructions: Mapping[str, str] = field(default_factory=dict)
    """instructions to replace, in every episode that has them: {present instruction: new one}."""
    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """tasks to form from instructions: {name of the task: its instructions}."""
    episodes: Mapping[str, Words] = field(default_factory=dict)
    """task or instruction of single episodes: {id of the episode: {task, instruction}}."""


@dataclass(frozen=True)
class DatedEdit:
    """An edit, and when it was made: an ISO 8601 date and time in UTC."""

    time: str
    edit: Edit


def edit_info(info: StoreInfo, edit: Edit) -> StoreInfo:
    """Apply an edit to a store's description.

    Raises ConfigError or DataError for names or values that do not fit.
    """
    action = override_convention(info.action, edit.meaning)
    names = renamed(action.names, edit.action_names, "action_names")
    assumed = without_told(info.assumed, edit.meaning)
    if unknown := [key for key in edit.confirm if key not in assumed]:
        raise ConfigError(
            f"confirm: '{unknown[0]}' is not assumed{did_you_mean(unknown[0], [*assumed])}"
        )
    if edit.fps is not None:
        assumed.pop("fps", None)
    try:
        return replace(
            info,
            fps=info.fps if edit.fps is None else edit.fps,
            action=replace(action, names=names),
            proprio=renamed(info.proprio, edit.proprio_names, "proprio_names"),
            proprio_units=corrected_units(info.proprio, info.proprio_units, edit.proprio_units),
            origin=info.origin if edit.origin is None else edit.origin,
            assumed={key: why for key, why in assumed.items() if key not in edit.confirm},
        )
    except ValueError as error:
        raise DataError(f"edit: {error}") from None


def edit_words(ids: Sequence[str], words: Iterable[Task], edit: Edit) -> list[Task]:
    """Apply an edit to the tasks and instructions of episodes (n) with these ids (n)."""
    task_of = {text: task for task, texts in edit.tasks.items() for text in texts}
    edited = []
    for name, task in zip(ids, words, strict=True):
        instruction = edit.instructions.get(task.instruction, task.instruction)
        own = edit.episodes.get(name, Words())
        instruction = own.instruction or instruction
        edited.append(Task(own.task or task_of.get(instruction, task.name), instruction))
    return edited


# ------------------------------------------------------------------------------ reading and writing


def read_edits(path: Location) -> list[DatedEdit]:
    """Return all edits of a store, in order; raises DataError if one is damaged or missing."""
    edits = []
    for number, file in enumerate(list_numbered(path, FOLDER)):
        if file.name != f"{number:08d}.json":
            raise DataError(
                f"{path / FOLDER / f'{number:08d}.json'}: missing, though {file.name} exists; "
                "restore it"
            )
        try:
            edits.append(from_plain(DatedEdit, parse_json(parse_checked(file))))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{file}: edit is unreadable ({one_line(error)}); restore the file"
            ) from None
    return edits


def edited_info(path: Location) -> StoreInfo:
    """Return a store's description after all of its edits."""
    info, _, has_edits = read_attributes(path)
    for dated in read_edits(path) if has_edits else ():
        info = edit_info(info, dated.edit)
    return info


def add_edit(path: Path, edit: Edit, words: Sequence[Task], ids: Sequence[str]) -> None:
    """Correct a store, in one step that leaves everything recorded as it is.

    words, ids: the present tasks and the ids of the store's episodes.

    Raises ConfigError or DataError if the edit does not fit the store, or if it cannot be written.
    """
    _check_words(edit, words, ids)
    info = edited_info(path)
    edit = _with_control_rate(edit, info)
    edit_info(info, edit)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    plain: Any = TypeAdapter(DatedEdit).dump_python(DatedEdit(time, edit), mode="json")
    content = checked_json(plain)
    refuse_links_out(path, descend=())
    try:
        # older readers, which would not see the correction, must refuse the store from now on
        require_reader(path, VERSION_WITH_EDITS)
        (path / FOLDER).mkdir(exist_ok=True)
        number = len(list_numbered(path, FOLDER))
        while not publish_file(path / FOLDER / f"{number:08d}.json", content):
            number += 1  # another process has just added an edit
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot write ({error.strerror}); nothing was changed"
        ) from None


def _with_control_rate(edit: Edit, info: StoreInfo) -> Edit:
    """Correct the control rate with the frame rate if they were the same.

    The rate is written into the edit, so that edits of before keep their meaning.
    """
    meaning = edit.meaning or ConventionOverride()
    if edit.fps is None or meaning.rate is not None or info.action.rate != info.fps:
        return edit
    return replace(edit, meaning=replace(meaning, rate=edit.fps))


def _check_words(edit: Edit, words: Sequence[Task], ids: Sequence[str]) -> None:
    """Raise ConfigError for instructions and episodes that the store does not have."""
    known = list(dict.fromkeys(task.instruction for task in words))
    told = {edit.instructions.get(text, text) for text in known}
    told |= {own.instruction for own in edit.episodes.values() if own.instruction}
    mistakes = [
        f"instructions: no episode is told '{text}'{did_you_mean(text, known)}"
        for text in edit.instructions
        if text not in known
    ]
    mistakes += [
        f"tasks: no episode is told '{text}'{did_you_mean(text, sorted(told))}"
        for texts in edit.tasks.values()
        for text in texts
        if text not in told
    ]
    repeated = Counter(text for texts in edit.tasks.values() for text in set(texts))
    mistakes += [
        f"tasks: '{text}' belongs to several; drop it from all but one"
        for text, count in repeated.items()
        if count > 1
    ]
    mistakes += [
        f"episodes: there is no episode '{name}'{did_you_mean(name, ids)}"
        for name in edit.episodes
        if name not in ids
    ]
    empty = [*edit.instructions.values(), *edit.tasks]
    empty += [
        text
        for own in edit.episodes.values()
        for text in (own.task, own.instruction)
        if text is not None
    ]
    mistakes += [f"'{text}': is empty; write words" for text in empty if not text.strip()]
    if mistakes:
        raise ConfigError(mistakes)
