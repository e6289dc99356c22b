"""Replay buffers in zarr's format 2, as diffusion_policy writes them."""

import json
import pickle
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import zarr
from hypothesis import given, strategies as st
from numcodecs import Blosc

from core.episodes import Frames
from core.episodes.correction import ConventionOverride
from core.errors import ConfigError, DataError
from plugins.datasets.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig
from tests.damage import FUZZ, bounded, overwrite, read_all

ENDS = (4, 9, 15)


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        # push-T keeps images as floats up to 255
        "img": random.integers(0, 256, (15, 12, 16, 3)).astype(np.float32),
        "wrist": random.integers(0, 256, (15, 8, 8, 3), dtype=np.uint8),
        "state": random.normal(size=(15, 5)).astype(np.float32),
        "action": random.normal(size=(15, 2)),
        "keypoint": random.normal(size=(15, 9, 2)).astype(np.float32),
    }


def write(path: Path, ends: tuple[int, ...] = ENDS) -> Path:
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for name, array in arrays().items():
        target = root.create_array(
            f"data/{name}",
            shape=array.shape,
            chunks=(4, *array.shape[1:]),
            dtype=array.dtype,
            compressors=Blosc("zstd"),
        )
        target[:] = array
    target = root.create_array("meta/episode_ends", shape=(len(ends),), dtype=np.int64)
    target[:] = ends
    return path


def pack(path: Path) -> Path:
    """The same as an archive."""
    archived = path.with_name(f"{path.name}.zip")
    with ZipFile(archived, "w") as archive:
        for file in (f for f in path.rglob("*") if f.is_file()):
            archive.write(file, file.relative_to(path))
    return archived


def read(path: Path, **config: Any) -> DiffusionPolicy:
    return DiffusionPolicy(
        DiffusionPolicyConfig(**{"instruction": "push the T", **config}), source=path
    )


@pytest.mark.parametrize("as_archive", [False, True])
def test_episodes_are_cut_where_they_end(tmp_path: Path, as_archive: bool) -> None:
    path = write(tmp_path / "pusht.zarr")
    path = pack(path) if as_archive else path
    source, written = (
        read(path, cameras={"top": "img", "wrist": "wrist"}, proprio=("state",)),
        arrays(),
    )
    assert source.ids() == ["000000", "000001", "000002"]
    for begin, end, episode in zip((0, *ENDS), ENDS, map(source.read, source.ids()), strict=False):
        np.testing.assert_array_equal(
            episode.images["top"], written["img"][begin:end].astype(np.uint8)
        )
        np.testing.assert_array_equal(episode.images["wrist"], written["wrist"][begin:end])
        np.testing.assert_array_equal(
            episode.actions, written["action"][begin:end].astype(np.float32)
        )
        np.testing.assert_array_equal(episode.proprio, written["state"][begin:end])


def test_defaults_and_configuration(tmp_path: Path) -> None:
    path = write(tmp_path / "pusht.zarr")
    info = read(path, fps=20.0).info
    assert (list(info.cameras), info.fps, info.action.mode) == (["img", "wrist"], 20.0, "absolute")
    assert info.action.names == ("action_0", "action_1")
    assert info.proprio == ()
    assert read(path, proprio=("state",)).info.proprio[:2] == ("state_0", "state_1")
    info = read(
        path, proprio=("keypoint",), meaning=ConventionOverride(names=("x", "y"), mode="delta")
    ).info
    assert (len(info.proprio), info.action.names, info.action.mode) == (18, ("x", "y"), "delta")


@pytest.mark.parametrize(
    ("ends", "config", "error", "message"),
    [
        ((4, 4), {}, DataError, r"meta/episode_ends says \[4, 4\], and an episode ends after"),
        (ENDS, {"action": "actions"}, ConfigError, "no array 'actions'; did you mean 'action'"),
        (ENDS, {"cameras": {"top": "image"}}, ConfigError, "there is no array 'image'"),
    ],
)
def test_wrong_ends_and_names(
    tmp_path: Path,
    ends: tuple[int, ...],
    config: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        read(write(tmp_path / "pusht.zarr", ends), **config)


def test_ends_beyond_the_frames(tmp_path: Path) -> None:
    source = read(write(tmp_path / "pusht.zarr", (4, 16)))
    with pytest.raises(DataError, match=r"episode_ends counts 16 frames, data/.* has fewer"):
        source.read("000000")


def test_chunks_that_zarr_did_not_write_are_zeros_if_one_says_so(tmp_path: Path) -> None:
    """zarr-python 3 leaves out chunks that hold nothing but zeros."""
    group = zarr.open_group(tmp_path / "waits.zarr", mode="w", zarr_format=3)
    images = np.full((12, 12, 16, 3), 7, np.uint8)
    group.create_array("data/img", data=images, chunks=(4, 12, 16, 3))
    actions = np.ones((12, 2), np.float32)
    actions[:6] = 0
    group.create_array("data/action", data=actions, chunks=(6, 2))
    group.create_array("meta/episode_ends", data=np.array([6, 12]))
    with pytest.raises(DataError, match='say missing_chunks = "zeros" if zarr-python 3'):
        read(tmp_path / "waits.zarr").read("000000")
    source = read(tmp_path / "waits.zarr", missing_chunks="zeros")
    found = [source.read(name).actions for name in source.ids()]
    np.testing.assert_array_equal(np.concatenate(found), actions)


def test_a_chunk_that_is_not_there_is_not_taken_for_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "pusht.zarr")
    healthy = read_all(read(path))
    (path / "data" / "action" / "2.0").unlink()  # frames 8 to 11
    actual = read_all(read(path))
    assert actual["000000"] == healthy["000000"]
    for episode in ("000001", "000002"):
        assert (
            "the chunk data/action/2.0 is not there; copy it again, or say missing_chunks"
            in str(actual[episode])
        )


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "data/img",
            {"shape": [10**12, 12, 16, 3]},
            "data/img: says that it holds 2,304,000,000,000,000 bytes",
        ),
        (
            "data/action",
            {"shape": [15, 10**12]},
            "'action' holds 1,000,000,000,000 numbers a frame, expected 1 to 10,000",
        ),
        (
            "meta/episode_ends",
            {"shape": [10**12]},
            "meta/episode_ends: says that it holds 8,000,000,000,000 bytes",
        ),
        ("data/img", {"chunks": [10**9, 12, 16, 3]}, "the chunk data/img/0.0.0.0 cannot be read"),
        ("data/img", {"chunks": [0, 12, 16, 3]}, "the chunks of img hold nothing"),
        (
            "meta/episode_ends",
            {"shape": [], "chunks": []},
            r"meta/episode_ends is int64 \(\), expected whole numbers",
        ),
        (
            "meta/episode_ends",
            {"dtype": "<f8"},
            r"meta/episode_ends is float64 \(3,\), expected whole numbers",
        ),
    ],
)
def test_false_claims_of_arrays_are_refused(
    tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "pusht.zarr")
    metadata = json.loads((path / file / ".zarray").read_text())
    (path / file / ".zarray").write_text(json.dumps(metadata | changes))
    with bounded(), pytest.raises(DataError, match=message):
        read(path).read("000000")


class Exploit:
    def __reduce__(self) -> Any:
        return (print, ("this ran",))


@pytest.mark.parametrize(
    "codecs",
    [
        {"filters": [{"id": "pickle"}], "compressor": None},
        {"filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle"}},
        {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "compressor": None},
    ],
)
def test_arrays_that_would_run_code_are_refused(
    tmp_path: Path, codecs: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "pusht.zarr")
    metadata = json.loads((path / "data" / "state" / ".zarray").read_text())
    metadata |= {"dtype": "|O", "fill_value": None, **codecs}
    (path / "data" / "state" / ".zarray").write_text(json.dumps(metadata))
    (path / "data" / "state" / "0.0").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(DataError, match=r"pickle"):
        read(path, instruction=None, instruction_column="state").read("000000")
    if codecs["filters"] != [{"id": "pickle"}]:  # zarr itself refuses that one
        assert len(read(path).read("000000")) == ENDS[0]  # nobody asks for it
    assert "this ran" not in capsys.readouterr().out


def test_a_copy_in_another_process_opens_its_own_files(tmp_path: Path) -> None:
    source = read(write(tmp_path / "pusht.zarr"))
    assert read_all(pickle.loads(pickle.dumps(source))) == read_all(source)


@pytest.mark.parametrize("as_archive", [False, True])
@pytest.mark.parametrize(
    ("at", "value"),
    [
        (4, (2**31 - 17).to_bytes(4, "little")),
        (12, (2**31 - 17).to_bytes(4, "little")),
        (0, b"few"),
    ],
)
def test_headers_of_chunks_are_not_believed(
    tmp_path: Path, as_archive: bool, at: int, value: bytes
) -> None:
    """Blosc would read past the end of a chunk whose header says that it is longer."""
    path = write(tmp_path / "pusht.zarr")
    file = path / "data" / "img" / "1.0.0.0"
    content = file.read_bytes()
    file.write_bytes(content[:at] + value + content[at + 4 :] if at else value)
    source = read(pack(path) if as_archive else path)
    with (
        bounded(),
        pytest.raises(DataError, match=r"the chunk data/img/1.0.0.0 is damaged or cut off"),
    ):
        source.read("000001")


def test_long_images_of_floats_are_read_in_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "pusht.zarr")
    whole = read(path, cameras={"top": "img"}).read("000002").images["top"]
    monkeypatch.setattr("core.episodes.frames.WHOLE_BYTES", 1_000)
    images = read(path, cameras={"top": "img"}).read("000002").images["top"]
    assert isinstance(images, Frames)
    np.testing.assert_array_equal(images, whole)


def test_an_action_of_several_arrays(tmp_path: Path) -> None:
    """UMI's buffers have the hand's position, its rotation and the gripper, and no action."""
    path = write(tmp_path / "umi.zarr")
    (path / "data" / "action").rename(path / "data" / "robot0_eef_pos")
    with pytest.raises(ConfigError, match=r"no array 'action'; say action = \.\.\."):
        read(path)
    source = read(path, action=("robot0_eef_pos", "state[0:3]"))
    assert source.info.action.names == (
        *("robot0_eef_pos_0", "robot0_eef_pos_1"),
        *("state_0", "state_1", "state_2"),
    )
    written = arrays()
    expected = np.hstack([written["action"], written["state"][:, :3]])[4:9]
    np.testing.assert_array_equal(source.read("000001").actions, expected.astype(np.float32))


def test_no_replay_buffer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no zarr group"):
        read(tmp_path / "nothing.zarr")
    (tmp_path / "text.zarr.zip").write_text("no archive")
    with pytest.raises(DataError, match="holds no zarr group"):
        read(tmp_path / "text.zarr.zip")
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_group("parts")
    with pytest.raises(DataError, match=r"no replay buffer; it holds parts"):
        read(tmp_path / "other.zarr")


@FUZZ
@given(which=st.integers(0, 10**6), at=st.floats(0, 1), value=st.binary(min_size=1, max_size=8))
def test_damage_anywhere_is_an_error_in_one_line(
    tmp_path: Path, which: int, at: float, value: bytes
) -> None:
    path = tmp_path / "pusht.zarr"
    files = sorted(
        file for file in (path if path.exists() else write(path)).rglob("*") if file.is_file()
    )
    whole = (file := files[which % len(files)]).read_bytes()
    overwrite(file, at, value)
    message = ""
    with bounded():
        try:
            read_all(read(path))
        except (DataError, ConfigError) as error:
            message = str(error)
    assert len(message.splitlines()) <= 1
    file.write_bytes(whole)
