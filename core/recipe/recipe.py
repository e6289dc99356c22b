"""Recipes: one TOML -> frozen dataclasses, with all mistakes reported at once before anything is
built.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from core.errors import ConfigError, did_you_mean
from core.recipe.checking import fill, parse_value
from core.recipe.needs import check_needs
from core.recipe.sections import (
    GENERAL,
    OPTIONAL,
    ActionConfig,
    AugmentationConfig,
    DataConfig,
    DemonstrationsConfig,
    EvaluateConfig,
    TrainConfig,
)
from core.registry.catalogue import Catalogue
from core.registry.components import SETTINGS_OF_EVERY_PART, Component
from core.registry.hookspecs import ComponentKind
from core.registry.part_settings import OF_KIND, PartSettings

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """A component and its configuration: an environment, for example."""

    component: Component
    config: Any


@dataclass(frozen=True)
class Part(Choice):
    """One part of the policy: which component, its configuration, and how it is trained.

    role: what only its kind has: an encoder's projection, how a head's loss counts; None for other
    kinds.
    """

    settings: PartSettings
    role: Any = None

    def as_dict(self) -> dict[str, Any]:
        """Every key with its value, in the layout of the TOML."""
        role = {} if self.role is None else _plain(self.role)
        return {"name": self.component.name, **_plain(self.settings), **role, **_plain(self.config)}


PARTS: tuple[ComponentKind, ...] = (
    "vision_encoder",
    "text_encoder",
    "backbone",
    "action_tokens",
    "policy_head",
)
ALWAYS_TRAINED: tuple[ComponentKind, ...] = ("action_tokens", "policy_head")


@dataclass(frozen=True)
class Recipe:
    """An experiment: how to train, on what, to predict what, with which five parts; and the world
    to try it in.
    """

    train: TrainConfig
    data: DataConfig
    augmentation: AugmentationConfig
    action: ActionConfig
    parts: Mapping[ComponentKind, Part] = field(default_factory=dict)
    auxiliary: Mapping[str, Part] = field(default_factory=dict)  # further policy heads, by label
    environment: Choice | None = None
    demonstrations: DemonstrationsConfig | None = None
    evaluate: EvaluateConfig | None = None

    def as_dict(self) -> dict[str, Any]:
        """Every key with its value, in the layout of the TOML."""
        sections = {name: _plain(getattr(self, name)) for name in GENERAL}
        sections |= {kind: part.as_dict() for kind, part in self.parts.items()}
        if self.auxiliary:
            sections["auxiliary"] = [part.as_dict() for part in self.auxiliary.values()]  # type: ignore[assignment]
        if self.environment is not None:
            sections["environment"] = {
                "name": self.environment.component.name,
                **_plain(self.environment.config),
            }
        return sections | {
            name: _plain(getattr(self, name))
            for name in OPTIONAL
            if getattr(self, name) is not None
        }

    def as_toml(self) -> str:
        """Write the recipe with every default spelled out."""
        return tomli_w.dumps(self.as_dict())


def load_recipe(
    path: Path, overrides: Iterable[str], catalogue: Catalogue, environment: str | None = None
) -> Recipe:
    """Read, override and check a recipe. Raises ConfigError with every mistake, one per line.

    environment: name of another one to take the place of the recipe's, whose tasks then mean
    nothing.
    """
    mistakes: list[str] = []
    values = _read(path)
    if environment is not None:
        _replace_environment(values, environment)
    overridden = _override(values, overrides, mistakes)
    _move_attention(values, catalogue)
    recipe = _check(values, catalogue, mistakes)
    if recipe is None:
        raise ConfigError([f"{path}: {mistake}" for mistake in mistakes])
    return _anchor(recipe, path.parent.absolute(), overridden)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot read the recipe: not UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError is a ValueError
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _replace_environment(values: dict[str, Any], name: str) -> None:
    """Put another environment in place, without what the recipe says of the one before."""
    before = values.get("environment")
    if isinstance(before, dict) and before.get("name") == name:
        return
    values["environment"] = {"name": name}
    values.pop("demonstrations", None)
    if isinstance(evaluate := values.get("evaluate"), dict):
        evaluate.pop("tasks", None)


def _override(values: dict[str, Any], overrides: Iterable[str], mistakes: list[str]) -> set[str]:
    """Apply `section.key=value` pairs in place and return the overridden paths."""
    overridden = set()
    for pair in overrides:
        key, equals, text = pair.partition("=")
        section, dot, name = key.strip().partition(".")
        if section == "auxiliary":
            mistakes.append(
                f"override '{pair}': tables [[auxiliary]] cannot be overridden; change them in the recipe"
            )
            continue
        if not (equals and dot and name and isinstance(values.setdefault(section, {}), dict)):
            mistakes.append(
                f"override '{pair}': expected section.key=value, for example train.steps=100"
            )
            continue
        values[section][name] = parse_value(text)
        overridden.add(f"{section}.{name}")
    return overridden


def _move_attention(values: dict[str, Any], catalogue: Catalogue) -> None:
    """Put backbone.attention of recipes and runs of version 0.1 where it is since: the action
    tokens say who sees whom.

    A backbone of somebody else's may have a key of this name, and keeps it.
    """

    def knows_attention(kind: ComponentKind, section: dict[str, Any]) -> bool:
        component = catalogue[kind].get(str(section.get("name")))
        return component is not None and "attention" in {f.name for f in fields(component.config)}

    backbone, tokens = values.get("backbone"), values.get("action_tokens")
    if (
        not (isinstance(backbone, dict) and isinstance(tokens, dict))
        or "attention" not in backbone.keys() - tokens
    ):
        return
    if knows_attention("action_tokens", tokens) and not knows_attention("backbone", backbone):
        tokens["attention"] = backbone.pop("attention")


def _check(values: Mapping[str, Any], catalogue: Catalogue, mistakes: list[str]) -> Recipe | None:
    required, optional = [*GENERAL, *PARTS], ["auxiliary", "environment", *OPTIONAL]
    sections = [*required, *optional]
    mistakes += [
        f"[{name}]: unknown section{did_you_mean(name, sections)}"
        for name in values
        if name not in sections
    ]
    tables = [
        name for name in sections if name in required or (name in values and name != "auxiliary")
    ]
    found = {name: _section(values, name, mistakes) for name in tables}
    general = {name: fill(config, found[name], name, mistakes) for name, config in GENERAL.items()}
    parts = {
        kind: _part(kind, found[kind], catalogue, mistakes, kind, OF_KIND.get(kind))
        for kind in PARTS
    }
    auxiliary = _auxiliary(values.get("auxiliary", []), catalogue, mistakes)
    extra: dict[str, Any] = {
        name: fill(config, found[name], name, mistakes)
        for name, config in OPTIONAL.items()
        if name in found
    }
    if "environment" in found:
        extra["environment"] = _choice(
            "environment", found["environment"], catalogue, mistakes, "environment"
        )
    mistakes += _contradictions(general["data"], general["action"], extra)
    mistakes += check_needs(parts, auxiliary, catalogue)
    return None if mistakes else Recipe(**general, parts=parts, auxiliary=auxiliary, **extra)  # type: ignore[arg-type]


def _contradictions(data: Any, action: Any, extra: Mapping[str, Any]) -> list[str]:
    """What no section can see alone; a section that is wrong in itself is None here, and already
    said.
    """
    mistakes = [
        f"[{name}]: there is no [environment] to do it in; add one, or leave out [{name}]"
        for name in OPTIONAL
        if name in extra and "environment" not in extra
    ]
    if extra.get("demonstrations") and data and data.path is None:
        mistakes.append(
            "[demonstrations]: are recorded into one store; name it with data.path alone"
        )
    evaluate = extra.get("evaluate")
    if evaluate and action and evaluate.execute > action.horizon:
        mistakes.append(
            f"evaluate.execute: a chunk holds action.horizon = {action.horizon}, got {evaluate.execute}"
        )
    return mistakes


def _section(values: Mapping[str, Any], name: str, mistakes: list[str]) -> dict[str, Any]:
    section = values.get(name, {})
    if isinstance(section, dict):
        return section
    mistakes.append(f"{name}: expected a section [{name}], got {section!r}")
    return {}


def _part(
    kind: ComponentKind,
    section: dict[str, Any],
    catalogue: Catalogue,
    mistakes: list[str],
    where: str,
    role: type | None,
) -> Part | None:
    """where: the section's name, for the messages. role: the settings that only this kind of part
    has.
    """
    shared = {
        key: value
        for key, value in section.items()
        if key in SETTINGS_OF_EVERY_PART and key != "name"
    }
    known = {f.name for f in fields(role)} if role else set()
    of_role = {key: value for key, value in section.items() if key in known}
    own = {key: value for key, value in section.items() if key not in shared and key not in of_role}
    choice = _choice(kind, own, catalogue, mistakes, where)
    settings = fill(PartSettings, shared, where, mistakes)
    filled = fill(role, of_role, where, mistakes) if role else None
    if settings and settings.train is not True and kind in ALWAYS_TRAINED:
        mistakes.append(
            f"{where}.train: expected true: the action tokens and the policy head always train"
        )
    return Part(choice.component, choice.config, settings, filled) if choice and settings else None


def _auxiliary(tables: Any, catalogue: Catalogue, mistakes: list[str]) -> dict[str, Part]:
    """The tables [[auxiliary]], by label."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        mistakes.append(f"auxiliary: expected tables [[auxiliary]], got {tables!r}")
        return {}
    heads: dict[str, Part] = {}
    for number, table in enumerate(tables):
        where = f"auxiliary.{number}"
        part = _part("policy_head", table, catalogue, mistakes, where, OF_KIND["auxiliary"])
        if part is None or part.role is None:
            continue
        label = part.role.label or part.component.name
        if not re.fullmatch(r"[a-z][a-z0-9_]*", label):
            mistakes.append(
                f"{where}.label: expected lower-case letters, digits and underscores, got {label!r}"
            )
        if label in heads or label == "policy_head":
            mistakes.append(f"{where}.label: another head is called '{label}', too; set label")
        heads[label] = part
    return heads


def _choice(
    kind: ComponentKind,
    section: dict[str, Any],
    catalogue: Catalogue,
    mistakes: list[str],
    where: str,
) -> Choice | None:
    name = section.get("name")
    component = catalogue[kind].get(name) if isinstance(name, str) else None
    if component is None:
        mistakes.append(f"{where}.name: {catalogue.explain_unknown(kind, name)}")
        return None
    config: Any = fill(
        component.config, {k: v for k, v in section.items() if k != "name"}, where, mistakes
    )
    return Choice(component, config) if config is not None else None


def _anchor(recipe: Recipe, folder: Path, overridden: set[str]) -> Recipe:
    """Make paths absolute: the recipe's are relative to its folder, the command line's to where it
    was typed.
    """

    def located(name: str, key: str) -> str:
        """A model or its weights may be a path or a name on the hub; it is a path if there is
        something at it.
        """
        path = (Path.cwd() if key in overridden else folder) / name
        return str(path.absolute()) if path.exists() else name

    def anchored(config: T, section: str, start: Path | None = None) -> T:
        """start: where paths in a table within the section begin."""
        changed: dict[str, Any] = {}
        for f in fields(config):  # type: ignore[arg-type]
            key, value = f"{section}.{f.name}", getattr(config, f.name)
            here = start or (Path.cwd() if key in overridden else folder)
            if isinstance(value, Path):
                changed[f.name] = here / value
            elif isinstance(value, str) and f.metadata.get("located"):
                changed[f.name] = located(value, key)
            elif isinstance(value, tuple) and any(is_dataclass(entry) for entry in value):
                changed[f.name] = tuple(anchored(entry, key, here) for entry in value)
        return replace(config, **changed)  # type: ignore[type-var]

    def placed(part: Part, section: str) -> Part:
        settings = part.settings
        if isinstance(settings.pretrained, str):
            settings = replace(
                settings, pretrained=located(settings.pretrained, f"{section}.pretrained")
            )
        return replace(part, config=anchored(part.config, section), settings=settings)

    parts = {kind: placed(part, kind) for kind, part in recipe.parts.items()}
    auxiliary = {
        label: placed(part, f"auxiliary.{label}") for label, part in recipe.auxiliary.items()
    }
    environment = recipe.environment
    if environment is not None:
        environment = replace(environment, config=anchored(environment.config, "environment"))
    return replace(
        recipe,
        data=anchored(recipe.data, "data"),
        parts=parts,
        auxiliary=auxiliary,
        environment=environment,
    )


def _plain(config: Any) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in asdict(config).items() if _is_said(value)}


def _plain_value(value: Any) -> Any:
    """What TOML can say: text for paths, in tables and lists, too."""
    if isinstance(value, dict):
        return {key: _plain_value(entry) for key, entry in value.items() if _is_said(entry)}
    if isinstance(value, list | tuple):
        return [_plain_value(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _is_said(value: Any) -> bool:
    """TOML has no null."""
    return value is not None
