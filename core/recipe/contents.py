"""What a recipe holds: sections, and the components that some of them choose."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import tomli_w

from core.recipe.sections import (
    ENVIRONMENT_SECTIONS,
    SECTIONS,
    ActionConfig,
    AugmentationConfig,
    DataConfig,
    DemonstrationsConfig,
    EvaluateConfig,
)
from core.recipe.start import StartConfig
from core.recipe.train_section import TrainConfig
from core.registry.components import Component
from core.registry.hookspecs import ComponentKind
from core.registry.part_settings import PartSettings

PARTS: tuple[ComponentKind, ...] = (
    "vision_encoder",
    "text_encoder",
    "backbone",
    "action_tokens",
    "policy_head",
)
# {key of [train]: kind of component that it lists}
MONITORS: Mapping[str, ComponentKind] = {"loggers": "logger", "callbacks": "callback"}
MONITOR_KEYS = tuple(f"train.{key}" for key in MONITORS)
ALWAYS_TRAINED: tuple[ComponentKind, ...] = ("action_tokens", "policy_head")


@dataclass(frozen=True)
class Choice:
    """A component with its configuration; for example, an environment."""

    component: Component
    config: Any

    def as_dict(self) -> dict[str, Any]:
        """Return every key with its value, nested like the tables of the TOML file."""
        return {"name": self.component.name, **_plain(self.config)}


@dataclass(frozen=True)
class Part(Choice):
    """One part of the policy: which component, its configuration, and how it is trained.

    settings: the settings that every part has.
    kind_settings: the settings that only parts of this kind have, for example the projection of an
        encoder or the weight of an auxiliary head's loss; None for a kind without such settings.
    """

    settings: PartSettings
    kind_settings: Any = None

    def as_dict(self) -> dict[str, Any]:
        """Return every key with its value, nested like the tables of the TOML file."""
        own_values = super().as_dict()
        kind_values = {} if self.kind_settings is None else _plain(self.kind_settings)
        name = {"name": self.component.name}
        return {**name, **_plain(self.settings), **kind_values, **own_values}


@dataclass(frozen=True)
class Recipe:
    """An experiment: the data, the policy's five parts, its training and its evaluation.

    auxiliary: {label: auxiliary head}.
    loggers, callbacks: those that `train.loggers` and `train.callbacks` name.
    start: the run with whose weights training begins, if any.
    environment, demonstrations, evaluate: None if the recipe has no such section.
    """

    train: TrainConfig
    data: DataConfig
    augmentation: AugmentationConfig
    action: ActionConfig
    optimizer: Choice
    parts: Mapping[ComponentKind, Part] = field(default_factory=dict)
    auxiliary: Mapping[str, Part] = field(default_factory=dict)
    loggers: tuple[Choice, ...] = ()
    callbacks: tuple[Choice, ...] = ()
    start: StartConfig = field(default_factory=StartConfig)
    environment: Choice | None = None
    demonstrations: DemonstrationsConfig | None = None
    evaluate: EvaluateConfig | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return every key with its value, nested like the tables of the TOML file."""
        sections: dict[str, Any] = {name: _plain(getattr(self, name)) for name in SECTIONS}
        sections["optimizer"] = self.optimizer.as_dict()
        for kind, part in self.parts.items():
            sections[kind] = part.as_dict()
        if self.auxiliary:
            sections["auxiliary"] = [part.as_dict() for part in self.auxiliary.values()]
        if self.environment is not None:
            sections["environment"] = self.environment.as_dict()
        for name in ENVIRONMENT_SECTIONS:
            if getattr(self, name) is not None:
                sections[name] = _plain(getattr(self, name))
        return sections

    def as_toml(self) -> str:
        """Write the recipe with every default spelled out."""
        return tomli_w.dumps(self.as_dict())


def _plain(value: Any) -> Any:
    """Return a configuration, or a value, as plain TOML data: paths as text, None left out."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
