"""meta/joinery.json: facts of an episode store for which LeRobot's format has no place.

LeRobot ignores this file.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core import DataError, one_line
from core.episodes import StoreInfo
from core.formats import dump_info, file_size, load_info, parse_json

FILE = "meta/joinery.json"


@dataclass(frozen=True)
class EpisodeEntry:
    """An episode's id and task in the store that it was written from, and its number of frames.

    If the episode's length in the dataset differs from `frames`, meta/joinery.json belongs to
    another dataset.
    """

    id: str
    task: str
    frames: int


@dataclass(frozen=True)
class Sidecar:
    """The content of meta/joinery.json.

    episodes: one entry per episode, in the order of the episodes' indices in the dataset.
    """

    info: StoreInfo
    episodes: Sequence[EpisodeEntry]


def write_sidecar(root: Path, sidecar: Sidecar) -> None:
    """Write meta/joinery.json."""
    plain = {
        "info": dump_info(sidecar.info),
        "episodes": [asdict(episode) for episode in sidecar.episodes],
    }
    (root / FILE).write_text(json.dumps(plain, indent=1), encoding="utf-8")


def read_sidecar(root: Path) -> Sidecar | None:
    """Read meta/joinery.json; None if it does not exist. Raises DataError if it is damaged."""
    path = root / FILE
    if not path.exists():
        return None
    try:
        file_size(path)
        plain = parse_json(path.read_text(encoding="utf-8"))
        info = load_info(plain["info"], str(path))
        episodes = [
            EpisodeEntry(str(entry["id"]), str(entry["task"]), int(entry["frames"]))
            for entry in plain["episodes"]
        ]
        return Sidecar(info, episodes)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: damaged ({one_line(error)}); copy it again, or remove it"
        ) from None
