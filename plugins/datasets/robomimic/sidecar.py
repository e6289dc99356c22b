"""Facts of an episode store for which robomimic's format has no place.

The group `data` and each demonstration have an attribute "joinery", which holds the facts as JSON.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from core import DataError, one_line
from core.episodes import StoreInfo
from core.formats import dump_info, load_info, parse_json

ATTRIBUTE = "joinery"
T = TypeVar("T")


@dataclass(frozen=True)
class Sidecar:
    """Facts that hold for all episodes of a file.

    proprio: the observations that are joined in this order to form the proprioception.
    """

    info: StoreInfo
    proprio: Sequence[str]


@dataclass(frozen=True)
class EpisodeSidecar:
    """A demonstration's id, task and exact instruction in the original store."""

    id: str
    task: str
    instruction: str


def write_sidecar(group: Any, sidecar: Sidecar) -> None:
    """Write the attribute "joinery" of the group `data`."""
    plain = {"info": dump_info(sidecar.info), "proprio": [*sidecar.proprio]}
    group.attrs[ATTRIBUTE] = json.dumps(plain)


def write_episode_sidecar(group: Any, sidecar: EpisodeSidecar) -> None:
    """Write the attribute "joinery" of a demonstration."""
    group.attrs[ATTRIBUTE] = json.dumps(asdict(sidecar))


def read_sidecar(group: Any, where: str) -> Sidecar | None:
    """Read the attribute "joinery" of the group `data`; return None if there is no such attribute.

    Raises DataError if the attribute is damaged; the message begins with `where`.
    """

    def make(plain: Any) -> Sidecar:
        info = load_info(plain["info"], where)
        return Sidecar(info, tuple(str(key) for key in plain["proprio"]))

    return _read(group, where, make)


def read_episode_sidecar(group: Any, where: str) -> EpisodeSidecar | None:
    """Read the attribute "joinery" of a demonstration, in the same way as `read_sidecar`."""

    def make(plain: Any) -> EpisodeSidecar:
        return EpisodeSidecar(str(plain["id"]), str(plain["task"]), str(plain["instruction"]))

    return _read(group, where, make)


def _read(group: Any, where: str, make: Callable[[Any], T]) -> T | None:
    try:
        plain = parse_json(group.attrs[ATTRIBUTE]) if ATTRIBUTE in group.attrs else None
        return None if plain is None else make(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: the attribute '{ATTRIBUTE}' is damaged ({one_line(error)}); copy the file "
            "again, or remove the attribute"
        ) from None
