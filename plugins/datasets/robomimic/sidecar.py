"""What an episode store knows and robomimic's format has no place for: JSON in an attribute
"joinery" of its groups.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core import DataError, one_line
from core.episodes import StoreInfo
from core.formats import dump_info, load_info

ATTRIBUTE = "joinery"


@dataclass(frozen=True)
class Note:
    """Of the group `data`: what holds for all episodes, and which observations are the
    proprioception, in order.
    """

    info: StoreInfo
    proprio: Sequence[str]


@dataclass(frozen=True)
class EpisodeNote:
    """Of a demonstration: what it was called in the store that it came from, and what the robot was
    told, exactly.
    """

    id: str
    task: str
    instruction: str


def write_note(group: Any, note: Note) -> None:
    """Leave a note at the group `data`."""
    group.attrs[ATTRIBUTE] = json.dumps({"info": dump_info(note.info), "proprio": [*note.proprio]})


def write_episode_note(group: Any, note: EpisodeNote) -> None:
    """Leave a note at a demonstration."""
    group.attrs[ATTRIBUTE] = json.dumps(asdict(note))


def read_note(group: Any, where: str) -> Note | None:
    """Read the note of `data`, None where there is none; raises DataError, headed by `where`, where
    it is damaged.
    """
    plain = _read(group, where)
    if plain is None:
        return None
    try:
        return Note(load_info(plain["info"], where), tuple(str(key) for key in plain["proprio"]))
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{where}: its note is damaged ({one_line(error)}); copy it again"
        ) from None


def read_episode_note(group: Any, where: str) -> EpisodeNote | None:
    """Read the note of a demonstration, None where there is none; raises DataError as `read_note`."""
    plain = _read(group, where)
    if plain is None:
        return None
    try:
        return EpisodeNote(str(plain["id"]), str(plain["task"]), str(plain["instruction"]))
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{where}: its note is damaged ({one_line(error)}); copy it again"
        ) from None


def _read(group: Any, where: str) -> Any:
    try:
        return json.loads(group.attrs[ATTRIBUTE]) if ATTRIBUTE in group.attrs else None
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: its note is damaged ({one_line(error)}); copy it again"
        ) from None
