"""A stranger's store: nothing outside is read, written or moved, and no claim is believed."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.cli import main as joinery
from core.errors import DataError
from core.store.layout import (
    ArrayRecord,
    Commit,
    checksum,
    chunk_file,
    commit_file,
    read_commit,
    segment_folder,
    serialise,
)
from core.store.store import EpisodeStore
from core.store.verify import verify
from tests.factories import contents, make_store

PRECIOUS = {"letter.txt": b"mine", "photos/holiday.jpg": b"blue"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store.zarr", episodes=3).path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The user's own folder, beside the store."""
    folder = tmp_path / "my_documents"
    for name, content in PRECIOUS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def segment_of(path: Path) -> Path:
    return segment_folder(path, read_commit(commit_file(path, 0)).segment)


def change_commit(path: Path, **changes: Any) -> None:
    file = commit_file(path, 0)
    file.write_text(serialise(replace(read_commit(file), **changes)))


def change_metadata(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    group = json.loads((path / "zarr.json").read_text())
    change(group["attributes"])
    (path / "zarr.json").write_text(json.dumps(group))


def write_array(path: Path, name: str, array: np.ndarray) -> None:
    """Replace an array of the first segment, and its checksum."""
    commit = read_commit(commit_file(path, 0))
    file = chunk_file(segment_folder(path, commit.segment), name, array.ndim)
    file.write_bytes(array.tobytes())
    record = ArrayRecord(array.shape, checksum(array.tobytes()))
    change_commit(path, arrays={**commit.arrays, name: record})


@pytest.mark.parametrize("target", ["parts", "commits", "zarr.json", "segment", "cam", "frames"])
@pytest.mark.parametrize("command", ["show", "verify", "repair", "edit"])
def test_a_link_out_of_the_store_is_followed_by_no_command(
    target: str, command: str, path: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = segment_of(path)
    places = {"segment": segment, "cam": segment / "cam", "frames": segment / "cam/front/data/c/0"}
    place = places.get(target, path / target)
    copy = mine / "copy"
    place.rename(copy)  # as it was, so that only the link is wrong
    place.symlink_to(copy)
    before = files_in(mine)
    words = ["fps=5"] if command == "edit" else []
    code = joinery([command, str(path), *words])
    captured = capsys.readouterr()
    assert files_in(mine) == before
    if target in ("cam", "frames") and command == "edit":
        return  # an edit reads no frames
    assert code == 1
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {place}: a link that leads out of ")


def test_parts_that_are_a_link_to_somebodys_documents_are_not_repaired(
    path: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(path / "parts")
    (path / "parts").symlink_to(mine)
    assert joinery(["repair", str(path)]) == 1
    assert "parts: a link that leads out of" in capsys.readouterr().err
    assert files_in(mine) == PRECIOUS


def test_damaged_segments_are_moved_to_no_linked_folder(path: Path, mine: Path) -> None:
    (path / "parts.damaged").symlink_to(mine)
    (segment_of(path) / "action" / "c" / "0" / "0").write_bytes(b"")
    assert joinery(["repair", str(path)]) == 1
    assert files_in(mine) == PRECIOUS


def test_edits_are_written_through_no_link(
    path: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path / "edits").symlink_to(mine)
    assert joinery(["edit", str(path), "fps=5"]) == 1
    assert "edits: a link that leads out of" in capsys.readouterr().err
    assert files_in(mine) == PRECIOUS
    assert len(EpisodeStore(path)) == 3


def test_links_of_the_users_own_are_followed(path: Path, tmp_path: Path) -> None:
    """The store may be a link, and so may what stays inside, as after deduplication."""
    expected = contents(path)
    (tmp_path / "link.zarr").symlink_to(path)
    frames = chunk_file(segment_of(path), "cam/front/data", 1)
    frames.rename(path / "frames")
    frames.symlink_to(path / "frames")
    assert contents(tmp_path / "link.zarr") == expected
    assert verify(tmp_path / "link.zarr", jobs=1) == []


@pytest.mark.parametrize("command", ["show", "verify", "repair"])
def test_a_pipe_is_not_waited_for(
    command: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = chunk_file(segment_of(path), "cam/wrist/data", 1)
    frames.unlink()
    os.mkfifo(frames)
    assert joinery([command, str(path)]) == 1
    assert f"{frames}: neither a file nor a folder" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 300, "/etc", "a\nb", "\x1b"])
def test_names_are_refused_where_they_are_read(
    name: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = read_commit(commit_file(path, 0))
    with pytest.raises(ValueError, match=r"segment '.*'?: "):
        replace(commit, segment=name)
    with pytest.raises(ValueError, match=r"array '.*'?: "):
        replace(commit, arrays={f"cam/{name}/../data": ArrayRecord((1,), 0)})

    def rename(attributes: dict[str, Any]) -> None:
        attributes["cameras"][name] = attributes["cameras"].pop("front")

    change_metadata(path, rename)
    assert joinery(["show", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "zarr.json: metadata is damaged" in line


def test_a_commit_that_names_another_folder_is_not_verified(path: Path, mine: Path) -> None:
    file = commit_file(path, 0)
    content = file.read_text()
    segment = read_commit(file).segment
    commit = json.loads(content)["commit"] | {"part": "../../my_documents"}
    canonical = json.dumps(commit, sort_keys=True, separators=(",", ":"))
    file.write_text(f'{{"commit":{canonical},"crc32c":{checksum(canonical.encode())}}}')
    (damage,) = verify(path, jobs=1)
    assert "a name is made of" in damage.reasons[0]
    with pytest.raises(DataError, match=r"commit is unreadable .*a name is made of"):
        EpisodeStore(path)
    assert segment_folder(path, segment).exists()
    assert files_in(mine) == PRECIOUS


# ------------------------------------------------------------------------------------------ claims


def huge_camera(attributes: dict[str, Any]) -> None:
    attributes["cameras"]["front"] |= {"height": 2**20, "width": 2**20}


def large_camera(attributes: dict[str, Any]) -> None:
    attributes["cameras"]["front"] |= {"height": 9_000, "width": 9_000, "group": 2**16}


def negative_camera(attributes: dict[str, Any]) -> None:
    attributes["cameras"]["front"]["height"] = -1


def other_codec(attributes: dict[str, Any]) -> None:
    attributes["cameras"]["front"] |= {"codec": "jpeg", "group": 1, "quality": 90}


def unknown_codec(attributes: dict[str, Any]) -> None:
    attributes["cameras"]["front"]["codec"] = "pickle"


def other_size(attributes: dict[str, Any]) -> None:
    attributes["cameras"]["wrist"] |= {"height": 64, "width": 64}


def nested(attributes: dict[str, Any]) -> None:
    attributes["cameras"] = json.loads("[" * 900 + "]" * 900)


@pytest.mark.parametrize(
    "change",
    [huge_camera, large_camera, negative_camera, other_codec, unknown_codec, other_size, nested],
)
def test_metadata_that_claim_too_much_are_an_error_in_one_line(
    change: Callable[[dict[str, Any]], None], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_metadata(path, change)
    assert joinery(["show", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_json_that_is_nested_without_end_is_an_error_in_one_line(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (path / "zarr.json", commit_file(path, 0)):
        before = file.read_bytes()
        file.write_text('{"attributes": ' + "[" * 10**6)
        assert joinery(["show", str(path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {file}: ")
        file.write_bytes(before)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("episode/end", np.array([3, 2, 37], np.int32)),
        ("episode/end", np.array([11, 23, 2**31 - 1], np.int32)),
        ("episode/end", np.array([36], np.int32)),
        ("episode/task", np.array([0, 7, 0], np.int32)),
        ("episode/task", np.array([0, -1, 0], np.int32)),
        ("cam/front/end", np.array([2**32 - 1], np.uint32)),
        ("cam/front/end", np.array([9, 1, 2, 3, 4, 5], np.uint32)),
        ("cam/front/end", np.zeros((0,), np.uint32)),
        ("cam/front/crc", np.array([1], np.uint32)),
        ("cam/wrist/end", np.full(36, 2**32 - 1, np.uint32)),
        ("action", np.zeros((36, 5), np.float32)),
        ("action", np.zeros((1, 4), np.float32)),
    ],
    ids=str,
)
def test_arrays_that_contradict_their_commit_are_an_error_in_one_line(
    name: str, array: np.ndarray, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_array(path, name, array)
    assert joinery(["show", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(DataError):
        contents(path)
    (segment_of(path) / "cam" / "wrist" / "data" / "c" / "0").write_bytes(b"")
    assert joinery(["repair", str(path)]) == 0
    assert "0 episodes of the damaged segments are kept" in capsys.readouterr().out


def test_a_damaged_segment_whose_commit_lacks_an_array_is_put_aside(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(read_commit(commit_file(path, 0)).arrays)
    del arrays["action"]
    change_commit(path, arrays=arrays)
    (segment_of(path) / "cam" / "wrist" / "data" / "c" / "0").write_bytes(b"")
    assert joinery(["repair", str(path)]) == 0
    assert "0 episodes of the damaged segments are kept" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(2**50,), (-1,), (1, 1, 1), (2**20, 2**30)])
def test_shapes_that_no_file_has_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="an array has the shape"):
        ArrayRecord(shape, 0)


def test_statistics_of_other_numbers_are_refused(path: Path) -> None:
    commit: Commit = read_commit(commit_file(path, 0))
    statistics = {**commit.statistics, "action": commit.statistics["proprio"]}
    change_commit(path, statistics=statistics)
    with pytest.raises(DataError, match="statistics of 4 numbers"):
        EpisodeStore(path)
