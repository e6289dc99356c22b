"""Episodes as recordings for Rerun (https://rerun.io), a viewer of robots' data: one recording of
each, in one file.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core.errors import DataError
from core.report.page import replacing
from core.store.store import EpisodeStore
from core.system.optional_imports import import_optional

BLOCK = 64  # frames in memory at once
QUALITY = 95  # of the JPEGs
# python -m rerun_cli forgets its exit code
RERUN = "import sys; from rerun_cli.__main__ import main; sys.exit(main())"


def write_recording(store: EpisodeStore, episodes: Sequence[int], path: Path) -> None:
    """Write episodes to an .rrd file: the application is the store, each recording's id that of its
    episode.

    camera/NAME holds the frames as JPEG, action/NAME and proprio/NAME a scalar each, `instruction`
    a text; the timelines are `frame` and `seconds`. Raises DataError for a damaged frame, and
    ConfigError where rerun-sdk is not installed; a file written before then stays as it was.
    """
    rerun = import_optional("rerun", extra="rerun")
    with (
        replacing(path) as temporary,
        TemporaryDirectory(prefix=".rerun-", dir=path.parent) as folder,
    ):
        files = [Path(folder, f"{number}.rrd") for number in range(len(episodes))]
        for file, episode in zip(files, episodes, strict=True):
            _write_episode(rerun, store, episode, file, begins=file is files[0])
        _merge(files, temporary, path)


def _write_episode(
    rerun: Any, store: EpisodeStore, episode: int, file: Path, *, begins: bool
) -> None:
    """Write one recording; that which begins the file says how the viewer begins, too."""
    name = application_name(store)
    recording = rerun.RecordingStream(
        name, recording_id=store.episode_id(episode), send_properties=False
    )
    stream = recording.binary_stream()
    if begins:
        recording.send_blueprint(_blueprint(rerun, store))
    _send_words(rerun, recording, store, episode)
    _send_numbers(rerun, recording, store, episode)
    with file.open("wb") as out:
        for start in range(0, int(store.length[episode]), BLOCK):
            _send_frames(rerun, recording, store, episode, start)
            out.write(stream.read() or b"")


def application_name(store: EpisodeStore) -> str:
    """The store's name, as far as Rerun takes it: no dots, for example."""
    return re.sub("[^A-Za-z0-9_ -]+", "-", store.name)[:64] or "store"


def _merge(files: Sequence[Path], out: Path, path: Path) -> None:
    """Put recordings into one file: Rerun's command writes the index that several need, its library
    does not.
    """
    command = [sys.executable, "-c", RERUN, "rrd", "merge", "--output", str(out), *map(str, files)]
    quiet = os.environ | {"RUST_LOG": "error"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[:200]
        raise DataError(f"{path}: `rerun rrd merge` cannot write it: {said}")


def _send_words(rerun: Any, recording: Any, store: EpisodeStore, episode: int) -> None:
    """The episode's name, its task and what the robot is told: they hold at all times."""
    recording.send_recording_name(store.episode_id(episode))
    recording.send_property(
        "episode", rerun.AnyValues(task=store.task_name(episode), origin=store.info.origin)
    )
    recording.log("instruction", rerun.TextDocument(store.instruction(episode)), static=True)


def _send_numbers(rerun: Any, recording: Any, store: EpisodeStore, episode: int) -> None:
    length, info = int(store.length[episode]), store.info
    numbers = {
        "action": store.actions(episode, 0, length),
        "proprio": store.proprio(episode, 0, length),
    }
    times = _times(rerun, 0, length, info.fps)
    for feature, names in (("action", info.action.names), ("proprio", info.proprio)):
        for d, name in enumerate(names):
            columns = rerun.Scalars.columns(scalars=numbers[feature][:, d].astype(np.float64))
            recording.send_columns(_path(rerun, feature, name), times, columns, strict=True)


def _send_frames(rerun: Any, recording: Any, store: EpisodeStore, episode: int, start: int) -> None:
    from simplejpeg import encode_jpeg  # type: ignore[attr-defined]

    stop = min(start + BLOCK, int(store.length[episode]))
    for camera, shape in store.info.cameras.items():
        frames = np.empty((stop - start, shape.height, shape.width, 3), np.uint8)
        store.read_frames(camera, episode, start, stop, frames)
        jpegs = [
            encode_jpeg(f, quality=QUALITY, colorspace="RGB", colorsubsampling="444")
            for f in frames
        ]
        columns = rerun.EncodedImage.columns(blob=jpegs, media_type=["image/jpeg"] * len(jpegs))
        times = _times(rerun, start, stop, store.info.fps)
        recording.send_columns(_path(rerun, "camera", camera), times, columns, strict=True)


def _times(rerun: Any, start: int, stop: int, fps: float) -> list[Any]:
    """Frames start..stop-1 on both timelines."""
    frames = np.arange(start, stop)
    return [
        rerun.TimeColumn("frame", sequence=frames),
        rerun.TimeColumn("seconds", duration=frames / fps),
    ]


def _path(rerun: Any, kind: str, name: str) -> str:
    return str(rerun.new_entity_path([kind, name]))


def _blueprint(rerun: Any, store: EpisodeStore) -> Any:
    """How the viewer begins: what is told, cameras side by side, the numbers below."""
    views, names = (
        rerun.blueprint,
        {"action": store.info.action.names, "proprio": store.info.proprio},
    )
    told = views.TextDocumentView(origin="instruction", name="instruction")
    cameras = [
        views.Spatial2DView(origin=_path(rerun, "camera", name), name=name)
        for name in store.info.cameras
    ]
    numbers = [
        views.TimeSeriesView(origin=feature, name=feature) for feature in names if names[feature]
    ]
    rows = (told, views.Horizontal(*cameras), views.Horizontal(*numbers))
    return views.Blueprint(views.Vertical(*rows, row_shares=(1, 6, 4)))
