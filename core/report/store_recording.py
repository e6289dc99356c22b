"""Writes episodes as recordings for Rerun (https://rerun.io), a viewer for robot data."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from simplejpeg import encode_jpeg  # type: ignore[attr-defined]

from core.errors import DataError
from core.report.page import output_file
from core.report.store_numbers import names_by_feature, read_numbers
from core.store.store import EpisodeStore
from core.system.optional_imports import import_optional

# Number of frames in memory at once.
BLOCK = 64
JPEG_QUALITY = 95
# Runs Rerun's command line; `python -m rerun_cli` would lose the exit code of the command.
RERUN = "import sys; from rerun_cli.__main__ import main; sys.exit(main())"


def write_recording(store: EpisodeStore, episodes: Sequence[int], path: Path) -> None:
    """Write episodes to an .rrd file; each episode becomes a recording with the episode's id.

    In a recording, camera/NAME holds the frames as JPEG, action/NAME and proprio/NAME hold a scalar
    each, and `instruction` holds a text. The timelines are `frame` and `seconds`. All
    recordings of a store have the same application id in Rerun: see `application_name`.

    Raises DataError for a damaged frame, and ConfigError if rerun-sdk is not installed. After an
    error, an older file stays as it was.
    """
    rerun = import_optional("rerun", extra="rerun")
    with (
        output_file(path) as temporary,
        TemporaryDirectory(prefix=".rerun-", dir=path.parent) as folder,
    ):
        files = [Path(folder, f"{number}.rrd") for number in range(len(episodes))]
        for file, episode in zip(files, episodes, strict=True):
            _write_episode(rerun, store, episode, file, with_blueprint=file is files[0])
        _merge(files, temporary, path)


def application_name(store: EpisodeStore) -> str:
    """Return the store's name, shortened, with dashes in place of dots and special characters."""
    return re.sub("[^A-Za-z0-9_ -]+", "-", store.name)[:64] or "store"


def _write_episode(
    rerun: Any, store: EpisodeStore, episode: int, file: Path, *, with_blueprint: bool
) -> None:
    """Write one recording; the first recording of a file also holds the viewer's blueprint."""
    recording = rerun.RecordingStream(
        application_name(store), recording_id=store.episode_id(episode), send_properties=False
    )
    stream = recording.binary_stream()
    if with_blueprint:
        recording.send_blueprint(_blueprint(rerun, store))
    recording.send_recording_name(store.episode_id(episode))
    recording.send_property(
        "episode", rerun.AnyValues(task=store.task_name(episode), origin=store.info.origin)
    )
    recording.log("instruction", rerun.TextDocument(store.instruction(episode)), static=True)
    _send_numbers(rerun, recording, store, episode)
    with file.open("wb") as out:
        for start in range(0, int(store.length[episode]), BLOCK):
            _send_frames(rerun, recording, store, episode, start)
            out.write(stream.read() or b"")


def _send_numbers(rerun: Any, recording: Any, store: EpisodeStore, episode: int) -> None:
    numbers = read_numbers(store, episode)
    times = _times(rerun, 0, int(store.length[episode]), store.info.fps)
    for feature, names in names_by_feature(store.info).items():
        for d, name in enumerate(names):
            columns = rerun.Scalars.columns(scalars=numbers[feature][:, d].astype(np.float64))
            recording.send_columns(_path(rerun, feature, name), times, columns, strict=True)


def _send_frames(rerun: Any, recording: Any, store: EpisodeStore, episode: int, start: int) -> None:
    """Send a block of frames of all cameras, from frame `start` on."""
    stop = min(start + BLOCK, int(store.length[episode]))
    for camera in store.info.cameras:
        frames = store.empty_frames(camera, episode, start, stop)
        store.read_frames(camera, episode, start, stop, frames)
        jpegs = [
            encode_jpeg(frame, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444")
            for frame in frames
        ]
        columns = rerun.EncodedImage.columns(blob=jpegs, media_type=["image/jpeg"] * len(jpegs))
        times = _times(rerun, start, stop, store.info.fps)
        recording.send_columns(_path(rerun, "camera", camera), times, columns, strict=True)


def _times(rerun: Any, start: int, stop: int, fps: float) -> list[Any]:
    """Return both timelines of the frames `start` to `stop` - 1."""
    frames = np.arange(start, stop)
    return [
        rerun.TimeColumn("frame", sequence=frames),
        rerun.TimeColumn("seconds", duration=frames / fps),
    ]


def _path(rerun: Any, kind: str, name: str) -> str:
    return str(rerun.new_entity_path([kind, name]))


def _blueprint(rerun: Any, store: EpisodeStore) -> Any:
    """Lay out the viewer: the instruction, below it the cameras side by side, then the numbers."""
    views = rerun.blueprint
    instruction = views.TextDocumentView(origin="instruction", name="instruction")
    cameras = [
        views.Spatial2DView(origin=_path(rerun, "camera", name), name=name)
        for name in store.info.cameras
    ]
    numbers = [
        views.TimeSeriesView(origin=feature, name=feature)
        for feature, names in names_by_feature(store.info).items()
        if names
    ]
    rows = (instruction, views.Horizontal(*cameras), views.Horizontal(*numbers))
    return views.Blueprint(views.Vertical(*rows, row_shares=(1, 6, 4)))


def _merge(files: Sequence[Path], out: Path, path: Path) -> None:
    """Merge recordings into one file.

    A file of several recordings needs an index. Rerun's library does not write an index, so Rerun's
    command merges the recordings.

    path: the file to name in the DataError that is raised if the command fails.
    """
    command = [sys.executable, "-c", RERUN, "rrd", "merge", "--output", str(out), *map(str, files)]
    quiet = os.environ | {"RUST_LOG": "error"}
    process = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if process.returncode:
        message = " ".join(process.stderr.split())[:200]
        raise DataError(f"{path}: `rerun rrd merge` cannot write it: {message}")
