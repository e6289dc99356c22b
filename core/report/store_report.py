"""A store as one page: what looks wrong, tasks with pictures, episodes that play, how the numbers
are spread.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import DataError
from core.report import figures
from core.report.store_distributions import Dimension, dimensions
from core.report.store_films import FEW, EpisodeFilm, Thumbnails, episode_film, thumbnails
from core.report.film_strips import LARGEST_SIDE
from core.report.store_inspection import Inspection, TaskSummary
from core.report.page import render, write_page
from core.report.run_success import Fact
from core.store.store import EpisodeStore

PAGE_BYTES = 20_000_000  # a page never becomes larger
FILMS, PICTURES = (
    0.5,
    0.1,
)  # of them, for film strips, before they become text a third longer, and for thumbnails
FILM_BYTES = 1_000_000  # of one film strip at most, however few there are
MOST_TASKS, PICTURED_TASKS = 500, 100
MOST_DIMENSIONS = 50  # of actions and of proprioception each, that are drawn


@dataclass(frozen=True)
class Task:
    """A task, and what its first episode looks like."""

    summary: TaskSummary
    pictures: Sequence[Thumbnails]


@dataclass(frozen=True)
class Row:
    """How a dimension is spread: least, 1 %, mean, standard deviation, 99 %, most."""

    name: str
    unit: str
    values: Sequence[float]


def write_store_page(
    store: EpisodeStore,
    found: Inspection,
    episodes: Sequence[int],
    path: Path,
    most_bytes: int = PAGE_BYTES,
) -> None:
    """Write a page about a store, with films of `episodes`.

    The same store gives the same page. Raises DataError, naming the file, where a frame is damaged,
    and where the page would be larger than `most_bytes`; a page written before then stays as it
    was.
    """
    measured = dimensions(store)
    drawn = [one for one in measured if one.index < MOST_DIMENSIONS]
    shown = {"Actions": "action", "Proprioception": "proprio"}
    histograms = {
        name: [figures.histogram(one) for one in drawn if one.feature == of]
        for name, of in shown.items()
    }
    values = {
        "name": f"{store.name}.zarr",
        "info": store.info,
        "facts": facts(store, found),
        "suspicions": found.suspicions,
        "looked_at": found.looked_at,
        "tasks": list(_tasks(store, found.tasks[:MOST_TASKS], round(PICTURES * most_bytes))),
        "more_tasks": len(found.tasks[MOST_TASKS:]),
        "episodes": len(store),
        "films": films(store, episodes, drawn, round(FILMS * most_bytes)),
        "more_dimensions": len(measured) - len(drawn),
        "histograms": {name: charts for name, charts in histograms.items() if charts},
        "statistics": statistics(store, measured),
        "conventions": conventions(store),
        "cameras": cameras(store),
        "features": features(store),
    }
    text = render("store.html", values)
    if (size := len(text.encode())) > most_bytes:
        what = f"{len(episodes)} episodes would make a page of {size / 1e6:.1f} MB, of at most {most_bytes / 1e6:g}"
        raise DataError(f"{path}: {what}; name fewer with --episodes")
    write_page(path, text)


def facts(store: EpisodeStore, found: Inspection) -> list[Fact]:
    """The few numbers that say what a store holds."""
    info, count, suspicions = store.info, store.frame_count, len(found.suspicions)
    lengths = f"{store.length.min()} to {store.length.max()} frames"
    return [
        Fact("episodes", f"{len(store):,}", f"of {len(found.tasks):,} tasks, {lengths}"),
        Fact("frames", f"{count:,}", f"{_duration(count / info.fps)} at {info.fps:g} Hz"),
        Fact("cameras", f"{len(info.cameras)}", ", ".join(info.cameras)),
        Fact(
            "suspicious", f"{suspicions}", "listed below" if suspicions else "nothing looks wrong"
        ),
    ]


def films(
    store: EpisodeStore, episodes: Sequence[int], drawn: Sequence[Dimension], most_bytes: int
) -> list[EpisodeFilm]:
    """The episodes as films of at most about `most_bytes` together; the fewer they are, the larger
    their pictures.
    """
    side = LARGEST_SIDE if len(episodes) > FEW else 2 * LARGEST_SIDE
    each = min(FILM_BYTES, most_bytes // len(episodes))
    return [episode_film(store, episode, drawn, side, each) for episode in episodes]


def statistics(store: EpisodeStore, measured: Sequence[Dimension]) -> list[list[Row]]:
    """The spread of actions and of proprioception, a row for each dimension."""
    tables = []
    for feature, s in store.statistics.items():
        spread = zip(s.min, s.quantile(0.01), s.mean, s.std, s.quantile(0.99), s.max, strict=True)
        named = [one for one in measured if one.feature == feature]
        tables.append(
            [
                Row(f"{feature} {one.name}", one.unit, row)
                for one, row in zip(named, spread, strict=True)
            ]
        )
    return [table for table in tables if table]


def conventions(store: EpisodeStore) -> Mapping[str, object]:
    """What the actions mean, beside the unit of each dimension."""
    action = store.info.action
    said = {
        "mode": action.mode,
        "frame": action.frame,
        "rotation": action.rotation,
        "rate": f"{action.rate:g} Hz",
    }
    grippers = [f"{action.names[gripper.dimension]}, {gripper.kind}" for gripper in action.grippers]
    return said | {"grippers": "; ".join(grippers) or "none"}


def cameras(store: EpisodeStore) -> Mapping[str, object]:
    """Size and codec of each camera."""
    return {
        name: f"{camera.height} x {camera.width}, {store.codecs[name]}"
        for name, camera in store.info.cameras.items()
    }


def features(store: EpisodeStore) -> Mapping[str, object]:
    """Shape, type and meaning of each named feature."""
    return {name: str(feature) for name, feature in store.info.features.items()}


def _tasks(
    store: EpisodeStore, summaries: Sequence[TaskSummary], most_bytes: int
) -> Iterator[Task]:
    """Tasks with pictures, as long as those do not take more than `most_bytes` as text."""
    each = most_bytes // (min(len(summaries), PICTURED_TASKS) * len(store.info.cameras))
    for number, summary in enumerate(summaries):
        pictures = (
            thumbnails(store, summary.first, each)
            if number < PICTURED_TASKS and most_bytes > 0
            else []
        )
        most_bytes -= sum(len(one.picture) for one in pictures)
        yield Task(summary, pictures)


def _duration(seconds: float) -> str:
    """20.1 -> 20 s, 90 -> 1 min 30 s, 7250 -> 2 h 1 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
