"""numpy's files are read as written, and what they claim is not believed."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

from core.errors import DataError
from core.formats.arrays import npz_names, read_npy, read_npz
from tests.damage import bounded

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def npy(array: np.ndarray) -> bytes:
    np.save(stream := BytesIO(), array)
    return stream.getvalue()


def claiming(shape: tuple[int, ...]) -> bytes:
    """The array of IMAGES, whose header says that it has another shape."""
    np.lib.format.write_array_header_1_0(
        stream := BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + IMAGES.tobytes()


def pack(file: Path, content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("front.npy", content)
    return file


@settings(deadline=None, derandomize=True)
@given(
    array=arrays(scalar_dtypes(), array_shapes(min_dims=0, min_side=0)), columns_first=st.booleans()
)
def test_arrays_of_all_kinds_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, columns_first: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "array.npy"
    written = np.asfortranarray(array) if columns_first and array.ndim else array
    np.save(file, written)
    array = read_npy(file)
    assert (array.dtype, array.shape, array.tobytes()) == (
        written.dtype,
        written.shape,
        written.tobytes(),
    )


def test_some_arrays_or_all(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez_compressed(file, front=IMAGES, action=np.ones(2))
    assert read_npz(file).keys() == {"front", "action"}
    np.testing.assert_array_equal(read_npz(file, ["front"])["front"], IMAGES)
    with pytest.raises(DataError, match=r"a.npz: has no array 'acton'; did you mean 'action'"):
        read_npz(file, ["acton"])


@pytest.mark.parametrize(
    "shape", [(10**12,), (2, 3, 4, 10**12), (10**9, 10**9, 10**9), (2, 3), (-2, -12), (2, 3, 5)]
)
def test_a_shape_that_the_bytes_do_not_have_is_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    (tmp_path / "a.npy").write_bytes(claiming(shape))
    for read, file in (
        (read_npy, tmp_path / "a.npy"),
        (read_npz, pack(tmp_path / "a.npz", claiming(shape))),
    ):
        with bounded(), pytest.raises(DataError, match=f"{file.name}: damaged or no"):
            read(file)


def test_a_member_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.npz", npy(IMAGES))
    content, size = file.read_bytes(), len(npy(IMAGES)).to_bytes(4, "little")
    listed = content.index(b"PK\x01\x02")  # where the archive lists its members
    file.write_bytes(
        content[:listed] + content[listed:].replace(size, (2**31).to_bytes(4, "little"))
    )
    with (
        bounded(),
        pytest.raises(
            DataError, match=r"a.npz: damaged .*its arrays claim 2,147,483,648 bytes of a file of"
        ),
    ):
        read_npz(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_without_a_limit_is_refused(tmp_path: Path, method: int) -> None:
    """45 bytes of bzip2 can be 45 MB of zeros."""
    file = pack(tmp_path / "a.npz", npy(np.zeros(10**7)), method)
    with (
        bounded(),
        pytest.raises(DataError, match=r"compressed in a way that numpy does not write"),
    ):
        read_npz(file)


def test_other_things_than_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "empty.npz").write_bytes(b"")
    for name, message in (
        ("folder.npz", "folder.npz: is a folder"),
        ("empty.npz", "empty.npz: is empty; copy it again"),
        ("nothing.npz", r"nothing.npz: cannot be read \(No such file or directory\)"),
        ("/dev/zero", "/dev/zero: is no file"),
    ):
        with pytest.raises(DataError, match=message):
            read_npz(tmp_path / name)


def test_a_file_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", IMAGES)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"a.npy: damaged or no .npy file \(Permission denied\)"):
        read_npy(tmp_path / "a.npy")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    message = "holds Python objects, which might run code and are not loaded; save it as numbers"
    with pytest.raises(DataError, match=f"a.npy: {message}"):
        read_npy(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", front=IMAGES, ragged=np.array([{}]))
    assert [*read_npz(tmp_path / "a.npz")] == ["front"]
    assert npz_names(tmp_path / "a.npz") == ["front", "ragged"]
    with pytest.raises(DataError, match=f"a.npz: 'ragged' {message}"):
        read_npz(tmp_path / "a.npz", ["ragged"])
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"a.npz: damaged or no .npz file"):
        npz_names(tmp_path / "a.npz")
