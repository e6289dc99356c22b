"""The data that a recipe trains on: training and held-out windows, and loaders of batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from core.contracts.parts import ActionSpec
from core.episodes.episode import Feature, StoreInfo
from core.episodes.normalization import BOUNDED, Normalizer
from core.episodes.plausibility import impossible_meanings
from core.errors import ConfigError, did_you_mean
from core.loading.dataset import Dataset
from core.loading.held_out import Split, episode_ids, hold_out
from core.loading.loader import Loader
from core.loading.mixture import Member, Mixture
from core.loading.order import EpisodeStreams, Order, ShuffledWindows
from core.loading.value_checks import doubtful_normalization
from core.loading.windows import Windows
from core.recipe.contents import Recipe


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
    def instructions(self) -> set[str]:
        """The different instructions of all episodes, those of the held-out ones included."""
        return {text for dataset in self.datasets for _, text in dataset.view.store.tasks}

    @property
    def embodiments(self) -> tuple[str, ...]:
        """Label of each dataset, by its index in Batch.embodiment; "" for a single dataset."""
        return tuple(dataset.label for dataset in self.datasets)

    @cached_property
    def _splits(self) -> list[Split]:
        """Training and held-out episodes of each dataset.

        Raises ConfigError for an episode of `data.validation_ids` that no store has.
        """
        config = self.recipe.data
        stores = [(dataset.view.store, dataset.label) for dataset in self.datasets]
        if config.validation_ids:
            known = [name for store, label in stores for name in episode_ids(store, label)]
            mistakes = [
                f"data.validation_ids: no episode '{name}'{did_you_mean(name, known)}"
                for name in config.validation_ids
                if name not in known
            ]
            if mistakes:
                raise ConfigError(mistakes)
        return [hold_out(store, config, label) for store, label in stores]

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
        """The held-out windows, without overlap: each held-out frame is in exactly one window.

        There are none if the recipe holds nothing out.
        """
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
        return [split.training for split in self._splits]

    @property
    def _held_out_episodes(self) -> list[np.ndarray]:
        return [split.held_out for split in self._splits]

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
    ) -> tuple[Loader, Loader | None]:
        """Return the loader of the training windows, and that of the held-out windows, if any."""

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

        training: Order = ShuffledWindows(self.training)
        held_out: Order = ShuffledWindows(self.validation)
        if self.recipe.data.sampling == "episodes":
            training = self._streams
            held_out = EpisodeStreams(self._one_window_each(self._held_out_episodes))
        return loader(training), loader(held_out) if self.validation.window_count else None

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

    def doubts(self) -> Iterator[str]:
        """Yield a line for what is assumed, and for each dimension that looks wrong.

        Its unit or its gripper cannot be, or normalisation does not suit its values.
        """
        for dataset in self.datasets:
            where = f"{dataset.label}: " if dataset.label else ""
            if assumed := dataset.view.store.info.assumed:
                yield f"warning: {where}assumed: {', '.join(assumed)}; joinery show says why"
            store = dataset.view.store  # what a mixture makes of it may lack dimensions
            for line in impossible_meanings(store.info.action, store.statistics["action"]):
                yield f"warning: {where}{line}; joinery edit corrects it"
            for line in doubtful_normalization(dataset):
                yield f"warning: {where}{line}"

    def describe_held_out(self) -> str:
        """Say how many episodes of how many tasks are held out."""
        counts = [len(episodes) for episodes in self._held_out_episodes]
        total = sum(len(dataset.view.store) for dataset in self.datasets)
        if not any(counts):
            return f"validation: none of the {total} episodes is held out"
        tasks = {
            dataset.task_name(episode)
            for dataset, episodes in zip(self.datasets, self._held_out_episodes, strict=True)
            for episode in episodes.tolist()
        }
        return f"validation: {sum(counts)} of {total} episodes, of {len(tasks)} tasks"

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
