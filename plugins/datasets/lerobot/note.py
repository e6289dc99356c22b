"""What an episode store knows and LeRobot's format has no place for: meta/joinery.json, which
LeRobot ignores.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core import DataError, one_line
from core.episodes import StoreInfo
from core.formats import dump_info, load_info

FILE = "meta/joinery.json"


@dataclass(frozen=True)
class EpisodeNote:
    """An episode's id and task in the store that it came from, and its number of frames, which must
    still be true.
    """

    id: str
    task: str
    frames: int


@dataclass(frozen=True)
class Note:
    """What holds for all episodes, and each episode's note, in the order of their numbers."""

    info: StoreInfo
    episodes: Sequence[EpisodeNote]


def write_note(root: Path, note: Note) -> None:
    """Write it beside LeRobot's own metadata."""
    plain = {
        "info": dump_info(note.info),
        "episodes": [asdict(episode) for episode in note.episodes],
    }
    (root / FILE).write_text(json.dumps(plain, indent=1), encoding="utf-8")


def read_note(root: Path) -> Note | None:
    """Read it back, None where there is none; raises DataError where it is damaged."""
    path = root / FILE
    if not path.exists():
        return None
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return Note(
            load_info(plain["info"], str(path)), [_episode(one) for one in plain["episodes"]]
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: damaged ({one_line(error)}); copy it again, or remove it"
        ) from None


def _episode(plain: Any) -> EpisodeNote:
    return EpisodeNote(str(plain["id"]), str(plain["task"]), int(plain["frames"]))
