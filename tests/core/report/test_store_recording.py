"""Recordings for Rerun, read back with Rerun's own reader."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simplejpeg import decode_jpeg

from core.commands.show import main
from core.errors import DataError
from core.report import store_recording
from core.report.store_recording import application_name, write_recording
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import INSTRUCTIONS, make_episode, make_info

rerun = pytest.importorskip("rerun", reason="needs rerun-sdk: pip install -e '.[test]'")

Recordings = dict[
    str, dict[str, list[Any]]
]  # {recording: {entity: record batches, in the order of their frames}}


def read(path: Path) -> Recordings:
    reader = rerun.chunk.RrdReader(path)
    recordings: Recordings = {}
    for entry in reader.recordings():
        entities = recordings.setdefault(entry.recording_id, {})
        for chunk in reader.stream(store=entry).to_chunks():
            entities.setdefault(chunk.entity_path, []).append(chunk.to_record_batch())
    return recordings


def column(batches: list[Any], name: str) -> list[Any]:
    """What all batches hold in a column, a value for each row."""
    rows = [row for batch in batches for row in batch.column(name).to_pylist()]
    return [row[0] if isinstance(row, list) else row for row in rows]


def test_episodes_come_back_from_their_recordings(
    store: EpisodeStore, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(store_recording, "BLOCK", 4)  # so that frames come in several pieces
    write_recording(store, [3, 0], tmp_path / "out.rrd")
    recordings = read(tmp_path / "out.rrd")
    assert set(recordings) == {"push/3", "reach/0"}
    for episode, (name, task) in {3: ("push/3", "push"), 0: ("reach/0", "reach")}.items():
        entities, length = recordings[name], int(store.length[episode])
        numbers = {
            "action": store.actions(episode, 0, length),
            "proprio": store.proprio(episode, 0, length),
        }
        for feature, names in (
            ("action", store.info.action.names),
            ("proprio", store.info.proprio),
        ):
            for d, dimension in enumerate(names):
                batches = entities[f"/{feature}/{dimension}"]
                assert column(batches, "Scalars:scalars") == numbers[feature][:, d].tolist()
                assert column(batches, "frame") == list(range(length))
        assert column(entities["/instruction"], "TextDocument:text") == [INSTRUCTIONS[task]]
        assert column(entities["/__properties/episode"], "task") == [task]
        assert column(entities["/__properties"], "RecordingInfo:name") == [name]
        check_images(store, episode, entities)


def check_images(store: EpisodeStore, episode: int, entities: dict[str, list[Any]]) -> None:
    length = int(store.length[episode])
    for camera, shape in store.info.cameras.items():
        batches = entities[f"/camera/{camera}"]
        assert len(batches) > 1
        assert column(batches, "frame") == list(range(length))
        seconds = [time.total_seconds() for time in column(batches, "seconds")]
        assert seconds == pytest.approx(np.arange(length) / store.info.fps)
        assert set(column(batches, "EncodedImage:media_type")) == {"image/jpeg"}
        shown = np.stack(
            [decode_jpeg(bytes(blob)) for blob in column(batches, "EncodedImage:blob")]
        )
        frames = np.empty((length, shape.height, shape.width, 3), np.uint8)
        store.read_frames(camera, episode, 0, length, frames)
        assert abs(shown.astype(int) - frames).mean() < 3


def test_the_viewer_begins_with_one_layout(store: EpisodeStore, tmp_path: Path) -> None:
    write_recording(store, [0, 1, 2], tmp_path / "out.rrd")
    reader = rerun.chunk.RrdReader(tmp_path / "out.rrd")
    assert [entry.application_id for entry in (*reader.recordings(), *reader.blueprints())] == [
        "store"
    ] * 4


def test_names_may_hold_any_character(tmp_path: Path) -> None:
    info = make_info()
    info = replace(
        info,
        action=replace(info.action, names=("a b", "x/y", "\u624b", "d")),
        proprio=(" ", "1", "!"),
    )
    with StoreWriter(tmp_path / "my.v2 \u624b.zarr", info) as writer:
        writer.append(replace(make_episode(0, info), id="<a> b/\u624b", instruction="'\n"))
    store = EpisodeStore(tmp_path / "my.v2 \u624b.zarr")
    assert application_name(store) == "my-v2 -"
    write_recording(store, [0], tmp_path / "out.rrd")
    (entities,) = read(tmp_path / "out.rrd").values()
    assert {len(batches) for name, batches in entities.items() if name.startswith("/action")} == {1}
    assert len([name for name in entities if name.startswith(("/action/", "/proprio/"))]) == 4 + 3


def test_the_command_writes_what_was_chosen(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.rrd"
    assert main([str(store.path), "--rerun", str(out), "--episodes", "push/1"]) == 0
    assert f"{out}: 1 episodes, " in capsys.readouterr().out
    assert list(read(out)) == ["push/1"]


def test_a_damaged_frame_leaves_the_recording_before(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "out.rrd").write_text("the recording before")
    data = sorted((store.path / "parts").glob("*/cam/wrist/data/c/0"))[0]
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(DataError, match="is damaged or cut off"):
        write_recording(store, range(len(store)), folder / "out.rrd")
    assert [path.name for path in folder.iterdir()] == ["out.rrd"]
    assert (folder / "out.rrd").read_text() == "the recording before"


def test_a_place_that_cannot_be_written(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(store.path), "--rerun", str(tmp_path / "nowhere" / "out.rrd")]) == 1
    assert (
        capsys.readouterr().err == f"error: {tmp_path}/nowhere/out.rrd: No such file or directory\n"
    )
