"""Makes film strips of a store's episodes, traces of their numbers, and thumbnails of tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import numpy as np

from core.errors import ConfigError, did_you_mean
from core.report.film_strips import FilmStrip, choose_steps, encode_still, make_strip, shrink
from core.report.store_distributions import Dimension
from core.report.store_numbers import read_numbers
from core.report.wording import significant
from core.store.store import EpisodeStore

# By default, one episode of each task is shown, but at most this many episodes in all.
MAX_EPISODES = 24
# If the store has fewer tasks than this, further episodes of the tasks are shown, until this many
# episodes are shown in all.
MIN_EPISODES = 8
# A trace has at most this many points. A longer episode is divided into groups of neighbouring
# frames, and the points are the minimum and the maximum of each group.
TRACE_POINTS = 240
# Width and height of the box in which a trace is drawn, in units of the SVG.
TRACE_WIDTH, TRACE_HEIGHT = 1000, 100
# Maximum length in pixels of a thumbnail's longer side.
THUMBNAIL_SIDE = 96


@dataclass(frozen=True)
class Trace:
    """The values of a dimension over the frames of an episode.

    points: the points of a polyline in a box of TRACE_WIDTH x TRACE_HEIGHT. The bottom
        and the top of the box are the ends of the dimension's histogram range.
    values: the value at each frame of the film strip, as text.
    """

    dimension: Dimension
    points: str
    values: Sequence[str]


@dataclass(frozen=True)
class EpisodeFilm:
    """An episode as a film strip, with a trace for each dimension."""

    id: str
    task: str
    instruction: str
    length: int
    strip: FilmStrip
    traces: Sequence[Trace]

    @property
    def seconds(self) -> float:
        """The episode's duration at the store's rate."""
        return self.length / self.strip.per_second

    @property
    def layout(self) -> dict[str, object]:
        """Return what the player needs in addition to the image."""
        values = [trace.values for trace in self.traces]
        return self.strip.layout | {"unit": "frame", "values": values}


@dataclass(frozen=True)
class Thumbnails:
    """The first, the middle and the last frame of an episode, side by side in one JPEG.

    image: the JPEG as a data URI.
    """

    episode: str
    camera: str
    image: str
    width: int
    height: int


def choose_episodes(store: EpisodeStore, ids: Sequence[str] | None) -> list[int]:
    """Return the indices of the episodes to show.

    ids: ids of the episodes to show; default: the first episode of each task, then the second of
        each task, and so on until there are enough.

    Raises ConfigError for ids that the store does not hold.
    """
    if ids is not None:
        numbers = {store.episode_id(episode): episode for episode in range(len(store))}
        unknown = [id_ for id_ in ids if id_ not in numbers]
        if unknown:
            known = sorted(numbers)
            raise ConfigError(
                [f"there is no episode '{id_}'{did_you_mean(id_, known)}" for id_ in unknown]
            )
        return [numbers[id_] for id_ in dict.fromkeys(ids)]
    by_task: dict[str, list[int]] = {}
    for episode in range(len(store)):
        by_task.setdefault(store.task_name(episode), []).append(episode)
    # the first episode of every task, then the second episode of every task, and so on
    rounds = chain.from_iterable(zip_longest(*by_task.values()))
    in_turn = (episode for episode in rounds if episode is not None)
    return sorted(islice(in_turn, min(MAX_EPISODES, max(MIN_EPISODES, len(by_task)))))


def make_film(
    store: EpisodeStore,
    episode: int,
    dimensions: Sequence[Dimension],
    max_side: int,
    max_bytes: int,
) -> EpisodeFilm:
    """Make a film strip of an episode, of at most about `max_bytes`.

    dimensions: the dimensions that get a trace.
    max_side: maximum length in pixels of an image's longer side; larger images are shrunk.
    """
    length = int(store.length[episode])
    steps = choose_steps(length)
    images = {
        camera: _read_shrunk(store, camera, episode, steps, max_side)
        for camera in store.info.cameras
    }
    strip = make_strip(images, steps, store.info.fps, max_bytes)
    numbers = read_numbers(store, episode)
    traces = []
    for dimension in dimensions:
        values = numbers[dimension.feature][:, dimension.index]
        texts = [significant(value) for value in values[list(strip.steps)]]
        traces.append(Trace(dimension, _polyline(values, dimension), texts))
    return EpisodeFilm(
        id=store.episode_id(episode),
        task=store.task_name(episode),
        instruction=store.instruction(episode),
        length=length,
        strip=strip,
        traces=traces,
    )


def make_thumbnails(store: EpisodeStore, episode: int, max_bytes: int) -> list[Thumbnails]:
    """Make thumbnails of an episode: for each camera, a JPEG of about `max_bytes` as text."""
    length = int(store.length[episode])
    thumbnails = []
    for camera in store.info.cameras:
        steps = (0, length // 2, length - 1)
        frames = _read_shrunk(store, camera, episode, steps, THUMBNAIL_SIDE)
        image = np.concatenate(list(frames), axis=1)
        thumbnails.append(
            Thumbnails(
                episode=store.episode_id(episode),
                camera=camera,
                # as text (base64), the image takes a third more bytes
                image=encode_still(image, max_bytes * 3 // 4),
                width=image.shape[1],
                height=image.shape[0],
            )
        )
    return thumbnails


def _read_shrunk(
    store: EpisodeStore, camera: str, episode: int, steps: Sequence[int], max_side: int
) -> np.ndarray:
    """Read and shrink frames (n Y X 3); only one frame at a time is in memory at full size."""
    shape = store.info.cameras[camera]
    frame = np.empty((1, shape.height, shape.width, 3), np.uint8)
    frames = []
    for step in steps:
        store.read_frames(camera, episode, step, step + 1, frame)
        frames.append(shrink(frame, max_side).copy())
    return np.concatenate(frames)


def _polyline(values: np.ndarray, dimension: Dimension) -> str:
    """Return the points of a trace.

    Values outside the dimension's range are drawn at the edge of the box; NaN are left out.
    """
    span = dimension.high - dimension.low
    share = (values - dimension.low) / span if span else np.full(len(values), 0.5)
    share = share.clip(0, 1)
    last = max(1, len(values) - 1)
    points = [(i, share[i]) for i in _trace_indices(share) if np.isfinite(share[i])]
    return " ".join(
        f"{TRACE_WIDTH * i / last:.0f},{TRACE_HEIGHT * (1 - float(y)):.0f}" for i, y in points
    )


def _trace_indices(values: np.ndarray) -> list[int]:
    """Return all indices, or for many values the indices of each group's minimum and maximum."""
    if len(values) <= TRACE_POINTS:
        return list(range(len(values)))
    indices = []
    for group in np.array_split(np.arange(len(values)), TRACE_POINTS // 2):
        extremes = {int(group[np.argmin(values[group])]), int(group[np.argmax(values[group])])}
        indices += sorted(extremes)
    return indices
