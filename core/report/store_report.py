"""Writes the page about a store: suspicions, tasks, a player for episodes, and numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import DataError
from core.report import figures
from core.report.film_strips import MAX_SIDE
from core.report.page import Fact, render, write_page
from core.report.store_distributions import Dimension, measure_dimensions
from core.report.store_films import (
    MIN_EPISODES,
    EpisodeFilm,
    Thumbnails,
    make_film,
    make_thumbnails,
)
from core.report.store_inspection import Inspection, TaskSummary
from core.report.wording import duration
from core.store.store import EpisodeStore

# Maximum number of bytes of a page.
PAGE_BYTES = 20_000_000
# Shares of a page's bytes for film strips and for thumbnails. The bytes of film strips are counted
# before base64 encoding, which adds a third; the bytes of thumbnails are counted after it.
FILM_SHARE, THUMBNAIL_SHARE = 0.5, 0.1
# Maximum number of bytes of one film strip, even if the page has room for more.
FILM_BYTES = 1_000_000
# Maximum number of tasks that are listed, and of tasks that have thumbnails.
MAX_TASKS, MAX_THUMBNAIL_TASKS = 500, 100
# Maximum number of dimensions of the actions that are drawn; the proprioception has the same limit.
MAX_DIMENSIONS = 50


@dataclass(frozen=True)
class Task:
    """A task, and thumbnails of its first episode."""

    summary: TaskSummary
    thumbnails: Sequence[Thumbnails]


@dataclass(frozen=True)
class StatisticsRow:
    """A dimension's statistics: minimum, 1 %, mean, standard deviation, 99 %, maximum."""

    name: str
    unit: str
    values: Sequence[float]


def write_store_page(
    store: EpisodeStore,
    inspection: Inspection,
    episodes: Sequence[int],
    path: Path,
    max_bytes: int = PAGE_BYTES,
) -> None:
    """Write a page about a store, with a player for the episodes with the indices `episodes`.

    The same store gives the same page. Raises DataError, naming the file, if a frame is damaged or
    if the page would be larger than `max_bytes`. An older page then stays as it was.
    """
    dimensions = measure_dimensions(store)
    to_draw = [dimension for dimension in dimensions if dimension.index < MAX_DIMENSIONS]
    histograms = {
        title: [
            figures.histogram(dimension) for dimension in to_draw if dimension.feature == feature
        ]
        for title, feature in {"Actions": "action", "Proprioception": "proprio"}.items()
    }
    thumbnail_bytes = round(THUMBNAIL_SHARE * max_bytes)
    values = {
        "name": f"{store.name}.zarr",
        "info": store.info,
        "facts": facts(store, inspection),
        "suspicions": inspection.suspicions,
        "decoded_episodes": inspection.decoded_episodes,
        "tasks": list(_with_thumbnails(store, inspection.tasks[:MAX_TASKS], thumbnail_bytes)),
        "more_tasks": len(inspection.tasks[MAX_TASKS:]),
        "episodes": len(store),
        "films": films(store, episodes, to_draw, round(FILM_SHARE * max_bytes)),
        "more_dimensions": len(dimensions) - len(to_draw),
        "histograms": {title: charts for title, charts in histograms.items() if charts},
        "statistics": statistics(store, dimensions),
        "conventions": conventions(store),
        "cameras": {
            name: f"{camera.height} pixels high, {camera.width} wide, {store.codecs[name]}"
            for name, camera in store.info.cameras.items()
        },
        "features": {name: str(feature) for name, feature in store.info.features.items()},
    }
    text = render("store.html", values)
    if (size := len(text.encode())) > max_bytes:
        raise DataError(
            f"{path}: {len(episodes)} episodes would make a page of {size / 1e6:.1f} MB, "
            f"of at most {max_bytes / 1e6:g}; name fewer with --episodes"
        )
    write_page(path, text)


def facts(store: EpisodeStore, inspection: Inspection) -> list[Fact]:
    """Return the main numbers about a store, for the head of its page."""
    fps, cameras = store.info.fps, store.info.cameras
    lengths = f"{store.length.min()} to {store.length.max()} frames"
    recorded = duration(store.frame_count / fps)
    suspicions = len(inspection.suspicions)
    advice = "listed below" if suspicions else "nothing looks wrong"
    return [
        Fact("episodes", f"{len(store):,}", f"of {len(inspection.tasks):,} tasks, {lengths}"),
        Fact("frames", f"{store.frame_count:,}", f"{recorded} at {fps:g} Hz"),
        Fact("cameras", f"{len(cameras)}", ", ".join(cameras)),
        Fact("suspicious", f"{suspicions}", advice),
    ]


def films(
    store: EpisodeStore, episodes: Sequence[int], dimensions: Sequence[Dimension], max_bytes: int
) -> list[EpisodeFilm]:
    """Make film strips of episodes; all strips together have at most about `max_bytes`.

    If there are few episodes, the maximum side of their images is twice MAX_SIDE.
    """
    max_side = MAX_SIDE if len(episodes) > MIN_EPISODES else 2 * MAX_SIDE
    film_bytes = min(FILM_BYTES, max_bytes // len(episodes))
    return [make_film(store, episode, dimensions, max_side, film_bytes) for episode in episodes]


def statistics(store: EpisodeStore, dimensions: Sequence[Dimension]) -> list[list[StatisticsRow]]:
    """Return a table for the actions and one for the proprioception, with a row per dimension."""
    tables = []
    for feature, s in store.statistics.items():
        columns = (s.min, s.quantile(0.01), s.mean, s.std, s.quantile(0.99), s.max)
        own_dimensions = [dimension for dimension in dimensions if dimension.feature == feature]
        rows = [
            StatisticsRow(f"{feature} {dimension.name}", dimension.unit, values)
            for dimension, values in zip(own_dimensions, zip(*columns, strict=True), strict=True)
        ]
        if rows:
            tables.append(rows)
    return tables


def conventions(store: EpisodeStore) -> Mapping[str, object]:
    """Return what the actions mean, apart from the unit of each dimension."""
    action = store.info.action
    grippers = [f"{action.names[gripper.dimension]}, {gripper.kind}" for gripper in action.grippers]
    return {
        "mode": action.mode,
        "frame": action.frame,
        "rotation": action.rotation,
        "rate": f"{action.rate:g} Hz",
        "grippers": "; ".join(grippers) or "none",
    }


def _with_thumbnails(
    store: EpisodeStore, summaries: Sequence[TaskSummary], max_bytes: int
) -> Iterator[Task]:
    """Yield the tasks; the first tasks get thumbnails, at most `max_bytes` of text in all."""
    task_count = min(len(summaries), MAX_THUMBNAIL_TASKS)
    image_bytes = max_bytes // (task_count * len(store.info.cameras))
    for number, summary in enumerate(summaries):
        thumbnails: list[Thumbnails] = []
        if number < MAX_THUMBNAIL_TASKS and max_bytes > 0:
            thumbnails = make_thumbnails(store, summary.first, image_bytes)
        max_bytes -= sum(len(thumbnail.image) for thumbnail in thumbnails)
        yield Task(summary, thumbnails)
