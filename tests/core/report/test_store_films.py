"""Which episodes are shown, and their film strips, traces and thumbnails."""

from base64 import b64decode
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from simplejpeg import decode_jpeg

from core.errors import ConfigError
from core.report.film_strips import MAX_FRAMES, MAX_SIDE
from core.report.store_distributions import measure_dimensions
from core.report.store_films import (
    MAX_EPISODES,
    MIN_EPISODES,
    TRACE_HEIGHT,
    TRACE_POINTS,
    TRACE_WIDTH,
    EpisodeFilm,
    choose_episodes,
    make_film,
    make_thumbnails,
)
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import make_episode, make_info


class Tasks:
    """As much of a store as choosing needs: the task of each episode."""

    def __init__(self, tasks: list[int]) -> None:
        self.tasks = tasks

    def __len__(self) -> int:
        return len(self.tasks)

    def task_name(self, episode: int) -> str:
        return str(self.tasks[episode])


@given(st.lists(st.integers(0, 40), min_size=1, max_size=120))
def test_every_task_is_shown_before_any_is_shown_again(tasks):
    chosen = choose_episodes(Tasks(tasks), None)
    assert chosen == sorted(set(chosen))
    different = len(set(tasks))
    assert len(chosen) == min(len(tasks), MAX_EPISODES, max(MIN_EPISODES, different))
    shown = Counter(tasks[episode] for episode in chosen)
    assert len(shown) == min(different, MAX_EPISODES)
    for task, count in shown.items():
        assert count == tasks.count(task) or count >= max(shown.values()) - 1
        assert [e for e in chosen if tasks[e] == task] == [
            e for e, t in enumerate(tasks) if t == task
        ][:count]


def test_chosen_episodes_come_in_the_order_of_their_names(store: EpisodeStore) -> None:
    assert choose_episodes(store, ["reach/4", "push/1", "reach/4"]) == [4, 1]
    with pytest.raises(ConfigError, match="there is no episode 'reach/40'; did you mean 'reach/4'"):
        choose_episodes(store, ["reach/40"])


def film_of(store: EpisodeStore, episode: int, max_bytes: int = 10**9) -> EpisodeFilm:
    return make_film(store, episode, measure_dimensions(store), MAX_SIDE, max_bytes)


def long_store(path: Path, length: int, size: int = 32) -> EpisodeStore:
    info = make_info(size=size)
    with StoreWriter(path, info) as writer:
        writer.append(make_episode(0, info, length))
    return EpisodeStore(path)


def test_a_film_shows_the_frames_of_the_store(store: EpisodeStore) -> None:
    film = film_of(store, 3)
    strip, length = film.strip, int(store.length[3])
    assert list(strip.steps) == list(range(length))
    assert (film.id, film.task, film.length, strip.per_second) == (
        "push/3",
        "push",
        length,
        store.info.fps,
    )
    whole = decode_jpeg(b64decode(strip.image.partition(",")[2]))
    for place in strip.cameras:
        frames = np.empty((length, 32, 32, 3), np.uint8)
        store.read_frames(str(place["name"]), 3, 0, length, frames)
        for index in (0, length - 1):
            top = index // strip.columns * strip.height
            left = index % strip.columns * strip.width + int(place["x"])
            shown = whole[top : top + 32, left : left + 32].astype(int)
            assert abs(shown - frames[index]).mean() < 4


def test_the_values_are_those_of_the_frames(tmp_path: Path) -> None:
    store = long_store(tmp_path / "store.zarr", 2 * MAX_FRAMES + 50)
    film = film_of(store, 0, 30_000)
    length = int(store.length[0])
    assert len(film.strip.steps) < MAX_FRAMES
    assert film.strip.steps[-1] == length - 1
    numbers = np.concatenate([store.actions(0, 0, length), store.proprio(0, 0, length)], axis=1)
    for trace, column in zip(film.traces, numbers.T, strict=True):
        assert list(map(float, trace.values)) == pytest.approx(
            column[list(film.strip.steps)], rel=1e-2
        )


def points(text: str) -> np.ndarray:
    return np.array([point.split(",") for point in text.split()], float)


@settings(max_examples=8, deadline=None)
@given(length=st.sampled_from([1, 2, TRACE_POINTS, TRACE_POINTS + 1, 5 * TRACE_POINTS]))
def test_a_trace_spans_the_least_to_the_most_value(length, tmp_path_factory):
    store = long_store(tmp_path_factory.mktemp("stores") / "store.zarr", length)
    for trace in film_of(store, 0).traces:
        polyline = points(trace.points)
        assert len(polyline) <= TRACE_POINTS
        assert (polyline[:, 0] == np.sort(polyline[:, 0])).all()
        assert polyline[:, 0].max() <= TRACE_WIDTH
        if length > 1 and np.ptp(polyline[:, 1]):
            assert (polyline[:, 1].min(), polyline[:, 1].max()) == (0, TRACE_HEIGHT)


def test_nan_is_left_out_of_a_trace(tmp_path: Path) -> None:
    info = make_info()
    with StoreWriter(tmp_path / "store.zarr", info) as writer:
        encoded = writer.encode(make_episode(0, info))
        encoded.actions[4, 0] = np.nan
        writer.append_encoded(encoded)
    trace = film_of(EpisodeStore(tmp_path / "store.zarr"), 0).traces[0]
    assert len(points(trace.points)) == 10
    assert trace.values[4] == "nan"


def test_thumbnails_are_the_first_the_middle_and_the_last_frame(tmp_path: Path) -> None:
    store = long_store(tmp_path / "store.zarr", 21, size=200)
    for thumbnail in make_thumbnails(store, 0, 10**9):
        image = decode_jpeg(b64decode(thumbnail.image.partition(",")[2])).astype(int)
        assert image.shape == (thumbnail.height, thumbnail.width, 3)
        assert (thumbnail.width, thumbnail.height) == (3 * 66, 66)
        frames = np.empty((21, 200, 200, 3), np.uint8)
        store.read_frames(thumbnail.camera, 0, 0, 21, frames)
        for shown, frame in zip(np.split(image, 3, axis=1), frames[[0, 10, 20]], strict=True):
            small = frame[:198, :198].reshape(66, 3, 66, 3, 3).mean(axis=(1, 3))
            assert abs(shown - small).mean() < 6


def test_cameras_may_differ_in_size(tmp_path: Path) -> None:
    info = make_info()
    info = replace(
        info, cameras={**info.cameras, "wrist": replace(info.cameras["wrist"], height=16, width=48)}
    )
    with StoreWriter(tmp_path / "store.zarr", info) as writer:
        writer.append(make_episode(0, info))
    film = film_of(EpisodeStore(tmp_path / "store.zarr"), 0)
    assert [(place["width"], place["height"]) for place in film.strip.cameras] == [
        (32, 32),
        (48, 16),
    ]
