"""Replay buffers in zarr's format 2, as diffusion_policy writes them."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings, strategies as st
from numcodecs import Blosc

from core.data.formats import Meaning
from core.errors import DataError, RecipeError
from plugins.datasets.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig

ENDS = (4, 9, 15)


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "img": random.integers(0, 256, (15, 12, 16, 3)).astype(np.float32),  # push-T keeps floats up to 255
        "wrist": random.integers(0, 256, (15, 8, 8, 3), dtype=np.uint8),
        "state": random.normal(size=(15, 5)).astype(np.float32),
        "action": random.normal(size=(15, 2)),
        "keypoint": random.normal(size=(15, 9, 2)).astype(np.float32),
    }


def write(path: Path, ends: tuple[int, ...] = ENDS) -> Path:
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for name, array in arrays().items():
        made = root.create_array(
            f"data/{name}",
            shape=array.shape,
            chunks=(4, *array.shape[1:]),
            dtype=array.dtype,
            compressors=Blosc("zstd"),
        )
        made[:] = array
    made = root.create_array("meta/episode_ends", shape=(len(ends),), dtype=np.int64)
    made[:] = ends
    return path


def read(path: Path, **config: Any) -> DiffusionPolicy:
    return DiffusionPolicy(DiffusionPolicyConfig(**{"instruction": "push the T", **config}), source=path)


@pytest.mark.parametrize("packed", [False, True])
def test_episodes_are_cut_where_they_end(tmp_path: Path, packed: bool) -> None:
    path = write(tmp_path / "pusht.zarr")
    if packed:
        with ZipFile(tmp_path / "pusht.zarr.zip", "w") as archive:
            for file in (f for f in path.rglob("*") if f.is_file()):
                archive.write(file, file.relative_to(path))
        path = tmp_path / "pusht.zarr.zip"
    source, written = read(path, cameras={"top": "img", "wrist": "wrist"}, proprio=("state",)), arrays()
    assert source.ids() == ["000000", "000001", "000002"]
    for begin, end, episode in zip((0, *ENDS), ENDS, map(source.read, source.ids()), strict=False):
        np.testing.assert_array_equal(episode.images["top"], written["img"][begin:end].astype(np.uint8))
        np.testing.assert_array_equal(episode.images["wrist"], written["wrist"][begin:end])
        np.testing.assert_array_equal(episode.actions, written["action"][begin:end].astype(np.float32))
        np.testing.assert_array_equal(episode.proprio, written["state"][begin:end])


def test_what_is_found_and_what_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "pusht.zarr")
    info = read(path, fps=20.0).info
    assert (list(info.cameras), info.fps, info.action.mode) == (["img", "wrist"], 20.0, "absolute")
    assert info.action.names == ("action_0", "action_1")
    assert info.proprio == ()
    assert read(path, proprio=("state",)).info.proprio[:2] == ("state_0", "state_1")
    said = read(path, proprio=("keypoint",), meaning=Meaning(names=("x", "y"), mode="delta")).info
    assert (len(said.proprio), said.action.names, said.action.mode) == (18, ("x", "y"), "delta")


@pytest.mark.parametrize(
    ("ends", "config", "error", "message"),
    [
        ((4, 4), {}, DataError, "meta/episode_ends must rise"),
        ((4, 16), {}, DataError, "meta/episode_ends counts 16 frames, data/img has fewer"),
        (ENDS, {"action": "actions"}, RecipeError, "no array 'actions'; did you mean 'action'"),
        (ENDS, {"cameras": {"top": "image"}}, RecipeError, "there is no array 'image'"),
    ],
)
def test_what_does_not_fit(
    tmp_path: Path, ends: tuple[int, ...], config: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(write(tmp_path / "pusht.zarr", ends), **config)


def test_a_chunk_that_is_not_there_is_not_taken_for_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "pusht.zarr")
    next(file for file in (path / "data" / "action").iterdir() if file.name[0] != ".").unlink()
    with pytest.raises(DataError, match=r"data/action lacks 1 of 4 chunks; copy it again"):
        read(path)


def test_no_replay_buffer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no zarr group"):
        read(tmp_path / "nothing.zarr")
    (tmp_path / "text.zarr.zip").write_text("no archive")
    with pytest.raises(DataError, match="holds no zarr group"):
        read(tmp_path / "text.zarr.zip")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 10**6), at=st.floats(0, 1), value=st.binary(min_size=1, max_size=8))
def test_damage_anywhere_is_an_error_in_one_line(tmp_path: Path, which: int, at: float, value: bytes) -> None:
    path = write(tmp_path / "pusht.zarr")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = files[which % len(files)]
    content = bytearray(file.read_bytes())
    begin = int(at * (len(content) - 1))
    content[begin : begin + len(value)] = value
    file.write_bytes(content)
    message = ""
    try:
        source = read(path)
        for episode in source.ids():
            source.read(episode)
    except (DataError, RecipeError) as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
