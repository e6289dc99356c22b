"""What the policy would have done in demonstrations that it never trained on, for the eye:
predicted beside true.
"""

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from core.environments.environment import Observation
from core.errors import ConfigError
from core.evaluation.journal import write_arrays
from core.loading.training_data import open_views
from core.loading.view import StoreView
from core.loading.windows import split_by_task
from core.recipe.recipe import Recipe
from core.rollout.actor import Actor, disagreements
from core.store.store import EpisodeStore

EPISODES = 6


def write_predictions(actor: Actor, recipe: Recipe, path: Path) -> None:
    """Write up to six validation episodes: true actions (n A) and predicted chunks (n H A) in the
    data's units.

    Arrays: `names` (A), and per episode i `i/task`, `i/instruction`, `i/true`, `i/predicted`.
    Raises DataError or ConfigError where the data are not at hand, or no longer those that the
    policy was trained on.
    """
    view = open_views(recipe)[_number_of(recipe)]
    store = view.store
    if mistakes := disagreements(actor.info, view.info, "the policy"):
        raise ConfigError(mistakes)
    lacking = [
        name for name in (*actor.info.cameras, *actor.info.features) if name not in view.recorded
    ]
    if lacking:
        raise ConfigError(
            f"predictions: store {store.path} has no {', '.join(lacking)}; name another store"
        )
    _, held_out = split_by_task(store, recipe.data.validation_episodes)
    arrays = {"names": np.array(actor.info.action.names)}
    for number, episode in enumerate(_one_per_task_first(store, held_out)[:EPISODES]):
        arrays[f"{number}/task"] = np.array(store.task_name(episode))
        arrays[f"{number}/instruction"] = np.array(store.instruction(episode))
        frames = np.arange(0, store.length[episode], view.period)
        arrays[f"{number}/true"] = view.actions(np.array([episode]), frames[None])[0]
        arrays[f"{number}/predicted"] = _predict(actor, view, episode)
    write_arrays(path, arrays)


def _number_of(recipe: Recipe) -> int:
    """Which of the recipe's stores the policy acts in the scale of."""
    wanted = recipe.evaluate.store if recipe.evaluate else None
    return next(
        (i for i, config in enumerate(recipe.data.store_configs) if config.label == wanted), 0
    )


def _one_per_task_first(store: EpisodeStore, episodes: np.ndarray) -> list[int]:
    seen: dict[str, int] = {}
    turns = []
    for episode in episodes.tolist():
        task = store.task_name(episode)
        seen[task] = seen.get(task, 0) + 1
        turns.append((seen[task], episode))
    return [episode for _, episode in sorted(turns)]


def _predict(actor: Actor, view: StoreView, episode: int) -> np.ndarray:
    """Let the policy look at one frame after the other -> chunks (n H A)."""
    state, chunks = actor.reset(actor.start(1), {0: _policy_seed(view, episode)}), []
    for observation in _observations(actor, view, episode):
        chunk, state = actor.step([observation], [view.store.instruction(episode)], state)
        chunks.append(chunk[0])
    return np.stack(chunks)


def _policy_seed(view: StoreView, episode: int) -> int:
    """Of what the policy draws at random."""
    return crc32(f"episode {view.store.episode_id(episode)}".encode())


def _observations(actor: Actor, view: StoreView, episode: int) -> Sequence[Observation]:
    times = np.arange(0, view.store.length[episode], view.period)
    images = {
        name: np.empty((len(times), camera.height, camera.width, 3), np.uint8)
        for name, camera in actor.info.cameras.items()
    }
    features = {
        name: np.empty((len(times), *of.shape), of.dtype)
        for name, of in actor.info.features.items()
    }
    for name, frames in {**images, **features}.items():
        view.read_frames(name, episode, 0, frames)
    proprio = view.proprio(np.array([episode]), times[None])[0]
    return [
        Observation(
            {name: frames[t] for name, frames in images.items()},
            proprio[t],
            {name: frames[t, ...] for name, frames in features.items()},
        )
        for t in range(len(times))
    ]
