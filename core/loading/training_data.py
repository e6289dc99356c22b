"""Opens the stores that a recipe's [data] names, and makes the loaders of batches."""

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
from core.loading.dataset import Dataset
from core.loading.loader import Loader
from core.loading.mixture import Member, Mixture
from core.loading.order import EpisodeStreams, Order, ShuffledWindows
from core.loading.view import StoreView, common_info, rename, view_of
from core.loading.windows import Windows, split_by_task
from core.recipe.recipe import Recipe
from core.recipe.sections import ActionConfig
from core.store.store import EpisodeStore


def action_spec(normalizer: Normalizer, window: int, horizon: int) -> ActionSpec:
    """Return what the policy head must produce: chunks of normalised actions."""
    return ActionSpec(
        window=window,
        horizon=horizon,
        dim=len(normalizer.affine.offset),
        binary=tuple(gripper.dimension for gripper in normalizer.binary),
        bounded=normalizer.method in BOUNDED,
    )


@dataclass(frozen=True)
class TrainingData:
    """A recipe's datasets, in its order; the first dataset sets the convention of actions."""

    recipe: Recipe
    datasets: tuple[Dataset, ...]

    @property
    def info(self) -> StoreInfo:
        """What the policy sees, the same for all datasets."""
        return self.datasets[0].view.info

    @property
    def image_shapes(self) -> dict[str, tuple[int, int, int]]:
        """{camera: (C, Y, X)}."""
        return {
            name: (3, camera.height, camera.width) for name, camera in self.info.cameras.items()
        }

    @property
    def feature_specs(self) -> Mapping[str, Feature]:
        """The features that `data.features` names."""
        return self.info.features

    @property
    def action_spec(self) -> ActionSpec:
        """What the policy head must produce."""
        normalizer = self.datasets[0].action_normalizer
        return action_spec(normalizer, self.recipe.data.window, self.recipe.action.horizon)

    @property
    def proprio_dim(self) -> int:
        """Number of proprioceptive values (P)."""
        return len(self.info.proprio)

    @property
    def embodiments(self) -> tuple[str, ...]:
        """Label of each dataset, by its index in Batch.embodiment; "" for a single dataset."""
        return tuple(dataset.label for dataset in self.datasets)

    @cached_property
    def _splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Training and held-out episodes of each dataset."""
        held_out = self.recipe.data.validation_episodes
        return [split_by_task(dataset.view.store, held_out) for dataset in self.datasets]

    @cached_property
    def training(self) -> Mixture:
        """The training windows; one begins at every frame of the training episodes.

        If the recipe gives the stores weights, a store's share of the samples follows its weight.
        With `data.sampling = "episodes"`, the windows do not overlap, and the weights are those of
        the episodes, which `_streams` draws.
        """
        if self.recipe.data.sampling == "episodes":
            return self._without_overlap(self._training_episodes)
        members = [
            self._member(dataset, episodes, stride=1)
            for dataset, episodes in zip(self.datasets, self._training_episodes, strict=True)
        ]
        return Mixture(members, self._weights)

    @cached_property
    def validation(self) -> Mixture:
        """The held-out windows, without overlap: each held-out frame is in exactly one window."""
        return self._without_overlap(self._held_out_episodes)

    @cached_property
    def _streams(self) -> EpisodeStreams:
        """The training episodes, one in each row; a store's share of them follows its weight."""
        episodes = self._one_window_each(self._training_episodes, self._weights)
        return EpisodeStreams(episodes, self.recipe.train.accumulation)

    @property
    def _weights(self) -> list[float] | None:
        """The weights of the stores; the recipe gives one to all stores or to none."""
        configs = self.recipe.data.store_configs
        return [config.weight for config in configs if config.weight is not None] or None

    @property
    def _training_episodes(self) -> list[np.ndarray]:
        return [training for training, _ in self._splits]

    @property
    def _held_out_episodes(self) -> list[np.ndarray]:
        return [held_out for _, held_out in self._splits]

    def _without_overlap(self, episodes: Sequence[np.ndarray]) -> Mixture:
        """Return windows without overlap of some episodes of each dataset."""
        window = self.recipe.data.window
        return Mixture(
            [
                self._member(dataset, chosen, stride=window * dataset.view.period)
                for dataset, chosen in zip(self.datasets, episodes, strict=True)
            ]
        )

    def _one_window_each(
        self, episodes: Sequence[np.ndarray], weights: Sequence[float] | None = None
    ) -> Mixture:
        """Return the first window of some episodes of each dataset."""
        return Mixture(
            [
                self._member(dataset, chosen, stride=int(dataset.view.store.length.max()))
                for dataset, chosen in zip(self.datasets, episodes, strict=True)
            ],
            weights,
        )

    def _member(self, dataset: Dataset, episodes: np.ndarray, stride: int) -> Member:
        window, horizon = self.recipe.data.window, self.recipe.action.horizon
        return Member(dataset, Windows(dataset.view.store, episodes, window, horizon, stride))

    def loaders(
        self, tokenize: Callable[[str], Sequence[int]], micro_batch: int, device: torch.device
    ) -> tuple[Loader, Loader]:
        """Return the loader of the training windows and the loader of the held-out windows."""

        def loader(order: Order) -> Loader:
            return Loader(
                order.mixture,
                batch_size=micro_batch,
                tokenize=tokenize,
                threads=self.recipe.data.threads,
                prefetch=self.recipe.data.prefetch,
                device=device,
                order=order,
            )

        if self.recipe.data.sampling == "episodes":
            held_out = EpisodeStreams(self._one_window_each(self._held_out_episodes))
            return loader(self._streams), loader(held_out)
        return loader(ShuffledWindows(self.training)), loader(ShuffledWindows(self.validation))

    def describe(self) -> Iterator[str]:
        """Yield a line per dataset: its share, what it lacks, and what is converted."""
        drawn, noun = self.training, "samples"
        if self.recipe.data.sampling == "episodes":
            drawn, noun = self._streams.mixture, "episodes"
        for dataset, share in zip(self.datasets, drawn.shares, strict=True):
            view = dataset.view
            recorded_actions = zip(
                view.info.action.names, view.conversion.has_dimension, strict=True
            )
            lacking = {
                "camera": [name for name in view.info.cameras if name not in view.recorded],
                "feature": [name for name in view.info.features if name not in view.recorded],
                "action": [name for name, recorded in recorded_actions if not recorded],
                "proprioception": [
                    name for name in view.info.proprio if name not in view.store.info.proprio
                ],
            }
            notes = [f"{dataset.label}: {share / len(drawn):.1%} of the {noun}"]
            notes += [f"no {kind} {', '.join(names)}" for kind, names in lacking.items() if names]
            if view.conversion.columns is None:
                notes.append("actions converted")
            if view.period > 1:
                notes.append(f"one frame in {view.period}")
            yield "; ".join(notes)

    def task_of(self) -> dict[str, str]:
        """Return {episode: task}.

        With several datasets, an episode's id and a task's name begin with the dataset's label, so
        each task belongs to one dataset. Errors of predicted actions are in the scale of the
        dataset's actions, so they cannot be compared between tasks of different datasets.
        """
        return {
            dataset.episode_id(episode): dataset.task_name(episode)
            for dataset in self.datasets
            for episode in range(len(dataset.view.store))
        }


def open_data(recipe: Recipe) -> TrainingData:
    """Open a recipe's stores and fit the normalisers.

    Raises DataError for damaged data, and ConfigError if the recipe and the stores disagree.
    """
    views = open_views(recipe)
    configs = recipe.data.store_configs
    if mistakes := _unexpected_conventions(recipe.action, views[0].info.action):
        raise ConfigError([f"{mistake} (store {configs[0].path})" for mistake in mistakes])
    datasets = []
    for config, view in zip(configs, views, strict=True):
        action_normalizer = Normalizer.fit(
            view.statistics["action"],
            view.info.action,
            recipe.action.normalization,
            recipe.action.clip_range,
        )
        proprio_normalizer = ProprioNormalizer.fit(view.statistics["proprio"])
        # a single store gets no label, so that the store may be moved or renamed between runs
        label = config.label if recipe.data.stores else ""
        datasets.append(Dataset(view, action_normalizer, proprio_normalizer, label))
    return TrainingData(recipe, tuple(datasets))


def open_views(recipe: Recipe) -> list[StoreView]:
    """Open a recipe's stores and view each as the policy sees it.

    Raises DataError for damaged data, and ConfigError with every disagreement between the recipe
    and the stores.
    """
    configs = recipe.data.store_configs
    stores = [EpisodeStore(config.path) for config in configs]
    mistakes: list[str] = []
    infos = []  # descriptions of the stores, under the policy's names
    for store, config in zip(stores, configs, strict=True):
        try:
            infos.append(rename(store.info, config.cameras, config.actions))
        except DataError as error:
            mistakes.append(f"data.stores, '{config.label}': {error} (store {config.path})")
            infos.append(store.info)
    paths = f"(store {', '.join(str(config.path) for config in configs)})"
    cameras = sorted({name for info in infos for name in info.cameras})
    features = sorted({name for info in infos for name in info.features})
    mistakes += _unknown_names("camera", recipe.data.cameras, cameras, paths)
    mistakes += _unknown_names("feature", recipe.data.features, features, paths)
    views = [] if mistakes else _common_views(recipe, stores, infos, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return views


def _unknown_names(kind: str, names: Sequence[str], known: Sequence[str], paths: str) -> list[str]:
    """Return a mistake for each camera or feature that the recipe names but no store has."""
    return [
        f"data.{kind}s: no {kind} '{name}'{did_you_mean(name, known)} {paths}"
        for name in names
        if name not in known
    ]


def _common_views(
    recipe: Recipe,
    stores: Sequence[EpisodeStore],
    infos: Sequence[StoreInfo],
    mistakes: list[str],
) -> list[StoreView]:
    """View all stores in the same way; append a mistake for each reason why a store does not fit.

    infos: the descriptions of the stores under the policy's names.
    """
    configs = recipe.data.store_configs
    try:
        common = common_info(infos, recipe.data.cameras, recipe.data.features)
    except DataError as error:
        mistakes.append(f"data.{error}")
        return []
    views = []
    rotation_dimensions = rotation_names([info.action for info in infos])
    for store, info, config in zip(stores, infos, configs, strict=True):
        try:
            views.append(view_of(store, info, config.cameras, common, rotation_dimensions))
        except DataError as error:
            pair = f"'{config.label}' does not fit '{configs[0].label}'"
            mistakes += [f"data.stores: {pair}: {reason}" for reason in str(error).splitlines()]
    return views


def _unexpected_conventions(expected: ActionConfig, recorded: ActionConvention) -> list[str]:
    """Return a mistake for each difference between the actions and what the recipe expects."""
    gripper_kinds = sorted({gripper.kind for gripper in recorded.grippers})
    conventions: Mapping[str, object] = {
        "mode": recorded.mode,
        "frame": recorded.frame,
        "rotation": recorded.rotation,
        "gripper": "/".join(gripper_kinds) or "none",
        "rate": recorded.rate,
    }
    mistakes = []
    for key, convention in conventions.items():
        expectation = getattr(expected, key)
        if expectation is not None and expectation != convention:
            mistakes.append(
                f"action.{key}: the recipe expects {expectation!r}, "
                f"the store's actions are {convention!r}"
            )
    return mistakes
