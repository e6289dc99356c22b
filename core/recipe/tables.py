"""Checks the tables of a recipe, and makes dataclasses of them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import tomli_w

from core.errors import did_you_mean
from core.recipe.checking import fill
from core.recipe.contents import ALWAYS_TRAINED, MONITORS, PARTS, Choice, Part, Recipe
from core.recipe.initial_weights import check_initial_weights
from core.recipe.needs import check_needs
from core.recipe.packages import Origin, how_to_install
from core.recipe.sections import (
    DEFAULT_OPTIMIZER,
    ENVIRONMENT_SECTIONS,
    SECTIONS,
    ActionConfig,
    AugmentationConfig,
    DataConfig,
    DemonstrationsConfig,
    EvaluateConfig,
)
from core.recipe.stages import check_stages
from core.recipe.start import StartConfig
from core.recipe.train_section import TrainConfig
from core.registry.catalogue import Catalogue
from core.registry.components import KEYS_OF_EVERY_PART, NAME, accepts_argument
from core.registry.hookspecs import ComponentKind
from core.registry.part_settings import SETTINGS_OF_KIND, AuxiliarySettings, PartSettings

T = TypeVar("T")


@dataclass(frozen=True)
class Checker:
    """Turns the tables of a recipe into dataclasses.

    Every method appends a line to `mistakes` for each mistake that it finds. A method that cannot
    make its dataclass returns None.

    origins: {section: where its component came from}, if the recipe is that of a run.
    """

    catalogue: Catalogue
    mistakes: list[str]
    origins: Mapping[str, Origin]

    def recipe(self, values: Mapping[str, Any]) -> Recipe | None:
        """Check each section, then check whether the sections fit each other."""
        tables = self.tables(values)
        monitors = {key: self.monitors(key, kind, tables) for key, kind in MONITORS.items()}
        train = self.section("train", TrainConfig, tables)
        data = self.section("data", DataConfig, tables)
        augmentation = self.section("augmentation", AugmentationConfig, tables)
        action = self.section("action", ActionConfig, tables)
        start = self.section("start", StartConfig, tables)
        optimizer_table = {"name": DEFAULT_OPTIMIZER, **tables["optimizer"]}
        optimizer = self.choice("optimizer", optimizer_table, "optimizer")
        parts: dict[ComponentKind, Part] = {}
        for kind in PARTS:
            part = self.part(kind, tables[kind], kind, SETTINGS_OF_KIND.get(kind))
            if part is not None:
                parts[kind] = part
        auxiliary = self.auxiliary(values.get("auxiliary", []))
        demonstrations = self.section("demonstrations", DemonstrationsConfig, tables)
        evaluate = self.section("evaluate", EvaluateConfig, tables)
        environment: Choice | None = None
        if "environment" in tables:
            environment = self.choice("environment", tables["environment"], "environment")

        self.mistakes.extend(_sections_without_environment(tables))
        self.mistakes.extend(_contradictions(data, action, demonstrations, evaluate))
        self.mistakes.extend(_keys_without_effect(train, optimizer))
        self.mistakes.extend(check_needs(parts, auxiliary, self.catalogue))
        if train and not self.mistakes:  # a part whose section has mistakes would be unknown there
            self.mistakes.extend(check_stages(train.stages, parts, auxiliary))
            self.mistakes.extend(check_initial_weights(train.stages, parts, auxiliary, start))
        if self.mistakes or not (
            train and data and augmentation and action and start and optimizer
        ):
            return None
        return Recipe(
            train=train,
            data=data,
            augmentation=augmentation,
            action=action,
            optimizer=optimizer,
            parts=parts,
            auxiliary=auxiliary,
            **monitors,
            start=start,
            environment=environment,
            demonstrations=demonstrations,
            evaluate=evaluate,
        )

    def tables(self, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the sections by name, without [[auxiliary]].

        A section that every recipe has, such as [train], is empty if the file leaves it out. Any
        other section is returned only if the file has it.
        """
        always = [*SECTIONS, "optimizer", *PARTS]
        if_written = ["environment", *ENVIRONMENT_SECTIONS]
        known_names = [*always, "auxiliary", *if_written]
        for name in values:
            if name not in known_names:
                self.mistakes.append(f"[{name}]: unknown section{did_you_mean(name, known_names)}")
        tables: dict[str, dict[str, Any]] = {}
        for name in (*always, *(name for name in if_written if name in values)):
            table = values.get(name, {})
            if not isinstance(table, dict):
                self.mistakes.append(f"{name}: expected a section [{name}], got {table!r}")
                table = {}
            tables[name] = table
        return tables

    def section(
        self, name: str, config: type[T], tables: Mapping[str, Mapping[str, Any]]
    ) -> T | None:
        """Make a section's dataclass; return None if the section is missing or has mistakes."""
        return fill(config, tables[name], name, self.mistakes) if name in tables else None

    def part(
        self,
        kind: ComponentKind,
        table: Mapping[str, Any],
        where: str,
        kind_settings_type: type | None,
    ) -> Part | None:
        """Make a part: sort the keys of its section into three groups, and check each group.

        The groups are the keys that every part can have, the keys that only parts of this kind can
        have, and the keys of the component.

        where: the section's name in messages.
        kind_settings_type: the dataclass of the keys that only this kind of part has.
        """
        kind_keys = {f.name for f in fields(kind_settings_type)} if kind_settings_type else set()
        shared_values, kind_values, own_values = {}, {}, {}
        for key, value in table.items():
            if key in kind_keys:
                kind_values[key] = value
            elif key in KEYS_OF_EVERY_PART and key != "name":
                shared_values[key] = value
            else:
                own_values[key] = value
        other_keys = sorted((KEYS_OF_EVERY_PART | kind_keys) - {"name"})
        choice = self.choice(kind, own_values, where, other_keys)
        settings = fill(PartSettings, shared_values, where, self.mistakes)
        kind_settings = None
        if kind_settings_type is not None:
            kind_settings = fill(kind_settings_type, kind_values, where, self.mistakes)
        if settings and settings.train is not True and kind in ALWAYS_TRAINED:
            self.mistakes.append(
                f"{where}.train: expected true: the action tokens and the policy head always train"
            )
        if settings and settings.freeze and kind_settings_type is AuxiliarySettings:
            self.mistakes.append(f"{where}.freeze: an auxiliary head trains as a whole; drop it")
        if choice is None or settings is None:
            return None
        return Part(choice.component, choice.config, settings, kind_settings)

    def auxiliary(self, tables: object) -> dict[str, Part]:
        """Check the tables [[auxiliary]]; return the heads by label."""
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.mistakes.append(f"auxiliary: expected tables [[auxiliary]], got {tables!r}")
            return {}
        heads: dict[str, Part] = {}
        for number, table in enumerate(tables):
            where = f"auxiliary.{number}"
            part = self.part("policy_head", table, where, AuxiliarySettings)
            if part is None or part.kind_settings is None:
                continue
            label = part.kind_settings.label or part.component.name
            if not NAME.fullmatch(label):
                self.mistakes.append(
                    f"{where}.label: expected lower-case letters, digits and underscores, "
                    f"got {label!r}"
                )
            if label in heads or label == "policy_head":
                self.mistakes.append(
                    f"{where}.label: another head is called '{label}', too; set label"
                )
            heads[label] = part
        return heads

    def monitors(
        self, key: str, kind: ComponentKind, tables: dict[str, dict[str, Any]]
    ) -> tuple[Choice, ...]:
        """Check a list of components in [train], and spell out their keys there.

        key: the key of [train] that lists them by name, or by tables of a name and keys.
        """
        entries = tables["train"].get(key, getattr(TrainConfig, key))
        if not isinstance(entries, list | tuple):
            self.mistakes.append(f"train.{key}: expected a list, got {entries!r}")
            entries = []
        choices = []
        for number, entry in enumerate(entries):
            table = entry if isinstance(entry, dict) else {"name": entry}
            choices.append(self.choice(kind, table, f"train.{key}.{number}"))
        chosen = tuple(choice for choice in choices if choice is not None)
        names = [choice.component.name for choice in chosen]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            self.mistakes.append(f"train.{key}: names one twice: {', '.join(repeated)}")
        tables["train"] = {**tables["train"], key: [choice.as_dict() for choice in chosen]}
        return chosen

    def choice(
        self,
        kind: ComponentKind,
        table: Mapping[str, Any],
        where: str,
        other_keys: Collection[str] = (),
    ) -> Choice | None:
        """Look up the component that a section names, and make the component's configuration.

        other_keys: further keys that the section may have, for the messages.
        """
        name = table.get("name")
        component = self.catalogue[kind].get(name) if isinstance(name, str) else None
        if component is None:
            advice = how_to_install(self.origins.get(where), name)
            unknown = self.catalogue.explain_unknown(kind, name)
            self.mistakes.append(f"{where}.name: {unknown}{advice}")
            return None
        own_values = {key: value for key, value in table.items() if key != "name"}
        config: Any = fill(component.config, own_values, where, self.mistakes, other_keys)
        choice = Choice(component, config) if config is not None else None
        if choice is not None:
            self.mistakes.extend(_unwritable_keys(choice, where))
        return choice


def _unwritable_keys(choice: Choice, where: str) -> Iterator[str]:
    """Yield a line for each key whose value the recipe in the run's folder could not hold."""
    for key, value in choice.as_dict().items():
        try:
            tomli_w.dumps({key: value})
        except (TypeError, ValueError):
            yield (
                f"{where}.{key}: a recipe cannot hold a {type(value).__name__}, which "
                f"{choice.component} makes of it; change the plugin: its config should hold "
                "numbers, strings, booleans, paths and tuples alone"
            )


def _sections_without_environment(tables: Mapping[str, object]) -> list[str]:
    """If the recipe has no [environment], return a line for each section that needs it."""
    if "environment" in tables:
        return []
    return [
        f"[{name}]: there is no [environment] for it; add one, or leave out [{name}]"
        for name in ENVIRONMENT_SECTIONS
        if name in tables
    ]


def _keys_without_effect(train: TrainConfig | None, optimizer: Choice | None) -> list[str]:
    """Return a line for a key of [train] that the optimiser does not use.

    A section is None if it holds mistakes.
    """
    if not train or not optimizer or train.betas == TrainConfig.betas:
        return []
    if accepts_argument(optimizer.component.build, "betas"):
        return []
    name = optimizer.component.name
    return [
        f"train.betas: the optimizer '{name}' has no betas; drop the key, or choose another one"
    ]


def _contradictions(
    data: DataConfig | None,
    action: ActionConfig | None,
    demonstrations: DemonstrationsConfig | None,
    evaluate: EvaluateConfig | None,
) -> list[str]:
    """Return a line for each contradiction between two sections.

    A section is None if the recipe does not have it, or if the section itself holds mistakes.
    """
    mistakes = []
    if demonstrations and data and data.path is None:
        mistakes.append(
            "[demonstrations]: they are recorded into one store; name it with data.path alone"
        )
    if evaluate and action and evaluate.replan_steps > action.horizon:
        mistakes.append(
            f"evaluate.replan_steps: expected at most action.horizon = {action.horizon}, "
            f"got {evaluate.replan_steps}"
        )
    return mistakes
