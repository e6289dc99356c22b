"""From a recipe's [data] and [action] to batches: the store, checked conventions, normalisers, loaders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from core.contracts import ActionSpec
from core.data.contracts import ActionConvention
from core.data.loader import Loader
from core.data.normalization import Normalizer, ProprioNormalizer
from core.data.store import EpisodeStore
from core.data.windows import Windows, split_by_task
from core.errors import RecipeError, did_you_mean
from core.recipe import Recipe
from core.sections import ActionConfig


@dataclass(frozen=True)
class TrainingData:
    """An opened store and what a recipe makes of it."""

    recipe: Recipe
    store: EpisodeStore
    cameras: tuple[str, ...]
    action_normalizer: Normalizer
    proprio_normalizer: ProprioNormalizer

    @property
    def image_shapes(self) -> dict[str, tuple[int, int, int]]:
        """{camera: (C, Y, X)}."""
        cameras = self.store.info.cameras
        return {name: (3, cameras[name].height, cameras[name].width) for name in self.cameras}

    @property
    def action_spec(self) -> ActionSpec:
        """What the policy head must produce."""
        return self.action_normalizer.spec(self.recipe.data.window, self.recipe.action.horizon)

    @property
    def proprio_dim(self) -> int:
        """Number of proprioceptive values (P)."""
        return len(self.store.info.proprio)

    def loaders(
        self, tokenize: Callable[[str], Sequence[int]], micro_batch: int, device: torch.device
    ) -> tuple[Loader, Loader]:
        """Loaders of the training windows (one from every frame) and of the held-out ones (each frame in one)."""
        window, horizon = self.recipe.data.window, self.recipe.action.horizon
        training, held_out = split_by_task(self.store, self.recipe.data.validation_episodes)
        return (
            self._loader(Windows(self.store, training, window, horizon), tokenize, micro_batch, device),
            self._loader(Windows(self.store, held_out, window, horizon, stride=window), tokenize, micro_batch, device),
        )

    def _loader(
        self, windows: Windows, tokenize: Callable[[str], Sequence[int]], batch_size: int, device: torch.device
    ) -> Loader:
        return Loader(
            windows,
            batch_size=batch_size,
            action_normalizer=self.action_normalizer,
            proprio_normalizer=self.proprio_normalizer,
            tokenize=tokenize,
            cameras=self.cameras,
            threads=self.recipe.data.threads,
            prefetch=self.recipe.data.prefetch,
            device=device,
        )

    def task_of(self) -> dict[str, str]:
        """{episode: task}."""
        return {self.store.episode_id(e): self.store.task_name(e) for e in range(len(self.store))}


def open_data(recipe: Recipe) -> TrainingData:
    """Open the store and fit the normalisers. Raises DataError, or RecipeError where recipe and store disagree."""
    store = EpisodeStore(recipe.data.path)
    mistakes = [*_unknown_cameras(recipe.data.cameras, store), *_other_conventions(recipe.action, store.info.action)]
    if mistakes:
        raise RecipeError([f"{mistake} (store {recipe.data.path})" for mistake in mistakes])
    action = Normalizer.fit(
        store.statistics["action"], store.info.action, recipe.action.normalization, recipe.action.clip_range
    )
    proprio = ProprioNormalizer.fit(store.statistics["proprio"])
    return TrainingData(recipe, store, recipe.data.cameras or tuple(sorted(store.info.cameras)), action, proprio)


def _unknown_cameras(wanted: Sequence[str], store: EpisodeStore) -> list[str]:
    known = sorted(store.info.cameras)
    return [f"data.cameras: no camera '{name}'{did_you_mean(name, known)}" for name in wanted if name not in known]


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
