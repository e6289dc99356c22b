"""Gives the cameras and numbers of a store or an environment the names that a policy knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from core.episodes.episode import StoreInfo
from core.errors import DataError, did_you_mean

T = TypeVar("T")
NOUNS = {
    "cameras": "camera",
    "actions": "action",
    "proprio": "proprioceptive number",
    "features": "feature",
}


@dataclass(frozen=True)
class NewNames:
    """{new name: present name} of cameras, action dimensions, proprioceptive numbers and features.

    What is not named keeps its name.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    actions: Mapping[str, str] = field(default_factory=dict)
    proprio: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)

    def rename(self, info: StoreInfo) -> StoreInfo:
        """Return a description with the new names.

        Raises DataError if a present name does not exist, or if two names would be the same; the
        message begins with "cameras", "actions", "proprio" or "features".
        """
        _check("cameras", self.cameras, list(info.cameras))
        _check("actions", self.actions, info.action.names)
        _check("proprio", self.proprio, info.proprio)
        _check("features", self.features, list(info.features))
        try:
            return replace(
                info,
                cameras=rename_keys(info.cameras, self.cameras),
                action=replace(info.action, names=_renamed(info.action.names, self.actions)),
                proprio=_renamed(info.proprio, self.proprio),
                features=rename_keys(info.features, self.features),
            )
        except ValueError as error:  # a camera and a feature would have the same name
            raise DataError(f"{'features' if self.features else 'cameras'}: {error}") from None


def rename_keys(items: Mapping[str, T], new_names: Mapping[str, str]) -> dict[str, T]:
    """Return the items in the same order under their new names; new_names: {new: present}."""
    return dict(zip(_renamed(list(items), new_names), items.values(), strict=True))


def _renamed(names: Sequence[str], new_names: Mapping[str, str]) -> tuple[str, ...]:
    new = {present: name for name, present in new_names.items()}
    return tuple(new.get(name, name) for name in names)


def _check(key: str, new_names: Mapping[str, str], names: Sequence[str]) -> None:
    """Raise DataError if a present name is unknown or has two new names, or a new one is in use."""
    for present in new_names.values():
        if present not in names:
            raise DataError(f"{key}: no {NOUNS[key]} '{present}'{did_you_mean(present, names)}")
    is_renamed_twice = len({*new_names.values()}) < len(new_names)
    if is_renamed_twice or len({*_renamed(names, new_names)}) < len(names):
        raise DataError(
            f"{key}: two of {', '.join(names)} would have the same name, or one would have "
            "two names; choose others"
        )
