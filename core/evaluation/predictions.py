"""Predicted and true actions on validation episodes, for the report's plots."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from core.environments.environment import Observation
from core.errors import ConfigError
from core.evaluation.files import write_arrays
from core.loading.held_out import hold_out
from core.loading.opening import open_views
from core.loading.view import StoreView
from core.recipe.contents import Recipe
from core.rollout.actor import Actor, disagreements
from core.store.store import EpisodeStore

# the report shows the curves of at most this many episodes
SHOWN_EPISODES = 6
# so many frames of an episode are read at once; an episode may be longer than the memory is large
FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class HeldOutErrors:
    """How far the predicted actions of held-out episodes lie from those that were done.

    names: names of the action's dimensions (A).
    episodes, frames: number of held-out episodes, and of the frames at which chunks were predicted.
    errors: (H A) mean absolute errors of the chunks' actions, by step of the chunk, in the units of
        the data. Steps after the end of an episode do not count; a step that no episode has is NaN.
    constant: (A) mean absolute error of the best constant action of all these episodes, which
        needs no observation.
    """

    names: tuple[str, ...]
    episodes: int
    frames: int
    errors: np.ndarray
    constant: np.ndarray


def write_predictions(
    actor: Actor, recipe: Recipe, path: Path, most: int = SHOWN_EPISODES
) -> HeldOutErrors:
    """Predict the actions of held-out episodes, and write those of up to six of them.

    most: how many episodes are predicted, at most; they are taken of each task in turn.

    Actions are in the units of the data. The file holds `names` (A), the names of the action's
    dimensions. For each of these episodes, numbered i = 0, 1, 2, ..., the file holds `i/task`,
    `i/instruction`, true actions `i/true` (n A) and predicted chunks `i/predicted` (n H A).

    Raises DataError or ConfigError if the data are missing or differ from those that the policy was
    trained on, or if the recipe holds nothing out.
    """
    view, label = view_of_evaluated_store(recipe)
    store = view.store
    if mistakes := disagreements(actor.info, view.info, "the policy", f"store {store.path}"):
        raise ConfigError(mistakes)
    needed = (*actor.info.cameras, *actor.info.features)
    if missing := [name for name in needed if name not in view.recorded]:
        raise ConfigError(
            f"predictions: store {store.path} has no {', '.join(missing)}; name another store"
        )
    held_out = hold_out(store, recipe.data, label).held_out
    if not len(held_out):
        raise ConfigError(f"data.validation_...: the recipe holds nothing of {store.path} out")
    arrays = {"names": np.array(actor.info.action.names)}
    errors = ErrorSums()
    for number, episode in enumerate(order_by_turns(store, held_out)[:most]):
        frames = np.arange(0, store.length[episode], view.period)
        true = view.actions(np.array([episode]), frames[None])[0]
        predicted = predict_episode(actor, view, episode)
        errors.add(true, predicted)
        if number < SHOWN_EPISODES:
            arrays[f"{number}/task"] = np.array(store.task_name(episode))
            arrays[f"{number}/instruction"] = np.array(store.instruction(episode))
            arrays[f"{number}/true"], arrays[f"{number}/predicted"] = true, predicted
    write_arrays(path, arrays)
    return errors.summary(actor.info.action.names)


class ErrorSums:
    """Adds up the absolute errors of many episodes."""

    def __init__(self) -> None:
        self._true: list[np.ndarray] = []
        self._sums: np.ndarray | float = 0.0
        self._counts: np.ndarray | float = 0.0

    def add(self, true: np.ndarray, predicted: np.ndarray) -> None:
        """Add an episode: true actions (n A), and the chunk predicted at each frame (n H A)."""
        length, horizon, _ = predicted.shape
        steps = np.arange(length)[:, None] + np.arange(horizon)  # (n H)
        inside = (steps < length)[..., None]
        difference = np.abs(predicted - true[np.minimum(steps, length - 1)])
        self._sums = self._sums + np.where(inside, difference, 0.0).sum(axis=0)
        self._counts = self._counts + inside.sum(axis=0)
        self._true.append(true)

    def summary(self, names: tuple[str, ...]) -> HeldOutErrors:
        """Return the mean errors."""
        true = np.concatenate(self._true).astype(np.float64)
        counts = np.asarray(self._counts)
        return HeldOutErrors(
            names=names,
            episodes=len(self._true),
            frames=len(true),
            errors=np.where(counts > 0, self._sums / np.maximum(counts, 1), np.nan),
            constant=np.abs(true - np.median(true, axis=0)).mean(axis=0),
        )


def view_of_evaluated_store(recipe: Recipe) -> tuple[StoreView, str]:
    """Return a view of the store that `evaluate.store` names, by default the first, and its label.

    The label is empty if the recipe has a single store.
    """
    views = open_views(recipe)
    if not recipe.data.stores:
        return views[0], ""
    labels = [source.label for source in recipe.data.store_configs]
    chosen = recipe.evaluate.store if recipe.evaluate else None
    number = labels.index(chosen) if chosen in labels else 0
    return views[number], labels[number]


def order_by_turns(store: EpisodeStore, episodes: np.ndarray) -> list[int]:
    """Order episodes so that tasks alternate: first each task's first episode, then its second."""
    counts: dict[str, int] = {}
    turns = []
    for episode in episodes.tolist():
        task = store.task_name(episode)
        counts[task] = counts.get(task, 0) + 1
        turns.append((counts[task], episode))
    return [episode for _, episode in sorted(turns)]


def predict_episode(actor: Actor, view: StoreView, episode: int) -> np.ndarray:
    """Let the policy act on each frame in turn; return the predicted chunks (n H A)."""
    seed = crc32(f"episode {view.store.episode_id(episode)}".encode())
    instruction = view.store.instruction(episode)
    state = actor.reset(actor.start(1), {0: seed})
    chunks = []
    for observation in _observations(actor, view, episode):
        chunk, state = actor.step([observation], [instruction], state)
        chunks.append(chunk[0])
    return np.stack(chunks)


def _observations(actor: Actor, view: StoreView, episode: int) -> Iterator[Observation]:
    """Read an episode's frames as observations with the policy's cameras and features.

    Only FRAMES_AT_ONCE frames of each camera and feature are in memory at a time.
    """
    times = np.arange(0, view.store.length[episode], view.period)
    proprio = view.proprio(np.array([episode]), times[None])[0]
    actions = view.actions(np.array([episode]), times[None])[0]
    for begin in range(0, len(times), FRAMES_AT_ONCE):
        chosen = times[begin : begin + FRAMES_AT_ONCE]
        images = {
            name: np.empty((len(chosen), camera.height, camera.width, 3), np.uint8)
            for name, camera in actor.info.cameras.items()
        }
        features = {
            name: np.empty((len(chosen), *feature.shape), feature.dtype)
            for name, feature in actor.info.features.items()
        }
        for name, frames in {**images, **features}.items():
            view.read_frames(name, episode, int(chosen[0]), frames)
        for t in range(len(chosen)):
            yield Observation(
                {name: frames[t] for name, frames in images.items()},
                proprio[begin + t],
                # if a feature has no dimensions, frames[t] would be a scalar instead of an array
                {name: frames[t, ...] for name, frames in features.items()},
                past_action=actions[begin + t - 1] if begin + t else None,
            )
