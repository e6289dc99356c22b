"""Episodes of a store as films: the frames of all cameras, with the actions and the proprioception
beside them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import numpy as np

from core.errors import ConfigError, did_you_mean
from core.report.store_distributions import Dimension
from core.report.film_strips import Strip, kept_steps, make_strip, shrink, still
from core.store.store import EpisodeStore

MOST, FEW = (
    24,
    8,
)  # episodes that are shown unless said: of so many tasks one each; of fewer tasks than FEW, more
DRAWN = 240  # points of a trace; of longer episodes the least and the most of neighbours are drawn
WIDTH, HEIGHT = 1000, 100  # of the box that a trace is drawn in
THUMBNAIL_SIDE = 96  # pixels


@dataclass(frozen=True)
class Trace:
    """One dimension over an episode.

    points: of a polyline in a box of WIDTH x HEIGHT, over the range that the dimension has in the
    whole store.
    values: what it is at each frame of the film.
    """

    dimension: Dimension
    points: str
    values: Sequence[str]


@dataclass(frozen=True)
class EpisodeFilm:
    """An episode as a film strip; its traces move with it."""

    id: str
    task: str
    instruction: str
    length: int
    strip: Strip
    traces: Sequence[Trace]

    @property
    def seconds(self) -> float:
        """How long it takes at the store's rate."""
        return self.length / self.strip.per_second

    @property
    def layout(self) -> dict[str, object]:
        """What the player needs to know."""
        values = [trace.values for trace in self.traces]
        return self.strip.layout | {"unit": "frame", "values": values}


@dataclass(frozen=True)
class Thumbnails:
    """The first, the middle and the last frame of an episode through a camera, side by side in one
    JPEG.
    """

    episode: str
    camera: str
    picture: str
    width: int
    height: int


def choose_episodes(store: EpisodeStore, names: Sequence[str] | None) -> list[int]:
    """The episodes of these ids, or unless said one of each task, of few tasks in turns; raises
    ConfigError.
    """
    if names is not None:
        number = {store.episode_id(episode): episode for episode in range(len(store))}
        if lost := [name for name in names if name not in number]:
            raise ConfigError(
                [
                    f"there is no episode '{name}'{did_you_mean(name, sorted(number))}"
                    for name in lost
                ]
            )
        return [number[name] for name in dict.fromkeys(names)]
    of_task: dict[str, list[int]] = {}
    for episode in range(len(store)):
        of_task.setdefault(store.task_name(episode), []).append(episode)
    turns = (
        episode
        for episode in chain.from_iterable(zip_longest(*of_task.values()))
        if episode is not None
    )
    return sorted(islice(turns, min(MOST, max(FEW, len(of_task)))))


def episode_film(
    store: EpisodeStore,
    episode: int,
    drawn: Sequence[Dimension],
    largest_side: int,
    most_bytes: int,
) -> EpisodeFilm:
    """Make a film of an episode of at most about `most_bytes`; frames are read and shrunk one by
    one.
    """
    length = int(store.length[episode])
    steps = kept_steps(length)
    images = {
        camera: _read(store, camera, episode, steps, largest_side) for camera in store.info.cameras
    }
    strip = make_strip(images, steps, store.info.fps, most_bytes)
    return EpisodeFilm(
        id=store.episode_id(episode),
        task=store.task_name(episode),
        instruction=store.instruction(episode),
        length=length,
        strip=strip,
        traces=list(_traces(store, episode, drawn, strip.steps)),
    )


def thumbnails(store: EpisodeStore, episode: int, most_bytes: int) -> list[Thumbnails]:
    """What each camera saw at the beginning, in the middle and at the end, each of about
    `most_bytes` as text.
    """
    length, found = int(store.length[episode]), []
    for camera in store.info.cameras:
        frames = _read(store, camera, episode, (0, length // 2, length - 1), THUMBNAIL_SIDE)
        picture = np.concatenate(list(frames), axis=1)
        size = picture.shape[1], picture.shape[0]
        found.append(
            Thumbnails(
                store.episode_id(episode), camera, still(picture, most_bytes * 3 // 4), *size
            )
        )
    return found


def _read(
    store: EpisodeStore, camera: str, episode: int, steps: Sequence[int], largest_side: int
) -> np.ndarray:
    shape = store.info.cameras[camera]
    frame = np.empty((1, shape.height, shape.width, 3), np.uint8)
    kept = []
    for step in steps:
        store.read_frames(camera, episode, step, step + 1, frame)
        kept.append(shrink(frame, largest_side).copy())
    return np.concatenate(kept)


def _traces(
    store: EpisodeStore, episode: int, drawn: Sequence[Dimension], steps: Sequence[int]
) -> Iterator[Trace]:
    length = int(store.length[episode])
    numbers = {
        "action": store.actions(episode, 0, length),
        "proprio": store.proprio(episode, 0, length),
    }
    for dimension in drawn:
        values = numbers[dimension.feature][:, dimension.index]
        yield Trace(
            dimension, _points(values, dimension), [f"{value:.3g}" for value in values[list(steps)]]
        )


def _points(values: np.ndarray, dimension: Dimension) -> str:
    """A polyline; what lies outside of the range runs along its edge, and what is no number is left
    out.
    """
    span = dimension.high - dimension.low
    share = (values - dimension.low) / span if span else np.full(len(values), 0.5)
    places = [(i, y) for i, y in _thinned(share.clip(0, 1)) if np.isfinite(y)]
    last = max(1, len(values) - 1)
    return " ".join(f"{WIDTH * i / last:.0f},{HEIGHT * (1 - y):.0f}" for i, y in places)


def _thinned(values: np.ndarray) -> Iterator[tuple[int, float]]:
    """All values with their places, or the least and the most of each of so many neighbours."""
    if len(values) <= DRAWN:
        yield from enumerate(values.tolist())
        return
    for part in np.array_split(np.arange(len(values)), DRAWN // 2):
        for place in sorted(
            {int(part[np.argmin(values[part])]), int(part[np.argmax(values[part])])}
        ):
            yield place, float(values[place])
