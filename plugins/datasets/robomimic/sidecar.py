"""Facts of an episode store for which robomimic's format has no place.

The facts are JSON in an attribute "joinery" of the group `data` and of each demonstration.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from core import DataError, one_line
from core.episodes import StoreInfo
from core.formats import dump_info, load_info

ATTRIBUTE = "joinery"
T = TypeVar("T")


@dataclass(frozen=True)
class Sidecar:
    """Facts about all episodes.

    proprio: the observations that are joined to the proprioception, in this order.
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
    """Write the attribute of the group `data`."""
    plain = {"info": dump_info(sidecar.info), "proprio": [*sidecar.proprio]}
    group.attrs[ATTRIBUTE] = json.dumps(plain)


def write_episode_sidecar(group: Any, sidecar: EpisodeSidecar) -> None:
    """Write the attribute of a demonstration."""
    group.attrs[ATTRIBUTE] = json.dumps(asdict(sidecar))


def read_sidecar(group: Any, where: str) -> Sidecar | None:
    """Read the attribute of `data`, or return None if there is none.

    Raises DataError, which begins with `where`, if it is damaged.
    """

    def make(plain: Any) -> Sidecar:
        info = load_info(plain["info"], where)
        return Sidecar(info, tuple(str(key) for key in plain["proprio"]))

    return _read(group, where, make)


def read_episode_sidecar(group: Any, where: str) -> EpisodeSidecar | None:
    """Read the attribute of a demonstration, as `read_sidecar` does for `data`."""

    def make(plain: Any) -> EpisodeSidecar:
        return EpisodeSidecar(str(plain["id"]), str(plain["task"]), str(plain["instruction"]))

    return _read(group, where, make)


def _read(group: Any, where: str, make: Callable[[Any], T]) -> T | None:
    try:
        plain = json.loads(group.attrs[ATTRIBUTE]) if ATTRIBUTE in group.attrs else None
        return None if plain is None else make(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: its note is damaged ({one_line(error)}); copy it again"
        ) from None
