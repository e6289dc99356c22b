"""What a store holds, and what about it looks wrong: measured on all numbers, and on the pictures of some episodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from core.data.store import EpisodeStore

OUTLIER = 5.0  # times the span of the middle 98 %, beyond it
IDLE = 0.01  # of a dimension's middle 98 % over the store: an episode that moves less in every dimension does nothing
LOOKED_AT = 16  # episodes whose pictures are decoded


@dataclass(frozen=True)
class TaskSummary:
    """A task's episodes, and how long they are in frames."""

    name: str
    episodes: int
    frames: int
    shortest: int
    longest: int
    instructions: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What was found; suspicions are one line each, what and where."""

    tasks: tuple[TaskSummary, ...]
    suspicions: tuple[str, ...]


def inspect(store: EpisodeStore) -> Inspection:
    """Look at a store's tasks, numbers and some of its pictures; raises DataError for what is damaged."""
    suspicions = [*_dimensions(store), *_idle_episodes(store), *_repeated_frames(store)]
    return Inspection(tuple(_tasks(store)), tuple(suspicions))


def _tasks(store: EpisodeStore) -> Iterator[TaskSummary]:
    names = np.array([store.task_name(episode) for episode in range(len(store))])
    for name in dict.fromkeys(names.tolist()):
        chosen = np.flatnonzero(names == name)
        lengths = store.length[chosen]
        told = dict.fromkeys(store.instruction(int(episode)) for episode in chosen)
        yield TaskSummary(name, len(chosen), int(lengths.sum()), int(lengths.min()), int(lengths.max()), tuple(told))


def _dimensions(store: EpisodeStore) -> Iterator[str]:
    """Dimensions that never change, and values far outside of what is usual."""
    for feature, names in (("action", store.info.action.names), ("proprio", store.info.proprio)):
        statistics = store.statistics[feature]
        low, high = statistics.quantile(0.01), statistics.quantile(0.99)
        for d, name in enumerate(names):
            least, most, span = statistics.min[d], statistics.max[d], high[d] - low[d]
            if least == most:
                yield f"{feature} {name} is {least:g} throughout"
            elif span > 0 and max(most - high[d], low[d] - least) > OUTLIER * span:
                usual = f"98 % of it from {low[d]:.4g} to {high[d]:.4g}"
                yield f"{feature} {name} reaches from {least:.4g} to {most:.4g}, {usual}"


def _idle_episodes(store: EpisodeStore) -> Iterator[str]:
    """Episodes in which no action dimension moves by a hundredth of its spread, or that are one frame long."""
    statistics = store.statistics["action"]
    spread = statistics.quantile(0.99) - statistics.quantile(0.01)
    idle, short = [], []
    for episode, length in enumerate(store.length.tolist()):
        if length == 1:
            short.append(store.episode_id(episode))
        elif np.all(np.ptp(store.actions(episode, 0, length), axis=0) <= IDLE * spread):
            idle.append(store.episode_id(episode))
    if short:
        yield f"{len(short)} episodes of a single frame: {_few(short)}"
    if idle:
        yield f"{len(idle)} episodes whose actions hardly change: {_few(idle)}"


def _repeated_frames(store: EpisodeStore) -> Iterator[str]:
    """Frames that equal the one before: a camera that was slower than the recording, or stood still."""
    chosen = np.unique(np.linspace(0, len(store) - 1, min(LOOKED_AT, len(store))).round().astype(int))
    for camera, shape in store.info.cameras.items():
        repeated, pairs = 0, 0
        for episode in chosen.tolist():
            frames = np.empty((int(store.length[episode]), shape.height, shape.width, 3), np.uint8)
            store.read_frames(camera, episode, 0, len(frames), frames)
            repeated += int(np.all(frames[1:] == frames[:-1], axis=(1, 2, 3)).sum())
            pairs += len(frames) - 1
        if pairs and repeated / pairs > 0.1:
            yield f"camera {camera}: {repeated / pairs:.0%} of the frames equal the one before"


def _few(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")
