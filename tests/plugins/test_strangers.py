"""Data sets of strangers: they name no code, no file elsewhere, and no size that is believed."""

import json
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import zarr

from core.commands.import_ import main
from core.errors import DataError
from core.formats import decode_images, encoded_size, read_npz
from tests.damage import bounded
from tests.plugins import test_diffusion_policy as diffusion_policy
from tests.plugins.test_damaged_sources import BY_NAME, errors, run_import

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 4 4
(proof.txt) (w) file closefile
%%EOF
"""


def refused(name: str, source: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Import a source, which must fail in one line, and return the line."""
    capsys.readouterr()
    out = source.parent / "out.zarr"
    assert run_import(BY_NAME[name], source, out, "--skip-bad") == 1
    assert not out.exists()
    (line,) = errors(capsys.readouterr().err)
    return line


# -------------------------------------------------------------------------------------------- HDF5


def link_data(file: Any, h5py: Any, secret: Path) -> None:
    del file["action"]
    file["action"] = h5py.ExternalLink(secret, "action")


def link_by_a_soft_link(file: Any, h5py: Any, secret: Path) -> None:
    del file["action"]
    file["other"] = h5py.ExternalLink(secret, "/")
    file["action"] = h5py.SoftLink("/other/action")


def map_virtually(file: Any, h5py: Any, secret: Path) -> None:
    shape = file["action"].shape
    del file["action"]
    layout = h5py.VirtualLayout(shape, np.float32)
    layout[:] = h5py.VirtualSource(secret, "action", shape)
    file.create_virtual_dataset("action", layout)


def store_externally(file: Any, _: Any, secret: Path) -> None:
    shape = file["action"].shape
    del file["action"]
    size = int(np.prod(shape)) * 4
    file.create_dataset("action", shape, np.float32, external=[(str(secret), 0, size)])


@pytest.mark.parametrize(
    "change", [link_data, link_by_a_soft_link, map_virtually, store_externally]
)
def test_an_hdf5_file_leads_to_no_other(
    change: Callable[[Any, Any, Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h5py = pytest.importorskip("h5py")
    source, secret = BY_NAME["hdf5"].write(tmp_path / "source.zarr"), tmp_path / "secret.hdf5"
    shutil.copy(source / "episode_2.hdf5", secret)
    (source / "episode_10.hdf5").unlink()
    with h5py.File(source / "episode_2.hdf5", "a") as file:
        change(file, h5py, secret)
    line = refused("hdf5", source, capsys)
    assert "episode_2.hdf5" in line
    assert "another file" in line or "other files" in line


def test_one_long_text_is_not_repeated_without_end(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    from plugins.datasets.robomimic.hdf5 import open_file, read_texts

    path = tmp_path / "words.hdf5"
    with h5py.File(path, "w") as file:
        words = file.create_dataset("words", (20_000,), h5py.string_dtype(), compression="gzip")
        words[0] = "x" * 10**6
    content = path.read_bytes()
    with h5py.File(path, "a") as file:
        reference = (
            bytes(np.asarray(file["words"].id.read_direct_chunk((0,))[1])) if content else b""
        )
    assert reference
    with bounded(256), open_file(path) as root:
        read_texts(path, root, "words")


# -------------------------------------------------------------------------------------------- zarr


@pytest.mark.parametrize("codec", ["pickle", "json2", "msgpack2", "categorize", "a_package's_own"])
def test_codecs_that_may_do_anything_are_not_called(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = diffusion_policy.write(tmp_path / "buffer.zarr")
    buffer = diffusion_policy.DiffusionPolicy(
        diffusion_policy.DiffusionPolicyConfig(instruction="push"), source=source
    )

    class Codec:
        codec_id = codec

    from plugins.datasets.diffusion_policy import buffer as module

    monkeypatch.setattr(module, "_codecs", lambda _: {Codec.codec_id})
    with pytest.raises(DataError, match="is not decoded, since it might run code"):
        buffer.read(buffer.ids()[0])


@pytest.mark.parametrize("version", [2, 3])
def test_codecs_that_buffers_have_are_decoded(version: int, tmp_path: Path) -> None:
    from plugins.datasets.diffusion_policy.buffer import KNOWN_CODECS, _codecs

    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
    array = root.create_array("x", shape=(4,), dtype=np.float32)
    assert all(KNOWN_CODECS.fullmatch(name) for name in _codecs(array))
    assert _codecs(array)


def test_a_pipe_in_a_buffer_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = diffusion_policy.write(tmp_path / "source.zarr")
    (source / "data" / ".zgroup").unlink(missing_ok=True)
    os.mkfifo(source / "data" / ".zgroup")
    assert ".zgroup is no file" in refused("diffusion_policy", source, capsys)


# ----------------------------------------------------------------------------------------- LeRobot


def change_info(source: Path, **changes: Any) -> None:
    path = source / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("key", "template"),
    [
        ("data_path", "/etc/passwd"),
        ("data_path", "../secret/{episode_index}.parquet"),
        ("data_path", "data/../../secret/{episode_index}.parquet"),
        ("data_path", "{episode_index.__class__}"),
        ("data_path", "{episode_index!r}"),
        ("data_path", "{unknown}"),
        ("data_path", "{episode_index:999999999d}"),
        ("data_path", ["a"]),
        ("video_path", "/{video_key}.mp4"),
        ("video_path", "{video_key}/../../../{episode_index}"),
    ],
)
def test_templates_of_paths_stay_inside(
    key: str, template: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = BY_NAME["lerobot"].write(tmp_path / "source.zarr")
    change_info(source, **{key: template})
    line = refused("lerobot", source, capsys)
    assert str(source) in line


def test_one_cell_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Parquet stores a long text once, however many rows have it."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from plugins.datasets.lerobot.layout import read_table

    for stores_schema in (False, True):
        indices, words = np.zeros(4_000, np.int32), ["x" * 100_000]
        table = arrow.table({"words": arrow.DictionaryArray.from_arrays(indices, words)})
        path = tmp_path / "words.parquet"
        parquet.write_table(table, path, store_schema=stores_schema)
        with bounded(256), pytest.raises(DataError, match=r"words.parquet: says that it holds"):
            read_table(path, [])


def test_names_of_features_lead_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = BY_NAME["lerobot"].write(tmp_path / "source.zarr")
    path = source / "meta" / "info.json"
    name = "observation.images.top"
    path.write_text(path.read_text().replace(name, "../../../../secret/top"))
    assert str(source) in refused("lerobot", source, capsys)


def test_links_of_a_cache_are_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A snapshot of the Hugging Face hub consists of links to blobs beside it."""
    written = BY_NAME["lerobot"].write(tmp_path / "source.zarr")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, file in enumerate(path for path in written.rglob("*") if path.is_file()):
        shutil.move(file, blobs / str(number))
        file.symlink_to(blobs / str(number))
    assert run_import(BY_NAME["lerobot"], written, tmp_path / "out.zarr") == 0
    assert not errors(capsys.readouterr().err)


# ------------------------------------------------------------------------------- files of all kinds


def test_postscript_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand it to Ghostscript, which runs it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no kind of image that Pillow knows"):
        encoded_size(POSTSCRIPT, "frame")
    with pytest.raises(DataError, match="no kind of image that Pillow knows"):
        decode_images([POSTSCRIPT], 4, 4, "frame")
    assert not (tmp_path / "proof.txt").exists()


def test_bytes_that_many_arrays_share_are_not_unpacked(tmp_path: Path) -> None:
    """As in Fifield's "A better zip bomb" (2019): members of an archive that overlap."""
    path = tmp_path / "bomb.npz"
    np.save(content := BytesIO(), np.zeros(4_000_000, np.uint8))
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content.getvalue())
        first = archive.infolist()[0]
        for number in range(3000):  # entries of the list that all lead to the same bytes
            entry = ZipFile.open.__globals__["ZipInfo"](f"{number}.npy")
            for key in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(entry, key, getattr(first, key))
            archive.filelist.append(entry)
    with (
        bounded(64),
        pytest.raises(DataError, match=r"bomb.npz: damaged .*its arrays claim [\d,]+ bytes of a"),
    ):
        read_npz(path)


@pytest.mark.parametrize("name", ["rlds", "lerobot"])
def test_json_that_is_nested_without_end(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = BY_NAME[name].write(tmp_path / "source.zarr")
    for file in source.rglob("*.json"):
        file.write_text("[" * 10**6)
    assert "nested too deeply" in refused(name, source, capsys)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_pipe_is_never_waited_for(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = BY_NAME[name].write(tmp_path / "source.zarr")
    for file in [path for path in source.rglob("*") if path.is_file()]:
        file.unlink()
        os.mkfifo(file)
    with bounded(256):
        refused(name, source, capfd)


def test_the_command_names_its_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["npz", "/dev/zero", "out.zarr", "fps=5"]) == 1
    assert len(errors(capsys.readouterr().err)) == 1
