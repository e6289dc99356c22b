"""From a recipe's [data] and [action] to batches: stores, what they have in common, normalisers,
loaders.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from core.contracts.parts import ActionSpec
from core.episodes.conventions import rotation_names
from core.episodes.episode import ActionConvention, Feature, StoreInfo
from core.episodes.normalization import BOUNDED, Normalizer, ProprioNormalizer
from core.errors import ConfigError, DataError, did_you_mean
from core.loading.loader import Loader
from core.loading.mixture import Member, Mixture
from core.loading.view import StoreView, common_info, rename, view_of
from core.loading.windows import Windows, split_by_task
from core.recipe.recipe import Recipe
from core.recipe.sections import ActionConfig, StoreConfig
from core.store.store import EpisodeStore


def action_spec(normalizer: Normalizer, window: int, horizon: int) -> ActionSpec:
    """Return what the policy head must produce: chunks of actions as the normaliser leaves them."""
    return ActionSpec(
        window=window,
        horizon=horizon,
        dim=len(normalizer.affine.offset),
        binary=tuple(gripper.dimension for gripper in normalizer.binary),
        bounded=normalizer.method in BOUNDED,
    )


@dataclass(frozen=True)
class Source:
    """One store of a recipe, seen as the policy sees it, and the normalisers that are its own."""

    config: StoreConfig
    view: StoreView
    action_normalizer: Normalizer
    proprio_normalizer: ProprioNormalizer


@dataclass(frozen=True)
class TrainingData:
    """The opened stores and what a recipe makes of them; the policy acts in the terms of the first."""

    recipe: Recipe
    sources: tuple[Source, ...]

    @property
    def info(self) -> StoreInfo:
        """What the policy sees, whichever store it comes from."""
        return self.sources[0].view.info

    @property
    def image_shapes(self) -> dict[str, tuple[int, int, int]]:
        """{camera: (C, Y, X)}."""
        return {
            name: (3, camera.height, camera.width) for name, camera in self.info.cameras.items()
        }

    @property
    def feature_specs(self) -> Mapping[str, Feature]:
        """What `data.features` names, and what each is."""
        return self.info.features

    @property
    def action_spec(self) -> ActionSpec:
        """What the policy head must produce."""
        recipe = self.recipe
        normalizer = self.sources[0].action_normalizer
        return action_spec(normalizer, recipe.data.window, recipe.action.horizon)

    @property
    def proprio_dim(self) -> int:
        """Number of proprioceptive values (P)."""
        return len(self.info.proprio)

    @property
    def embodiments(self) -> tuple[str, ...]:
        """What the stores are called, in the order of Batch.embodiment; a single one may be moved
        and has no name.
        """
        return (
            tuple(source.config.label for source in self.sources)
            if self.recipe.data.stores
            else ("",)
        )

    @cached_property
    def _splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            split_by_task(source.view.store, self.recipe.data.validation_episodes)
            for source in self.sources
        ]

    @cached_property
    def training(self) -> Mixture:
        """The training windows, one from every frame, drawn by weight."""
        weights = [source.config.weight for source in self.sources]
        known = [weight for weight in weights if weight is not None]  # all of them or none
        return Mixture(
            [self._member(i, episodes) for i, (episodes, _) in enumerate(self._splits)],
            known or None,
        )

    @cached_property
    def validation(self) -> Mixture:
        """The held-out windows, each frame in one."""
        strides = [self.recipe.data.window * source.view.period for source in self.sources]
        return Mixture(
            [self._member(i, episodes, strides[i]) for i, (_, episodes) in enumerate(self._splits)]
        )

    def loaders(
        self, tokenize: Callable[[str], Sequence[int]], micro_batch: int, device: torch.device
    ) -> tuple[Loader, Loader]:
        """Loaders of the training windows and of the held-out ones."""
        return tuple(  # type: ignore[return-value]  # there are two
            Loader(
                mixture,
                batch_size=micro_batch,
                tokenize=tokenize,
                threads=self.recipe.data.threads,
                prefetch=self.recipe.data.prefetch,
                device=device,
            )
            for mixture in (self.training, self.validation)
        )

    def _member(self, number: int, episodes: np.ndarray, stride: int = 1) -> Member:
        source, window, horizon = (
            self.sources[number],
            self.recipe.data.window,
            self.recipe.action.horizon,
        )
        windows = Windows(source.view.store, episodes, window, horizon, stride)
        prefix = f"{source.config.label}/" if self.recipe.data.stores else ""
        return Member(
            source.view, windows, source.action_normalizer, source.proprio_normalizer, prefix
        )

    def describe(self) -> Iterator[str]:
        """Say of each store how much of the samples it gives, and what of the policy's world it
        lacks.
        """
        for source, share in zip(self.sources, self.training.shares, strict=True):
            view, action = source.view, source.view.conversion
            cameras = [name for name in view.info.cameras if name not in view.recorded]
            features = [name for name in view.info.features if name not in view.recorded]
            actions = [
                name
                for name, has in zip(view.info.action.names, action.has_dimension, strict=True)
                if not has
            ]
            proprio = [name for name in view.info.proprio if name not in view.store.info.proprio]
            lacks = [
                f"no {kind} {', '.join(names)}"
                for kind, names in (
                    ("camera", cameras),
                    ("feature", features),
                    ("action", actions),
                    ("proprioception", proprio),
                )
                if names
            ]
            converted = [] if action.columns is not None else ["actions converted"]
            slower = [f"one frame in {view.period}"] if view.period > 1 else []
            of_all = f"{share / len(self.training):.1%} of the samples"
            yield "; ".join([f"{source.config.label}: {of_all}", *lacks, *converted, *slower])

    def task_of(self) -> dict[str, str]:
        """{episode: task}; of several stores, both begin with the name of theirs, whose scale an
        error is in.
        """
        return {
            member.episode_id(episode): member.prefix + member.view.store.task_name(episode)
            for member in self.training.members
            for episode in range(len(member.view.store))
        }


def open_data(recipe: Recipe) -> TrainingData:
    """Open the stores and fit the normalisers. Raises DataError, or ConfigError where recipe and
    stores disagree.
    """
    views = open_views(recipe)
    if mistakes := list(_other_conventions(recipe.action, views[0].info.action)):
        raise ConfigError(
            [f"{mistake} (store {recipe.data.sources[0].path})" for mistake in mistakes]
        )
    sources = zip(recipe.data.sources, views, strict=True)
    return TrainingData(recipe, tuple(_source(recipe, config, view) for config, view in sources))


def open_views(recipe: Recipe) -> list[StoreView]:
    """Open the stores and see each as the policy does. Raises DataError, or ConfigError with every
    disagreement.
    """
    configs = recipe.data.sources
    stores = [EpisodeStore(config.path) for config in configs]
    mistakes: list[str] = []
    renamed = [
        _renamed(store, config, mistakes) for store, config in zip(stores, configs, strict=True)
    ]
    where = f"(store {', '.join(str(config.path) for config in configs)})"
    cameras = sorted({name for one in renamed for name in one.cameras})
    features = sorted({name for one in renamed for name in one.features})
    mistakes += _unknown("camera", recipe.data.cameras, cameras, where)
    mistakes += _unknown("feature", recipe.data.features, features, where)
    views = [] if mistakes else _views(recipe, stores, renamed, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return views


def _unknown(kind: str, names: Sequence[str], known: Sequence[str], where: str) -> list[str]:
    """Say which of the cameras or features that a recipe names no store has."""
    return [
        f"data.{kind}s: no {kind} '{name}'{did_you_mean(name, known)} {where}"
        for name in names
        if name not in known
    ]


def _renamed(store: EpisodeStore, config: StoreConfig, mistakes: list[str]) -> StoreInfo:
    try:
        return rename(store.info, config.cameras, config.actions)
    except DataError as error:
        mistakes.append(f"data.stores, '{config.label}': {error} (store {config.path})")
        return store.info


def _views(
    recipe: Recipe,
    stores: Sequence[EpisodeStore],
    renamed: Sequence[StoreInfo],
    mistakes: list[str],
) -> list[StoreView]:
    configs = recipe.data.sources
    try:
        info = common_info(renamed, recipe.data.cameras, recipe.data.features)
    except DataError as error:
        mistakes.append(f"data.{error}")
        return []
    views, turning = [], rotation_names([one.action for one in renamed])
    for store, one, config in zip(stores, renamed, configs, strict=True):
        try:
            views.append(view_of(store, one, config.cameras, info, turning))
        except DataError as error:
            which = f"'{config.label}' does not go with '{configs[0].label}'"
            mistakes += [f"data.stores: {which}: {reason}" for reason in str(error).splitlines()]
    return views


def _source(recipe: Recipe, config: StoreConfig, view: StoreView) -> Source:
    action = Normalizer.fit(
        view.statistics["action"],
        view.info.action,
        recipe.action.normalization,
        recipe.action.clip_range,
    )
    return Source(config, view, action, ProprioNormalizer.fit(view.statistics["proprio"]))


def _other_conventions(wanted: ActionConfig, found: ActionConvention) -> list[str]:
    """What the recipe relies on against what the store says of its actions."""
    store: Mapping[str, object] = {
        "mode": found.mode,
        "frame": found.frame,
        "rotation": found.rotation,
        "gripper": "/".join(sorted({gripper.kind for gripper in found.grippers})) or "none",
        "rate": found.rate,
    }
    return [
        f"action.{key}: the recipe relies on {expected!r}, the store's actions are {store[key]!r}"
        for key in store
        if (expected := getattr(wanted, key)) is not None and expected != store[key]
    ]
