"""Inspects a store: lists its tasks, and what looks wrong about its numbers and images.

All numbers are inspected, but only some episodes' images, because images must be decoded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from core.episodes.plausibility import implausible_numbers
from core.episodes.spread import spread_evenly
from core.report.store_numbers import names_by_feature, read_numbers
from core.store.store import EpisodeStore

# An episode is idle if no action dimension moves by more than this share of its usual range, which
# is the range of the middle 98 % of the dimension's values in the store.
IDLE_SHARE = 0.01
# Images of at most this many episodes are decoded; the episodes are spread evenly over the store.
DECODED_EPISODES = 16
# Images are decoded in stretches of neighbouring frames. Maximum number of stretches in an episode,
# and number of frames in a stretch; the stretches are spread evenly over the episode.
STRETCHES, STRETCH_FRAMES = 32, 8
# A camera is suspicious if more than this share of its frames are equal to the previous frame.
REPEATED_SHARE = 0.1
# A frame is of a single colour if the greatest and the least value of each channel (0 to 255)
# differ by at most this. JPEG changes the pixels of a single-coloured frame by less.
SINGLE_COLOUR_RANGE = 8


@dataclass(frozen=True)
class TaskSummary:
    """A summary of a task's episodes.

    first: index of the task's first episode.
    episodes, frames: number of episodes of the task, and number of frames in all of them.
    shortest, longest: number of frames in the task's shortest and longest episode.
    """

    name: str
    first: int
    episodes: int
    frames: int
    shortest: int
    longest: int
    instructions: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What an inspection of a store showed.

    suspicions: a line for each thing that looks wrong; the line says where it is in the store.
    decoded_episodes: the number of episodes whose images were decoded.
    """

    tasks: tuple[TaskSummary, ...]
    suspicions: tuple[str, ...]
    decoded_episodes: int


@dataclass(frozen=True)
class _FrameCheck:
    """What one camera showed in an episode.

    frames: number of frames that were checked.
    pairs: number of pairs of neighbouring frames that were compared.
    repeated: number of pairs that are equal.
    single_colour: number of frames of a single colour.
    """

    episode: str
    frames: int
    pairs: int
    repeated: int
    single_colour: int


def inspect(store: EpisodeStore) -> Inspection:
    """Inspect a store's tasks, its numbers, and some of its images; raises DataError for damage."""
    episodes = spread_evenly(len(store), DECODED_EPISODES)
    # A store that another program wrote may hold infinities, whose differences are NaN.
    with np.errstate(invalid="ignore"):
        suspicions = [
            *implausible_numbers(store.info, store.statistics),
            *_dimensions_not_finite(store),
            *_suspicious_episodes(store),
            *_suspicious_cameras(store, episodes),
        ]
    return Inspection(tuple(_summarise_tasks(store)), tuple(suspicions), len(episodes))


def _summarise_tasks(store: EpisodeStore) -> Iterator[TaskSummary]:
    by_task: dict[str, list[int]] = {}
    for episode in range(len(store)):
        by_task.setdefault(store.task_name(episode), []).append(episode)
    for name, episodes in by_task.items():
        lengths = store.length[episodes]
        yield TaskSummary(
            name=name,
            first=episodes[0],
            episodes=len(episodes),
            frames=int(lengths.sum()),
            shortest=int(lengths.min()),
            longest=int(lengths.max()),
            instructions=tuple(dict.fromkeys(map(store.instruction, episodes))),
        )


# ------------------------------------------------------------------------------------------ numbers


def _dimensions_not_finite(store: EpisodeStore) -> Iterator[str]:
    """Name the dimensions with NaN or infinite values; Joinery itself writes no such values."""
    episodes_by_name: dict[str, list[str]] = {}
    for episode in range(len(store)):
        numbers = read_numbers(store, episode)
        for feature, names in names_by_feature(store.info).items():
            for d in np.flatnonzero(~np.isfinite(numbers[feature]).all(axis=0)):
                ids = episodes_by_name.setdefault(f"{feature} {names[d]}", [])
                ids.append(store.episode_id(episode))
    for name, ids in episodes_by_name.items():
        yield f"{name} is NaN or infinite in {len(ids)} episodes: {_first_names(ids)}"


def _suspicious_episodes(store: EpisodeStore) -> Iterator[str]:
    """Name episodes of one frame, idle episodes, and episodes that repeat another's actions."""
    statistics = store.statistics["action"]
    idle_range = IDLE_SHARE * (statistics.quantile(0.99) - statistics.quantile(0.01))
    first_episodes: dict[bytes, str] = {}  # {digest of the actions: id of the episode}
    idle, short, duplicates = [], [], []
    for episode, length in enumerate(store.length.tolist()):
        name, actions = store.episode_id(episode), store.actions(episode, 0, length)
        if length == 1:
            short.append(name)
        elif np.all(actions.max(axis=0) - actions.min(axis=0) <= idle_range):
            idle.append(name)
        else:
            digest = blake2b(actions.tobytes(), digest_size=16).digest()
            first = first_episodes.setdefault(digest, name)
            if first != name:
                duplicates.append(f"{name} as {first}")
    if short:
        yield f"{len(short)} episodes of a single frame: {_first_names(short)}"
    if idle:
        yield f"{len(idle)} episodes whose actions hardly change: {_first_names(idle)}"
    if duplicates:
        names = _first_names(duplicates)
        yield f"{len(duplicates)} episodes have the very actions of another: {names}"


# ------------------------------------------------------------------------------------------- images


def _suspicious_cameras(store: EpisodeStore, episodes: Sequence[int]) -> Iterator[str]:
    """Name cameras whose frames often equal the previous frame, or are of a single colour."""
    for camera in store.info.cameras:
        checks = [_check_frames(store, camera, episode) for episode in episodes]
        pairs, frames = sum(check.pairs for check in checks), sum(check.frames for check in checks)
        repeated = sum(check.repeated for check in checks) / max(1, pairs)
        frozen = [check.episode for check in checks if check.repeated > check.pairs / 2]
        if repeated > REPEATED_SHARE:
            yield f"camera {camera}: {repeated:.0%} of the frames equal the one before"
        elif frozen:
            yield (
                f"camera {camera}: most frames equal the one before in {len(frozen)} episodes: "
                f"{_first_names(frozen)}"
            )
        if single_colour := [check.episode for check in checks if check.single_colour]:
            count = sum(check.single_colour for check in checks)
            yield (
                f"camera {camera}: {count} of {frames} frames are of a single colour, "
                f"in {_first_names(single_colour)}"
            )


def _check_frames(store: EpisodeStore, camera: str, episode: int) -> _FrameCheck:
    """Check stretches of frames of an episode; only one stretch at a time is in memory."""
    length = int(store.length[episode])
    starts = np.arange(0, length, STRETCH_FRAMES)
    frame_count = pairs = repeated = single_colour = 0
    for start in starts[spread_evenly(len(starts), STRETCHES)].tolist():
        count = min(STRETCH_FRAMES, length - start)
        frames = store.empty_frames(camera, episode, start, start + count)
        store.read_frames(camera, episode, start, start + count, frames)
        frame_count, pairs = frame_count + count, pairs + count - 1
        repeated += sum(map(_are_equal, frames[1:], frames[:-1]))
        single_colour += sum(map(_is_single_colour, frames))
    return _FrameCheck(store.episode_id(episode), frame_count, pairs, repeated, single_colour)


def _are_equal(frame: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two frames are equal; comparing the first rows finds most differences fast."""
    return np.array_equal(frame[:8], other[:8]) and np.array_equal(frame, other)


def _is_single_colour(frame: np.ndarray) -> bool:
    """Return whether a frame is of a single colour; a few pixels often show that it is not."""
    return all(
        np.ptp(pixels.reshape(-1, 3), axis=0).max() <= SINGLE_COLOUR_RANGE
        for pixels in (frame[::8, ::8], frame)
    )


def _first_names(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")
