"""A folder of .npz files, one episode in each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from core.errors import ConfigError, DataError
from plugins.datasets.npz import Npz, NpzConfig
from tests.damage import FUZZ, bounded, overwrite, read_all


def episode(number: int) -> dict[str, Any]:
    random = np.random.default_rng(number)
    return {
        "front": random.integers(0, 256, (4 + number, 6, 8, 3), dtype=np.uint8),
        "bright": random.random((4 + number, 6, 8, 3)),
        "action": random.normal(size=(4 + number, 3)),
        "angle": random.normal(size=4 + number),
        "force": random.integers(-5, 5, (4 + number, 2)),
        "instruction": f"do thing {number}",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        np.savez_compressed(tmp_path / f"take{number}.npz", **episode(number))
    return tmp_path


def read(folder: Path, **config: Any) -> Npz:
    return Npz(NpzConfig(**{"fps": 10.0, **config}), source=folder)


def test_files_are_read_as_written(folder: Path) -> None:
    source = read(folder, proprio=("angle", "force"))
    assert source.ids() == ["take0", "take1"]
    assert source.info.proprio == ("angle", "force_0", "force_1")
    for number, actual in enumerate(map(source.read, source.ids())):
        written = episode(number)
        np.testing.assert_array_equal(actual.images["front"], written["front"])
        np.testing.assert_array_equal(
            actual.images["bright"], np.rint(written["bright"] * 255).astype(np.uint8)
        )
        np.testing.assert_array_equal(actual.actions, written["action"].astype(np.float32))
        np.testing.assert_array_equal(actual.proprio[:, 0], written["angle"].astype(np.float32))
        np.testing.assert_array_equal(actual.proprio[:, 1:], written["force"])
        assert actual.instruction == f"do thing {number}"


def test_one_instruction_for_all(folder: Path) -> None:
    assert read(folder, instruction="wipe the table").read("take1").instruction == "wipe the table"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"front": np.zeros((5, 6, 8), np.uint8)},
            r"take1.npz, front: uint8 \(5, 6, 8\) are no pictures",
        ),
        (
            {"bright": np.full((5, 6, 8, 3), np.nan)},
            r"bright: values that are not finite",
        ),
        ({"angle": np.zeros(4)}, r"take1.npz, angle: float64 \(4,\), expected numbers of 5 frames"),
        ({"front": np.array(["a"] * 5)}, r"take1.npz, front: holds text, expected pictures"),
        ({"action": np.array(["a"] * 5)}, r"take1.npz, action: holds text, expected numbers"),
        ({"action": np.array(1.0)}, r"take1.npz, action: .*expected numbers of 5 frames"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    source = read(folder, proprio=("angle",))
    np.savez(folder / "take1.npz", **{**episode(1), **change})
    with pytest.raises(DataError, match=message):
        source.read("take1")


def test_damaged_incomplete_and_missing_files(folder: Path, tmp_path: Path) -> None:
    source = read(folder)
    np.savez(folder / "take1.npz", front=episode(1)["front"], bright=episode(1)["bright"])
    with pytest.raises(DataError, match=r"take1.npz: has no array 'action'; known: bright, front"):
        source.read("take1")
    np.savez(folder / "take1.npz", **{**episode(1), "action": np.array([object()])})
    with pytest.raises(DataError, match=r"take1.npz: 'action' holds Python objects, .*; save"):
        source.read("take1")
    (folder / "take1.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"take1.npz: damaged or no .npz file"):
        source.read("take1")
    np.savez(
        folder / "take1.npz", **{key: x for key, x in episode(1).items() if key != "instruction"}
    )
    with pytest.raises(DataError, match=r"take1.npz: has no array 'instruction'"):
        source.read("take1")
    np.savez(folder / "take1.npz", **{**episode(1), "instruction": ["do", "it"]})
    with pytest.raises(
        DataError, match=r"take1.npz: instruction is <U2 \(2,\), expected one string"
    ):
        source.read("take1")
    with pytest.raises(ConfigError, match="there is no array 'actions'; did you mean 'action'"):
        read(folder, action="actions")
    with pytest.raises(DataError, match=r"holds no .npz files"):
        read(tmp_path / "elsewhere")


def test_python_objects_that_nobody_asks_for_are_left_out_with_a_word(folder: Path) -> None:
    """numpy saves a dictionary, or rows of several lengths, as pickled objects."""
    for number in range(2):
        settings = np.array({"lab": "ours"}, dtype=object)
        np.savez(folder / f"take{number}.npz", **episode(number), settings=settings)
    source = read(folder, where=("instruction == do thing 1",))
    assert source.ids() == ["take1"]
    assert source.notes == ("left out: settings, Python objects",)
    with pytest.raises(ConfigError, match=r"array 'settings' holds text, not numbers"):
        read(folder, action="settings")
    with pytest.raises(DataError, match=r"'settings' holds Python objects, .*; save it as numbers"):
        read(folder, instruction_column="settings").read("take0")
    np.testing.assert_array_equal(source.read("take1").images["front"], episode(1)["front"])


def test_an_episode_whose_floats_have_another_range_is_refused(folder: Path) -> None:
    """The first episode's floats are in [0, 1]; those of another in [0, 255], or the reverse."""
    for first, second, message in ((1, 255, "and white is 1 in"), (255, 1, "white seems to be 1,")):
        for number, scale in enumerate((first, second)):
            arrays = {**episode(number), "bright": scale * episode(number)["bright"]}
            np.savez(folder / f"take{number}.npz", **arrays)
        source = read(folder)
        assert source.read("take0").images["bright"].max() == 255
        with pytest.raises(DataError, match=rf"take1.npz, bright: .*{message}"):
            source.read("take1")


def test_a_folder_without_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", action=np.zeros((3, 2)), instruction="go")
    with pytest.raises(DataError, match="holds no pictures, and an episode needs a camera"):
        read(tmp_path)


def test_a_folder_without_instructions(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", action=np.zeros((3, 2)), front=np.zeros((3, 4, 4, 3), np.uint8))
    with pytest.raises(
        ConfigError, match=r"a.npz: does not say what the robot is told; say instruction = "
    ):
        read(tmp_path)


def test_the_first_file_that_can_be_read_describes_the_others(folder: Path) -> None:
    (folder / "take0.npz").write_bytes(b"PK")
    source = read(folder)
    assert source.info.cameras.keys() == {"front", "bright"}
    assert len(source.read("take1")) == 5
    (folder / "take1.npz").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"none of 2 can be read; the first: .*take0.npz: damaged or no .npz file"
    ):
        read(folder)


@FUZZ
@given(at=st.floats(0, 1), value=st.binary(min_size=1, max_size=8))
def test_damage_is_never_read_as_data(folder: Path, at: float, value: bytes) -> None:
    """Every array has a checksum; bytes between them, a date for example, may change unnoticed."""
    whole, source = (folder / "take1.npz").read_bytes(), read(folder, proprio=("angle",))
    healthy = read_all(source)
    overwrite(folder / "take1.npz", at, value)
    with bounded():
        actual = read_all(source)
    assert actual["take0"] == healthy["take0"]
    assert actual["take1"] == healthy["take1"] or "take1.npz: " in str(actual["take1"])
    (folder / "take1.npz").write_bytes(whole)
