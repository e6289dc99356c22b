"""Which episodes of a dataset are read: those of a mask, of conditions, and of a list."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from core.errors import ConfigError, DataError, did_you_mean
from core.formats.contracts import Reader
from core.formats.mapping import SourceMapping

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": eq,
    "!=": ne,
    ">=": ge,
    "<=": le,
    ">": gt,
    "<": lt,
}


def choose_episodes(reader: Reader, mapping: SourceMapping) -> list[str]:
    """Return the names of the episodes that the settings choose, in the dataset's order.

    Numbers and ranges in `episodes` count all episodes of the dataset. Raises ConfigError if a
    setting names what the dataset does not have, or if it leaves no episode.
    """
    every = list(reader.ids())
    listed = set(_listed(every, mapping.episodes)) if mapping.episodes else set(every)
    if mapping.mask is not None:
        listed &= set(reader.members(mapping.mask))
    chosen = [episode for episode in every if episode in listed]
    for condition in mapping.where:
        name, operator, value = _parse(condition)
        chosen = [episode for episode in chosen if _meets(reader, episode, name, operator, value)]
    if every and not chosen:
        raise ConfigError(
            f"episodes, mask, where: leave none of the {len(every)} episodes; choose others"
        )
    return chosen


def _listed(every: Sequence[str], entries: Sequence[str | int]) -> list[str]:
    """Return the episodes that numbers, ranges and ids name."""
    listed: list[str] = []
    for entry in entries:
        text = str(entry)
        if isinstance(entry, str) and entry in every:
            listed.append(entry)
        elif match := re.fullmatch(r"(\d*):(\d*)", text):
            listed += every[int(match[1] or 0) : int(match[2] or len(every))]
        elif text.isdecimal() and int(text) < len(every):
            listed.append(every[int(text)])
        else:
            raise ConfigError(
                f"episodes: '{entry}' is no id and no number below {len(every)}"
                f"{did_you_mean(text, every)}"
            )
    return listed


def _parse(condition: str) -> tuple[str, Callable[[Any, Any], bool], Any]:
    """Split a condition such as "quality >= 0.5" into its name, operator and value."""
    match = re.fullmatch(r"\s*(\S+?)\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*", condition)
    if not match:
        raise ConfigError(f"where: '{condition}' is no condition; write it like \"quality >= 0.5\"")
    try:
        value = json.loads(match[3].lower() if match[3].lower() in ("true", "false") else match[3])
    except ValueError:
        value = match[3]
    return match[1], OPERATORS[match[2]], value


def _meets(
    reader: Reader, episode: str, name: str, operator: Callable[[Any, Any], bool], value: Any
) -> bool:
    """Return whether an episode meets a condition; raises ConfigError if it has no such fact.

    A damaged episode is taken to meet it, so that reading it says what is damaged.
    """
    try:
        facts = reader.facts(episode)
    except DataError:
        return True
    if name not in facts:
        raise ConfigError(
            f"where: episode '{episode}' has nothing called '{name}'{did_you_mean(name, [*facts])}"
        )
    try:
        if isinstance(facts[name], str) != isinstance(value, str):
            raise TypeError
        return bool(operator(facts[name], value))
    except TypeError:
        raise ConfigError(
            f"where: '{name}' is {facts[name]!r} in episode '{episode}', which cannot be compared "
            f"with {value!r}"
        ) from None
