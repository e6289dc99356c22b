"""Recipes: one TOML -> frozen dataclasses, with all mistakes reported at once before anything is built."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from annotated_types import Ge, Gt, Le, Lt

from core.checking import fill, parse_value
from core.data.contracts import Frame, Mode, Rotation
from core.errors import RecipeError, did_you_mean
from core.hookspecs import Kind
from core.plugins import Catalogue
from core.registry import SETTINGS_OF_EVERY_PART, Component

Positive = Annotated[int, Gt(0)]
Amount = Annotated[float, Ge(0)]
Rate = Annotated[float, Ge(0), Le(10)]
Share = Annotated[float, Ge(0), Lt(1)]
T = TypeVar("T")


@dataclass(frozen=True)
class TrainConfig:
    """How the parts are trained together.

    steps: optimiser steps.
    batch_size: windows per optimiser step, over all devices and accumulated micro-batches.
    accumulation: micro-batches per optimiser step.
    learning_rate: of every part that does not say its own.
    weight_decay: AdamW's, on matrices; of every part that does not say its own.
    betas: AdamW's two averaging rates.
    warmup_steps: steps over which the learning rate rises linearly to its full value.
    schedule: what the learning rate does after the warm-up; cosine and linear end at zero.
    gradient_clip: largest norm of the whole gradient; 0 does not clip.
    precision: Lightning Fabric's, "32-true", "bf16-mixed", "16-mixed" or "bf16-true".
    accelerator: Lightning Fabric's, "auto", "cpu", "cuda" or "mps".
    strategy: Lightning Fabric's, "auto" or "ddp".
    devices: processes to train with, one per device.
    seed: of the initial weights, the order of the data and dropout.
    validate_every: steps between validations on the held-out episodes; the last step always validates.
    checkpoint_every: steps between checkpoints; the last step always saves.
    keep_last: newest checkpoints that are kept, beside the best one.
    log_every: steps between readings of the losses; a reading waits for the device.
    joint_table_every: steps between measurements of the joint-training table; the first step is always measured.
    """

    steps: Positive = 2_000
    batch_size: Positive = 32
    accumulation: Positive = 1
    learning_rate: Rate = 3e-4
    weight_decay: Amount = 0.01
    betas: tuple[Share, Share] = (0.9, 0.999)
    warmup_steps: Annotated[int, Ge(0)] = 100
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    gradient_clip: Amount = 1.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    strategy: Literal["auto", "ddp"] = "auto"
    devices: Positive = 1
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    validate_every: Positive = 200
    checkpoint_every: Positive = 200
    keep_last: Positive = 2
    log_every: Positive = 10
    joint_table_every: Positive = 100

    def __post_init__(self) -> None:
        if self.batch_size % (self.accumulation * self.devices):
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of accumulation x devices "
                f"= {self.accumulation} x {self.devices}"
            )


@dataclass(frozen=True)
class DataConfig:
    """Which episodes, and what a sample of them is.

    path: the episode store; relative to the recipe's folder.
    window: frames of history per sample (T).
    cameras: which cameras to use, by name; an empty list means all.
    validation_episodes: how many episodes of each task, the last ones, are held out.
    threads: threads that decode frames.
    prefetch: batches that are prepared ahead.
    """

    path: Path
    window: Positive = 8
    cameras: tuple[str, ...] = ()
    validation_episodes: Positive = 1
    threads: Positive = 2
    prefetch: Positive = 3

    def __post_init__(self) -> None:
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras names one twice: {', '.join(self.cameras)}")


@dataclass(frozen=True)
class ActionConfig:
    """What the policy predicts, and what the recipe takes for granted about the store's actions.

    horizon: actions per chunk (H).
    normalization: how actions reach the network; gripper dimensions are mapped by their own convention.
    clip_range: lowest and highest value, for normalization = "clip_range".
    mode: expected mode; a store of the other is refused.
    frame: expected coordinates; a store in others is refused.
    rotation: expected layout of rotations; a store with another is refused.
    gripper: expected kind of gripper; a store with another is refused.
    rate: expected control rate, in Hz; a store with another is refused.
    """

    horizon: Positive = 10
    normalization: Literal["none", "clip_range", "min_max", "quantile", "mean_std"] = "min_max"
    clip_range: tuple[float, float] = (-1.0, 1.0)
    mode: Mode | None = None
    frame: Frame | None = None
    rotation: Rotation | None = None
    gripper: Literal["binary", "continuous", "none"] | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        low, high = self.clip_range
        if low >= high:
            raise ValueError(f"clip_range must rise, got {low} to {high}")
        if self.clip_range != (-1.0, 1.0) and self.normalization != "clip_range":
            raise ValueError(
                f'clip_range has no effect with normalization = "{self.normalization}"; drop one of the two'
            )


@dataclass(frozen=True)
class PartSettings:
    """What every part's section may say beside its own keys.

    train: false freezes the part.
    learning_rate: overrides [train].
    weight_decay: overrides [train].
    """

    train: bool = True
    learning_rate: Rate | None = None
    weight_decay: Amount | None = None

    def __post_init__(self) -> None:
        if not self.train and (self.learning_rate, self.weight_decay) != (None, None):
            raise ValueError("learning_rate and weight_decay have no effect on a part with train = false; drop them")


@dataclass(frozen=True)
class Part:
    """One part of the policy: which component, its configuration, and how it is trained."""

    component: Component
    config: Any
    settings: PartSettings


PARTS: tuple[Kind, ...] = ("vision_encoder", "text_encoder", "backbone", "action_tokens", "policy_head")
ALWAYS_TRAINED: tuple[Kind, ...] = ("action_tokens", "policy_head")
GENERAL: Mapping[str, type] = {"train": TrainConfig, "data": DataConfig, "action": ActionConfig}


@dataclass(frozen=True)
class Recipe:
    """An experiment: how to train, on what, to predict what, with which five parts."""

    train: TrainConfig
    data: DataConfig
    action: ActionConfig
    parts: Mapping[Kind, Part] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Every key with its value, in the layout of the TOML."""
        general = {name: _plain(getattr(self, name)) for name in GENERAL}
        return general | {
            kind: {"name": part.component.name, **_plain(part.settings), **_plain(part.config)}
            for kind, part in self.parts.items()
        }

    def as_toml(self) -> str:
        """Write the recipe with every default spelled out."""
        return tomli_w.dumps(self.as_dict())


def load_recipe(path: Path, overrides: Iterable[str], catalogue: Catalogue) -> Recipe:
    """Read, override and check a recipe. Raises RecipeError with every mistake, one per line."""
    mistakes: list[str] = []
    values = _read(path)
    overridden = _override(values, overrides, mistakes)
    recipe = _check(values, catalogue, mistakes)
    if recipe is None:
        raise RecipeError([f"{path}: {mistake}" for mistake in mistakes])
    return _anchor(recipe, path.parent.absolute(), overridden)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: cannot read the recipe: not UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError is a ValueError
        raise RecipeError(f"{path}: not valid TOML: {error}") from None


def _override(values: dict[str, Any], overrides: Iterable[str], mistakes: list[str]) -> set[str]:
    """Apply `section.key=value` pairs in place and return the overridden paths."""
    overridden = set()
    for pair in overrides:
        key, equals, text = pair.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and name and isinstance(values.setdefault(section, {}), dict)):
            mistakes.append(f"override '{pair}': expected section.key=value, for example train.steps=100")
            continue
        values[section][name] = parse_value(text)
        overridden.add(f"{section}.{name}")
    return overridden


def _check(values: Mapping[str, Any], catalogue: Catalogue, mistakes: list[str]) -> Recipe | None:
    sections = [*GENERAL, *PARTS]
    mistakes += [f"[{name}]: unknown section{did_you_mean(name, sections)}" for name in values if name not in sections]
    found = {name: _section(values, name, mistakes) for name in sections}
    general = {name: fill(config, found[name], name, mistakes) for name, config in GENERAL.items()}
    parts = {kind: _part(kind, found[kind], catalogue, mistakes) for kind in PARTS}
    return None if mistakes else Recipe(**general, parts=parts)  # type: ignore[arg-type]


def _section(values: Mapping[str, Any], name: str, mistakes: list[str]) -> dict[str, Any]:
    section = values.get(name, {})
    if isinstance(section, dict):
        return section
    mistakes.append(f"{name}: expected a section [{name}], got {section!r}")
    return {}


def _part(kind: Kind, section: dict[str, Any], catalogue: Catalogue, mistakes: list[str]) -> Part | None:
    name = section.get("name")
    component = catalogue[kind].get(name) if isinstance(name, str) else None
    if component is None:
        mistakes.append(f"{kind}.name: {catalogue.explain_unknown(kind, name)}")
        return None
    own = {key: value for key, value in section.items() if key not in SETTINGS_OF_EVERY_PART}
    shared = {key: value for key, value in section.items() if key in SETTINGS_OF_EVERY_PART and key != "name"}
    config: Any = fill(component.config, own, kind, mistakes)
    settings = fill(PartSettings, shared, kind, mistakes)
    if settings and not settings.train and kind in ALWAYS_TRAINED:
        mistakes.append(f"{kind}.train: expected true: the action tokens and the policy head always train")
    return Part(component, config, settings) if config is not None and settings is not None else None


def _anchor(recipe: Recipe, folder: Path, overridden: set[str]) -> Recipe:
    """Make paths absolute: the recipe's are relative to its folder, the command line's to where it was typed."""

    def anchored(config: T, section: str) -> T:
        paths = {
            f.name: (Path.cwd() if f"{section}.{f.name}" in overridden else folder) / value
            for f in fields(config)  # type: ignore[arg-type]
            if isinstance(value := getattr(config, f.name), Path)
        }
        return replace(config, **paths)  # type: ignore[type-var]

    parts = {kind: replace(part, config=anchored(part.config, kind)) for kind, part in recipe.parts.items()}
    return replace(recipe, data=anchored(recipe.data, "data"), parts=parts)


def _plain(config: Any) -> dict[str, Any]:
    values = {key: value for key, value in asdict(config).items() if value is not None}  # TOML has no null
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
