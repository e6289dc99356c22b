"""Validates a checkpoint on any store that fits: how far its predicted actions lie from those done.

The policy reads each episode frame by frame, with its memory, and its actions are not executed:
the loop between actions and observations stays open.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from core.episodes.conventions import incompatibilities, rotation_names
from core.episodes.episode import StoreInfo
from core.episodes.normalization import Normalizer
from core.episodes.units import units_by_name, units_in_order
from core.errors import ConfigError, DataError
from core.evaluation.predictions import (
    ErrorSums,
    HeldOutErrors,
    order_by_turns,
    predict_episode,
)
from core.loading.held_out import hold_out
from core.loading.opening import fit_normalizers
from core.loading.view import StoreView, view_of
from core.policy.trained_state import read_state
from core.recipe.contents import Recipe
from core.recipe.sections import StoreConfig
from core.rollout.actor import disagreements, load_actor
from core.store.location import URL
from core.store.store import EpisodeStore
from core.weights.checkpoint import Checkpoint, choose_checkpoint


@dataclass(frozen=True)
class TaskError:
    """Mean squared errors of normalised action chunks, as validation in training measures them.

    error: of the policy.
    constant: of the best constant action, which is fitted to the same episodes of the task.
    """

    episodes: int
    frames: int
    error: float
    constant: float

    @property
    def improvement(self) -> float:
        """How far `error` lies below `constant`, as a fraction of `constant`."""
        return 1.0 - self.error / self.constant if self.constant else 0.0


@dataclass(frozen=True)
class OpenLoop:
    """The errors of a checkpoint on a store.

    checkpoint: name of the checkpoint's folder.
    held_out: whether the episodes are those that the run's recipe holds out of this store.
    total: the errors over all tasks; its constant action is the best of each task.
    in_units: mean absolute errors by step of the chunk and dimension, in the units of the policy's
        actions.
    """

    checkpoint: str
    held_out: bool
    by_task: Mapping[str, TaskError]
    total: TaskError
    in_units: HeldOutErrors


def validate_on_store(
    run: Path,
    recipe: Recipe,
    path: Path | URL,
    checkpoint: Literal["last", "best"] | int = "last",
    label: str | None = None,
    most: int | None = None,
    moved: Mapping[str, str] | None = None,
) -> OpenLoop:
    """Return the errors of a run's policy on a store.

    If the run was trained on this store and holds episodes of it out, these alone are predicted.
    The store is recognised by its contents, wherever it is now.

    recipe: the run's.
    checkpoint: "last", "best" (by validation error), or the step after which it was saved.
    label: for a policy that was trained on several stores, the store whose names and normalisers
        are used; default: the store at `path`, if it is one of them, or else the first.
    most: how many episodes are predicted at most, of each task in turn; default: all.
    moved: {former place of a file or folder: its place now}, for building the policy.

    Raises ConfigError with a line for each reason why the store does not fit the policy.
    """
    store, source = EpisodeStore(path), choose_checkpoint(run, checkpoint)
    config = _config_of(recipe, store, label, source)
    if recipe.data.stores and config:
        label = config.label
    actor = load_actor(run, source.step, label, moved=moved)
    view = _fitting_view(actor.info, store, config, is_mixture=bool(recipe.data.stores))
    episodes = np.arange(len(store))
    if trained_here := config is not None and _is_of_training(recipe, store, config, source):
        held_out = hold_out(store, recipe.data, label or "").held_out
        trained_here = len(held_out) > 0
        episodes = held_out if trained_here else episodes
    if not len(episodes):
        raise DataError(f"{store.path}: holds no episodes; import some")
    chosen = order_by_turns(store, episodes)[:most]
    in_units, sums = ErrorSums(), dict[str, _SquareSums]()
    for episode in chosen:
        frames = np.arange(0, store.length[episode], view.period)
        true = view.actions(np.array([episode]), frames[None])[0]
        predicted = predict_episode(actor, view, episode)
        in_units.add(true, predicted)
        of_task = sums.setdefault(store.task_name(episode), _SquareSums(actor.action_normalizer))
        of_task.add(true, predicted, view.conversion.has_dimension)
    return OpenLoop(
        actor.checkpoint.folder.name,
        trained_here,
        {task: of_task.error for task, of_task in sorted(sums.items())},
        _total(sums.values()),
        in_units.summary(actor.info.action.names),
    )


# ----------------------------------------------------------------------------- whether a store fits


def _config_of(
    recipe: Recipe, store: EpisodeStore, label: str | None, checkpoint: Checkpoint
) -> StoreConfig | None:
    """Return the recipe's section of a store: that with the label, or else that of the store."""
    for config in recipe.data.store_configs:
        if config.label == label:
            return config
        if label is None and _is_of_training(recipe, store, config, checkpoint):
            return config
    return None


def _is_of_training(
    recipe: Recipe, store: EpisodeStore, config: StoreConfig, checkpoint: Checkpoint
) -> bool:
    """Whether a store is that of a section of the recipe, by its place or by its contents.

    It has the contents of the training data if the same normalisers are fitted to it and, where the
    recipe names a single store, if it has as many episodes and frames.
    """
    if _is_at(store, config.path):
        return True
    is_mixture = bool(recipe.data.stores)
    counts = {"episodes": len(store), "frames": store.frame_count}
    if not is_mixture and checkpoint.state.get("trained_on", counts) != counts:
        return False
    info, action_normalizer, proprio_normalizer = read_state(
        checkpoint, config.label if is_mixture else None
    )
    try:
        view = _fitting_view(info, store, config, is_mixture=is_mixture)
        action, proprio = fit_normalizers(view, recipe)
    except (ConfigError, DataError):
        return False
    is_same_action = action.to_json() == action_normalizer.to_json()
    return is_same_action and proprio.to_json() == proprio_normalizer.to_json()


def _is_at(store: EpisodeStore, path: Path | URL) -> bool:
    """Whether a store is at a path."""
    if isinstance(store.path, Path) and isinstance(path, Path):
        return store.path.resolve() == path.resolve()
    return str(store.path) == str(path)


def _fitting_view(
    info: StoreInfo, store: EpisodeStore, config: StoreConfig | None, *, is_mixture: bool
) -> StoreView:
    """View a store as the policy sees its training data.

    info: describes the policy's training data.
    config: gives the store's cameras and actions other names.
    is_mixture: whether the policy was trained on several stores, some of which may lack action
        dimensions and proprioception.

    Raises ConfigError with a line for each reason why the store does not fit.
    """
    source = store.info
    cameras = config.cameras if config else {}
    if config:
        source = config.new_names.rename(source)
    names = rotation_names([info.action, source.action])
    ratio = source.fps / info.fps
    reasons = [
        f"action.{reason} (here: the store, there: the policy)"
        for reason in incompatibilities(source.action, info.action, ratio, names)
    ]
    reasons += disagreements(
        info, _as_converted(source, info, is_mixture=is_mixture), "the policy", "the store"
    )
    lacking = [name for name in info.action.names if name not in source.action.names]
    if info.action.rotation == source.action.rotation and lacking and not is_mixture:
        reasons.append(
            f"action.names: the policy has {info.action.names}, the store {source.action.names}"
        )
    if reasons:
        raise ConfigError([f"{store.path}: {reason}" for reason in reasons])
    return view_of(store, source, cameras, info, names)


def _as_converted(source: StoreInfo, info: StoreInfo, *, is_mixture: bool) -> StoreInfo:
    """Describe a store as it is after what a view converts: rate, actions, sizes of images."""
    order_alone_differs = set(source.proprio) == set(info.proprio)
    is_part = is_mixture and set(source.proprio) <= set(info.proprio)
    proprio = info.proprio if order_alone_differs or is_part else source.proprio
    units = units_by_name(source.proprio, source.proprio_units)
    return replace(
        source,
        fps=info.fps,
        action=info.action,
        proprio=proprio,
        proprio_units=units_in_order(proprio, units),
        cameras={name: info.cameras.get(name, camera) for name, camera in source.cameras.items()},
    )


# ------------------------------------------------------------------------------------------- errors


class _SquareSums:
    """Adds up what the errors of one task are made of, in normalised actions."""

    def __init__(self, normalizer: Normalizer) -> None:
        self.normalizer = normalizer
        self.episodes = self.frames = 0
        self._targets: list[np.ndarray] = []  # (n A) each, of the dimensions that the store has
        self._squares = 0.0

    def add(self, true: np.ndarray, predicted: np.ndarray, has_dimension: np.ndarray) -> None:
        """Add an episode: true actions (n A), and the chunk predicted at each frame (n H A).

        has_dimension: (A) bool, False for dimensions that do not count.
        """
        length, horizon, _ = predicted.shape
        steps = np.arange(length)[:, None] + np.arange(horizon)  # (n H)
        inside = steps < length  # a chunk reaches past the end of the episode
        target = self.normalizer.normalize(true)[np.minimum(steps, length - 1)][inside]
        difference = self.normalizer.normalize(predicted)[inside] - target
        self._targets.append(target[:, has_dimension].astype(np.float64))
        self._squares += float((difference[:, has_dimension].astype(np.float64) ** 2).sum())
        self.episodes, self.frames = self.episodes + 1, self.frames + length

    @property
    def entries(self) -> int:
        """Number of numbers that were compared."""
        return sum(target.size for target in self._targets)

    @property
    def error(self) -> TaskError:
        """The errors of the task; the best constant action is the mean of the targets."""
        targets = np.concatenate(self._targets)
        constant = float(((targets - targets.mean(axis=0)) ** 2).sum())
        entries = self.entries
        return TaskError(self.episodes, self.frames, self._squares / entries, constant / entries)


def _total(tasks: Iterable[_SquareSums]) -> TaskError:
    """Return the errors over all tasks, in which every number counts the same."""
    pairs = [(task.entries, task.error) for task in tasks]
    entries = sum(count for count, _ in pairs)
    return TaskError(
        sum(error.episodes for _, error in pairs),
        sum(error.frames for _, error in pairs),
        sum(count * error.error for count, error in pairs) / entries,
        sum(count * error.constant for count, error in pairs) / entries,
    )
