"""What a store holds, and what about it looks wrong: measured on all numbers, and on pictures of
some episodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from core.store.store import EpisodeStore

OUTLIER = 5.0  # times the span of the middle 98 %, beyond it
# of a dimension's middle 98 % over the store: an episode that moves less in every dimension does
# nothing
IDLE = 0.01
LOOKED_AT = 16  # episodes whose pictures are decoded
BLOCKS, BLOCK = (
    32,
    8,
)  # of each at most so many stretches of so many frames, spread over the episode
REPEATED = 0.1  # of the frames: more that equal the one before look wrong
# of 255: a frame whose pixels differ by no more is of a single colour, what JPEG adds included
FLAT = 8


@dataclass(frozen=True)
class TaskSummary:
    """A task's episodes, and how long they are in frames; first: the number of its first episode."""

    name: str
    first: int
    episodes: int
    frames: int
    shortest: int
    longest: int
    instructions: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What was found; suspicions are one line each, what and where. looked_at: episodes whose
    pictures were decoded.
    """

    tasks: tuple[TaskSummary, ...]
    suspicions: tuple[str, ...]
    looked_at: int


@dataclass(frozen=True)
class _Look:
    """What was seen of an episode through a camera: frames, pairs of neighbours, pairs that are
    equal, flat frames.
    """

    episode: str
    frames: int
    pairs: int
    repeated: int
    flat: int


def inspect(store: EpisodeStore) -> Inspection:
    """Look at a store's tasks, numbers and some of its pictures; raises DataError for what is
    damaged.
    """
    chosen = np.unique(
        np.linspace(0, len(store) - 1, min(LOOKED_AT, len(store))).round().astype(int)
    ).tolist()
    with np.errstate(
        invalid="ignore"
    ):  # infinity less infinity, where a store holds what no writer of ours lets in
        suspicions = [
            *_dimensions(store),
            *_not_finite(store),
            *_episodes(store),
            *_pictures(store, chosen),
        ]
    return Inspection(tuple(_tasks(store)), tuple(suspicions), len(chosen))


def reaches_far(least: float, low: float, high: float, most: float) -> bool:
    """Whether values lie far outside of their middle 98 %, low to high."""
    return high > low and max(most - high, low - least) > OUTLIER * (high - low)


def _tasks(store: EpisodeStore) -> Iterator[TaskSummary]:
    of_task: dict[str, list[int]] = {}
    for episode in range(len(store)):
        of_task.setdefault(store.task_name(episode), []).append(episode)
    for name, chosen in of_task.items():
        lengths = store.length[chosen]
        told = tuple(dict.fromkeys(map(store.instruction, chosen)))
        spread = int(lengths.sum()), int(lengths.min()), int(lengths.max())
        yield TaskSummary(name, chosen[0], len(chosen), *spread, told)


# ------------------------------------------------------------------------------------------ numbers


def _dimensions(store: EpisodeStore) -> Iterator[str]:
    """Dimensions that never change, and values far outside of what is usual."""
    for feature, names in (("action", store.info.action.names), ("proprio", store.info.proprio)):
        s = store.statistics[feature]
        for name, least, low, high, most in zip(
            names, s.min, s.quantile(0.01), s.quantile(0.99), s.max, strict=True
        ):
            if least == most:
                yield f"{feature} {name} is {least:g} throughout"
            elif reaches_far(least, low, high, most):
                usual = f"98 % of it from {low:.4g} to {high:.4g}"
                yield f"{feature} {name} reaches from {least:.4g} to {most:.4g}, {usual}"


def _not_finite(store: EpisodeStore) -> Iterator[str]:
    """Numbers that are none: our writers refuse them, others may not have."""
    found: dict[str, list[str]] = {}
    for episode, length in enumerate(store.length.tolist()):
        numbers = {
            "action": store.actions(episode, 0, length),
            "proprio": store.proprio(episode, 0, length),
        }
        for feature, names in (
            ("action", store.info.action.names),
            ("proprio", store.info.proprio),
        ):
            for d in np.flatnonzero(~np.isfinite(numbers[feature]).all(axis=0)):
                found.setdefault(f"{feature} {names[d]}", []).append(store.episode_id(episode))
    for name, episodes in found.items():
        yield f"{name} is NaN or infinite in {len(episodes)} episodes: {_few(episodes)}"


def _episodes(store: EpisodeStore) -> Iterator[str]:
    """Episodes of one frame, those in which no action moves by a hundredth of its spread, and those
    that come twice.
    """
    statistics = store.statistics["action"]
    least = IDLE * (statistics.quantile(0.99) - statistics.quantile(0.01))
    first: dict[bytes, str] = {}
    idle, short, again = [], [], []
    for episode, length in enumerate(store.length.tolist()):
        name, actions = store.episode_id(episode), store.actions(episode, 0, length)
        if length == 1:
            short.append(name)
        elif np.all(actions.max(axis=0) - actions.min(axis=0) <= least):
            idle.append(name)
        elif (
            like := first.setdefault(blake2b(actions.tobytes(), digest_size=16).digest(), name)
        ) != name:
            again.append(f"{name} as {like}")
    if short:
        yield f"{len(short)} episodes of a single frame: {_few(short)}"
    if idle:
        yield f"{len(idle)} episodes whose actions hardly change: {_few(idle)}"
    if again:
        yield f"{len(again)} episodes have the very actions of another: {_few(again)}"


# ----------------------------------------------------------------------------------------- pictures


def _pictures(store: EpisodeStore, episodes: Sequence[int]) -> Iterator[str]:
    """Frames that equal the one before, from a camera that was slow or stood still, and frames that
    show nothing.
    """
    for camera in store.info.cameras:
        looks = [_look(store, camera, episode) for episode in episodes]
        pairs, frames = sum(look.pairs for look in looks), sum(look.frames for look in looks)
        share = sum(look.repeated for look in looks) / max(1, pairs)
        still = [look.episode for look in looks if look.repeated > look.pairs / 2]
        flat = [look.episode for look in looks if look.flat]
        if share > REPEATED:
            yield f"camera {camera}: {share:.0%} of the frames equal the one before"
        elif still:
            yield f"camera {camera}: most frames equal the one before in {len(still)} episodes: {_few(still)}"
        if flat:
            count = sum(look.flat for look in looks)
            yield f"camera {camera}: {count} of {frames} frames are of a single colour, in {_few(flat)}"


def _look(store: EpisodeStore, camera: str, episode: int) -> _Look:
    """Look at stretches of an episode's frames, one in memory at a time."""
    shape, length = store.info.cameras[camera], int(store.length[episode])
    begins = np.arange(0, length, BLOCK)
    begins = begins[
        np.unique(np.linspace(0, len(begins) - 1, min(BLOCKS, len(begins))).round().astype(int))
    ]
    seen = pairs = repeated = flat = 0
    for begin in begins.tolist():
        frames = np.empty((min(BLOCK, length - begin), shape.height, shape.width, 3), np.uint8)
        store.read_frames(camera, episode, begin, begin + len(frames), frames)
        seen, pairs = seen + len(frames), pairs + len(frames) - 1
        repeated += sum(map(_equal, frames[1:], frames[:-1]))
        flat += sum(map(_flat, frames))
    return _Look(store.episode_id(episode), seen, pairs, repeated, flat)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two frames are the same; most differ in their first rows already."""
    return np.array_equal(one[:8], other[:8]) and np.array_equal(one, other)


def _flat(frame: np.ndarray) -> bool:
    """Whether a frame is of a single colour; a few of its pixels mostly say that it is not."""
    return _span(frame[::8, ::8]) <= FLAT and _span(frame) <= FLAT


def _span(frame: np.ndarray) -> int:
    pixels = frame.reshape(-1, 3).T
    return max(int(channel.max()) - int(channel.min()) for channel in pixels)


def _few(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")
