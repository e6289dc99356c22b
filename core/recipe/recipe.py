"""A recipe is one TOML file; `load_recipe` makes frozen, checked dataclasses of it.

Its steps: read the file, give keys of earlier versions their present names, apply the overrides of
the command line, check every section, make paths absolute. It reports all mistakes at once, before
anything is built.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from core.errors import ConfigError, did_you_mean
from core.recipe.checking import fill, parse_value, read_toml
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
from core.registry.components import KEYS_OF_EVERY_PART, Component
from core.registry.hookspecs import ComponentKind
from core.registry.part_settings import SETTINGS_OF_KIND, PartSettings

T = TypeVar("T")

PARTS: tuple[ComponentKind, ...] = (
    "vision_encoder",
    "text_encoder",
    "backbone",
    "action_tokens",
    "policy_head",
)
ALWAYS_TRAINED: tuple[ComponentKind, ...] = ("action_tokens", "policy_head")

# {section: {key of an earlier version: its present name}}; recipes, overrides and the recipe.toml
# of finished runs may use either name
FORMER_NAMES: Mapping[str, Mapping[str, str]] = {
    "evaluate": {"lanes": "num_envs", "execute": "replan_steps"},
}


@dataclass(frozen=True)
class Choice:
    """A component and its configuration: an environment, for example."""

    component: Component
    config: Any


@dataclass(frozen=True)
class Part(Choice):
    """One part of the policy: which component, its configuration, and how it is trained.

    settings: the settings that every part has.
    role: the settings that only parts of its kind have, for example the projection of an encoder or
        the weight of an auxiliary head's loss; None for kinds without any.
    """

    settings: PartSettings
    role: Any = None

    def as_dict(self) -> dict[str, Any]:
        """Every key with its value, in the layout of the TOML."""
        role = {} if self.role is None else _plain(self.role)
        return {"name": self.component.name, **_plain(self.settings), **role, **_plain(self.config)}


@dataclass(frozen=True)
class Recipe:
    """An experiment: the data, the policy's five parts, its training and its evaluation.

    auxiliary: further policy heads, by label.
    environment, demonstrations, evaluate: None where the recipe has no such section.
    """

    train: TrainConfig
    data: DataConfig
    augmentation: AugmentationConfig
    action: ActionConfig
    parts: Mapping[ComponentKind, Part] = field(default_factory=dict)
    auxiliary: Mapping[str, Part] = field(default_factory=dict)
    environment: Choice | None = None
    demonstrations: DemonstrationsConfig | None = None
    evaluate: EvaluateConfig | None = None

    def as_dict(self) -> dict[str, Any]:
        """Every key with its value, in the layout of the TOML."""
        sections: dict[str, Any] = {name: _plain(getattr(self, name)) for name in GENERAL}
        for kind, part in self.parts.items():
            sections[kind] = part.as_dict()
        if self.auxiliary:
            sections["auxiliary"] = [part.as_dict() for part in self.auxiliary.values()]
        if self.environment is not None:
            name = self.environment.component.name
            sections["environment"] = {"name": name, **_plain(self.environment.config)}
        for name in OPTIONAL:
            if getattr(self, name) is not None:
                sections[name] = _plain(getattr(self, name))
        return sections

    def as_toml(self) -> str:
        """Write the recipe with every default spelled out."""
        return tomli_w.dumps(self.as_dict())


def _plain(value: Any) -> Any:
    """A configuration, or a value in it, as TOML writes it: paths as text, and no key for None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def load_recipe(
    path: Path, overrides: Iterable[str], catalogue: Catalogue, environment: str | None = None
) -> Recipe:
    """Read, override and check a recipe. Raises ConfigError with every mistake, one per line.

    overrides: `section.key=value` pairs of the command line.
    environment: name of an environment to use instead of the recipe's; the recipe's tasks are then
        dropped.
    """
    mistakes: list[str] = []
    values = read_toml(path, "the recipe")
    _rename_former_keys(values)
    if environment is not None:
        _replace_environment(values, environment)
    overridden_keys = _override(values, overrides, mistakes)
    _move_attention(values, catalogue)
    recipe = _check(values, catalogue, mistakes)
    if recipe is None:
        raise ConfigError([f"{path}: {mistake}" for mistake in mistakes])
    return _with_absolute_paths(recipe, path.parent.absolute(), overridden_keys)


def load_recipe_of_run(
    run: Path, overrides: Sequence[str], catalogue: Catalogue, environment: str | None = None
) -> Recipe:
    """Load the recipe of a trained run, to evaluate it.

    Only `evaluate.*` and `environment.*` may be overridden: the weights depend on everything else.
    Raises ConfigError with every mistake, one per line.
    """
    mistakes = [
        f"override '{override}': only evaluate.* and environment.* may change now"
        for override in overrides
        if override.partition(".")[0] not in ("evaluate", "environment")
    ]
    if mistakes:
        raise ConfigError(mistakes)
    return load_recipe(run / "recipe.toml", overrides, catalogue, environment)


# ------------------------------------------------------------------- from a file to plain tables


def _rename_former_keys(values: dict[str, Any]) -> None:
    """Give keys of earlier versions their present names, in place.

    If a section has both, the former name stays, and is later reported as an unknown key.
    """
    for section, names in FORMER_NAMES.items():
        table = values.get(section)
        if not isinstance(table, dict):
            continue
        for former, present in names.items():
            if former in table and present not in table:
                table[present] = table.pop(former)


def _replace_environment(values: dict[str, Any], name: str) -> None:
    """Replace the recipe's environment, and drop its settings and tasks, in place."""
    own = values.get("environment")
    if isinstance(own, dict) and own.get("name") == name:
        return
    values["environment"] = {"name": name}
    values.pop("demonstrations", None)
    if isinstance(evaluate := values.get("evaluate"), dict):
        evaluate.pop("tasks", None)


def _override(values: dict[str, Any], overrides: Iterable[str], mistakes: list[str]) -> set[str]:
    """Apply `section.key=value` pairs in place, and return their keys."""
    overridden_keys = set()
    for pair in overrides:
        path, equals, text = pair.partition("=")
        section, dot, key = path.strip().partition(".")
        if section == "auxiliary":
            mistakes.append(
                f"override '{pair}': tables [[auxiliary]] cannot be overridden; "
                "change them in the recipe"
            )
            continue
        if not (equals and dot and key and isinstance(values.setdefault(section, {}), dict)):
            mistakes.append(
                f"override '{pair}': expected section.key=value, for example train.steps=100"
            )
            continue
        key = FORMER_NAMES.get(section, {}).get(key, key)
        values[section][key] = parse_value(text)
        overridden_keys.add(f"{section}.{key}")
    return overridden_keys


def _move_attention(values: dict[str, Any], catalogue: Catalogue) -> None:
    """Move backbone.attention to action_tokens.attention, in place; version 0.1 had it there.

    The backbone of a third party may have a key of this name itself. Then nothing is moved.
    """

    def has_attention_key(kind: ComponentKind, section: dict[str, Any]) -> bool:
        component = catalogue[kind].get(str(section.get("name")))
        return component is not None and "attention" in {f.name for f in fields(component.config)}

    backbone, tokens = values.get("backbone"), values.get("action_tokens")
    if not isinstance(backbone, dict) or not isinstance(tokens, dict):
        return
    if "attention" not in backbone or "attention" in tokens:
        return
    if has_attention_key("action_tokens", tokens) and not has_attention_key("backbone", backbone):
        tokens["attention"] = backbone.pop("attention")


# -------------------------------------------------------- from plain tables to checked dataclasses


def _check(values: Mapping[str, Any], catalogue: Catalogue, mistakes: list[str]) -> Recipe | None:
    """Make a recipe of its sections; append each mistake, and return None if there is any."""
    required = [*GENERAL, *PARTS]
    optional = ["environment", *OPTIONAL]
    sections = [*required, "auxiliary", *optional]
    mistakes += [
        f"[{name}]: unknown section{did_you_mean(name, sections)}"
        for name in values
        if name not in sections
    ]
    tables: dict[str, dict[str, Any]] = {}
    for name in (*required, *(name for name in optional if name in values)):
        table = values.get(name, {})
        if not isinstance(table, dict):
            mistakes.append(f"{name}: expected a section [{name}], got {table!r}")
            table = {}
        tables[name] = table

    general = {name: fill(config, tables[name], name, mistakes) for name, config in GENERAL.items()}
    parts = {kind: _part(kind, tables[kind], catalogue, mistakes) for kind in PARTS}
    auxiliary = _auxiliary(values.get("auxiliary", []), catalogue, mistakes)
    rollouts: dict[str, Any] = {
        name: fill(config, tables[name], name, mistakes)
        for name, config in OPTIONAL.items()
        if name in tables
    }
    if "environment" in tables:
        rollouts["environment"] = _choice(
            "environment", tables["environment"], catalogue, mistakes, "environment"
        )
    mistakes += _contradictions(general["data"], general["action"], rollouts)
    mistakes += check_needs(parts, auxiliary, catalogue)
    if mistakes:
        return None
    return Recipe(**general, parts=parts, auxiliary=auxiliary, **rollouts)  # type: ignore[arg-type]


def _part(
    kind: ComponentKind,
    section: dict[str, Any],
    catalogue: Catalogue,
    mistakes: list[str],
    where: str | None = None,
    role_kind: str | None = None,
) -> Part | None:
    """Sort the keys of a part's section into its settings, its role and its component's own.

    where: the section's name in messages; default: `kind`.
    role_kind: key of the part's role in SETTINGS_OF_KIND; default: `kind`.
    """
    where = where or kind
    role_type = SETTINGS_OF_KIND.get(role_kind or kind)
    role_keys = {f.name for f in fields(role_type)} if role_type else set()
    shared_values, role_values, own_values = {}, {}, {}
    for key, value in section.items():
        if key in role_keys:
            role_values[key] = value
        elif key in KEYS_OF_EVERY_PART and key != "name":
            shared_values[key] = value
        else:
            own_values[key] = value
    choice = _choice(kind, own_values, catalogue, mistakes, where)
    settings = fill(PartSettings, shared_values, where, mistakes)
    role = fill(role_type, role_values, where, mistakes) if role_type else None
    if settings and settings.train is not True and kind in ALWAYS_TRAINED:
        mistakes.append(
            f"{where}.train: expected true: the action tokens and the policy head always train"
        )
    return Part(choice.component, choice.config, settings, role) if choice and settings else None


def _auxiliary(tables: Any, catalogue: Catalogue, mistakes: list[str]) -> dict[str, Part]:
    """Check the tables [[auxiliary]]; return the heads by label."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        mistakes.append(f"auxiliary: expected tables [[auxiliary]], got {tables!r}")
        return {}
    heads: dict[str, Part] = {}
    for number, table in enumerate(tables):
        where = f"auxiliary.{number}"
        part = _part("policy_head", table, catalogue, mistakes, where, role_kind="auxiliary")
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
    section: Mapping[str, Any],
    catalogue: Catalogue,
    mistakes: list[str],
    where: str,
) -> Choice | None:
    """Look up the component that a section names, and fill its configuration."""
    name = section.get("name")
    component = catalogue[kind].get(name) if isinstance(name, str) else None
    if component is None:
        mistakes.append(f"{where}.name: {catalogue.explain_unknown(kind, name)}")
        return None
    own_values = {key: value for key, value in section.items() if key != "name"}
    config: Any = fill(component.config, own_values, where, mistakes)
    return Choice(component, config) if config is not None else None


def _contradictions(data: Any, action: Any, rollouts: Mapping[str, Any]) -> list[str]:
    """Compare sections with each other; a section with mistakes of its own is None here."""
    mistakes = [
        f"[{name}]: there is no [environment] for it; add one, or leave out [{name}]"
        for name in OPTIONAL
        if name in rollouts and "environment" not in rollouts
    ]
    if rollouts.get("demonstrations") and data and data.path is None:
        mistakes.append(
            "[demonstrations]: they are recorded into one store; name it with data.path alone"
        )
    evaluate = rollouts.get("evaluate")
    if evaluate and action and evaluate.replan_steps > action.horizon:
        mistakes.append(
            f"evaluate.replan_steps: expected at most action.horizon = {action.horizon}, "
            f"got {evaluate.replan_steps}"
        )
    return mistakes


# ------------------------------------------------------------------------------------------- paths


@dataclass(frozen=True)
class _Paths:
    """Makes relative paths absolute.

    folder: the recipe's; its paths begin there.
    overridden_keys: keys that the command line has set; their paths begin at the current folder.
    """

    folder: Path
    overridden_keys: set[str]

    def start_of(self, key: str) -> Path:
        """Return the folder at which the path of a key begins."""
        return Path.cwd() if key in self.overridden_keys else self.folder

    def hub_or_path(self, name: str, key: str) -> str:
        """Return the absolute path of a file or folder that exists, else the name on the hub."""
        path = self.start_of(key) / name
        return str(path.absolute()) if path.exists() else name

    def of_config(self, config: T, section: str, start: Path | None = None) -> T:
        """Return a configuration with absolute paths.

        start: the folder at which all its paths begin; default: `start_of` each key.
        """
        changes: dict[str, Any] = {}
        for f in fields(config):  # type: ignore[arg-type]
            key, value = f"{section}.{f.name}", getattr(config, f.name)
            key_start = start or self.start_of(key)
            if isinstance(value, Path):
                changes[f.name] = key_start / value
            elif isinstance(value, str) and f.metadata.get("located"):
                changes[f.name] = self.hub_or_path(value, key)
            elif isinstance(value, tuple) and any(is_dataclass(entry) for entry in value):
                changes[f.name] = tuple(self.of_config(entry, key, key_start) for entry in value)
        return replace(config, **changes)  # type: ignore[type-var]

    def of_part(self, part: Part, section: str) -> Part:
        """Return a part with absolute paths in its configuration and in `pretrained`."""
        settings = part.settings
        if isinstance(settings.pretrained, str):
            source = self.hub_or_path(settings.pretrained, f"{section}.pretrained")
            settings = replace(settings, pretrained=source)
        return replace(part, config=self.of_config(part.config, section), settings=settings)


def _with_absolute_paths(recipe: Recipe, folder: Path, overridden_keys: set[str]) -> Recipe:
    """Return the recipe with absolute paths; the arguments are those of _Paths."""
    paths = _Paths(folder, overridden_keys)
    environment = recipe.environment
    if environment is not None:
        config = paths.of_config(environment.config, "environment")
        environment = replace(environment, config=config)
    return replace(
        recipe,
        data=paths.of_config(recipe.data, "data"),
        parts={kind: paths.of_part(part, kind) for kind, part in recipe.parts.items()},
        auxiliary={
            label: paths.of_part(part, f"auxiliary.{label}")
            for label, part in recipe.auxiliary.items()
        },
        environment=environment,
    )
