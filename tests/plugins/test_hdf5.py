"""HDF5 files that are one episode each, in ACT's and ALOHA's layout."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.commands.import_ import main
from core.episodes import Frames
from core.errors import ConfigError, DataError
from core.formats.importing import import_episodes
from core.store.store import EpisodeStore

h5py = pytest.importorskip("h5py", reason="needs h5py (pip install -e '.[robomimic]')")
from plugins.datasets.robomimic import single  # noqa: E402
from plugins.datasets.robomimic.single import Hdf5, Hdf5Config  # noqa: E402

LENGTHS = {"episode_2": 5, "episode_10": 4}


def frames(length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, 256, (length, 12, 16, 3), dtype=np.uint8)


def write(folder: Path, compressed: bool = False, **attributes: Any) -> Path:
    folder.mkdir()
    for name, length in LENGTHS.items():
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            file["action"] = np.arange(length * 14, dtype=np.float32).reshape(length, 14)
            file["observations/qpos"] = -np.arange(length * 14, dtype=float).reshape(length, 14)
            images = padded(frames(length)) if compressed else frames(length)
            file["observations/images/cam_high"] = images
            file.attrs.update(attributes)
    return folder


def padded(images: np.ndarray) -> np.ndarray:
    """PNG files, padded with zeros to one length."""
    files = []
    for image in images:
        Image.fromarray(image).save(stream := BytesIO(), "png")
        files.append(stream.getvalue())
    longest = max(map(len, files))
    rows = [np.frombuffer(file.ljust(longest, b"\0"), np.uint8) for file in files]
    return np.stack(rows)


def read(folder: Path, **config: Any) -> Hdf5:
    return Hdf5(Hdf5Config(**{"fps": 50.0, "instruction": "open it", **config}), source=folder)


@pytest.mark.parametrize("compressed", [False, True])
def test_files_are_read_as_written(tmp_path: Path, compressed: bool) -> None:
    source = read(write(tmp_path / "aloha", compressed))
    assert source.ids() == ["episode_2", "episode_10"]
    assert (source.info.fps, source.info.action.mode, source.info.action.frame) == (
        50.0,
        "absolute",
        "joint",
    )
    assert "HDF5 files do not say" in source.info.assumed["mode"]
    for name, episode in zip(LENGTHS, map(source.read, source.ids()), strict=True):
        length = LENGTHS[name]
        np.testing.assert_array_equal(episode.images["cam_high"], frames(length))
        np.testing.assert_array_equal(episode.actions.ravel(), np.arange(length * 14))
        np.testing.assert_array_equal(episode.proprio.ravel(), -np.arange(length * 14))


def test_colours_of_compressed_images_may_have_been_exchanged(tmp_path: Path) -> None:
    """OpenCV takes the first channel for blue, both when it writes and when it reads."""
    folder = write(tmp_path / "aloha", compressed=True)
    assert (
        "say swap_red_blue = true or false" in read(folder).info.assumed["red and blue of images"]
    )
    source = read(folder, swap_red_blue=True)
    assert "red and blue of images" not in source.info.assumed
    found = source.read("episode_2").images["cam_high"]
    np.testing.assert_array_equal(found, frames(5)[..., ::-1])
    plain = read(write(tmp_path / "plain"), swap_red_blue=True)  # these say what they are
    np.testing.assert_array_equal(plain.read("episode_2").images["cam_high"], frames(5))
    assert "red and blue of images" not in read(tmp_path / "plain").info.assumed


def test_images_of_two_meanings_are_not_mixed(tmp_path: Path) -> None:
    folder, out = write(tmp_path / "aloha", compressed=True), tmp_path / "out.zarr"
    settings = [str(folder), str(out), "fps=50", "instruction=open it", "--jobs", "1"]
    assert main(["hdf5", *settings]) == 0
    assert main(["hdf5", *settings]) == 0
    with pytest.raises(DataError, match=r"images are assumed in this store and known of these"):
        import_episodes(
            read(folder, swap_red_blue=True, fps=50.0, instruction="open it"), out, lambda *_: None
        )


def test_attributes_give_rate_and_words(tmp_path: Path) -> None:
    folder = write(tmp_path / "aloha", fps=30, instruction="fold the shirt", success=True)
    source = Hdf5(Hdf5Config(where=("success == true",)), source=folder)
    assert source.info.fps == 30
    assert source.read("episode_2").instruction == "fold the shirt"


def test_the_command(tmp_path: Path) -> None:
    folder, out = write(tmp_path / "aloha"), tmp_path / "out.zarr"
    assert (
        main(["hdf5", str(folder), str(out), "fps=50", "instruction=open it", "--jobs", "1"]) == 0
    )
    assert EpisodeStore(out).length.tolist() == [*LENGTHS.values()]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "aloha")
    with pytest.raises(ConfigError, match="does not say the frame rate"):
        read(folder, fps=None)
    with pytest.raises(ConfigError, match="there is no dataset 'actions'; did you mean 'action'"):
        read(folder, action="actions")
    source = read(folder)
    (folder / "episode_2.hdf5").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"episode_2.hdf5: cannot be read"):
        source.read("episode_2")
    with pytest.raises(DataError, match="holds no episodes"):
        read(tmp_path)


def test_images_of_floats_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are also read in stretches, if they are long."""
    folder = write(tmp_path / "aloha")
    for name, length in LENGTHS.items():
        with h5py.File(folder / f"{name}.hdf5", "a") as file:
            del file["observations/images/cam_high"]
            images = (frames(length) / 255).astype(np.float32)
            file["observations/images/cam_high"] = images
    monkeypatch.setattr("core.episodes.frames.WHOLE_BYTES", 1_000)
    source = read(folder)
    seen: list[str] = []
    original = single.read_dataset

    def count(file: Path, group: Any, path: str, *rows: slice) -> np.ndarray:
        seen.append(path)
        return original(file, group, path, *rows)

    monkeypatch.setattr(single, "read_dataset", count)
    images = source.read("episode_2").images["cam_high"]
    assert seen.count("observations/images/cam_high") == 0
    assert isinstance(images, Frames)
    np.testing.assert_array_equal(images, frames(5))
    assert seen.count("observations/images/cam_high") == 1


def test_cameras_and_files_of_one_name_are_not_lost(tmp_path: Path) -> None:
    folder = write(tmp_path / "aloha")
    for name in LENGTHS:
        with h5py.File(folder / f"{name}.hdf5", "a") as file:
            file["left/rgb"] = file["right/rgb"] = frames(LENGTHS[name])
            file["words"], file["success"] = "pick it up", 1.0
    source = read(folder, instruction=None, instruction_column="words")
    assert set(source.info.cameras) == {"left_rgb", "right_rgb", "cam_high"}
    assert source.read("episode_2").instruction == "pick it up"
    with pytest.raises(DataError, match="expected numbers of 5 frames"):
        read(folder, proprio="success").read("episode_2")
    (folder / "episode_2.h5").write_bytes((folder / "episode_2.hdf5").read_bytes())
    with pytest.raises(DataError, match="two files have one name"):
        read(folder)
