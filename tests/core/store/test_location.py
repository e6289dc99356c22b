"""Locations of stores: addresses, and local files through the functions for both kinds."""

from pathlib import Path

import pytest

from core.store.location import (
    URL,
    FileReader,
    address,
    drop_copy,
    fetch,
    local_copy,
    locate,
    map_files,
    open_ranges,
    stream,
)


def test_an_address_is_a_path_or_a_url() -> None:
    assert address("data/name.zarr") == Path("data/name.zarr")
    url = address("s3://bucket/name.zarr")
    assert isinstance(url, URL)
    assert url == "s3://bucket/name.zarr"
    with pytest.raises(ValueError, match="expected a path or a URL, got 3"):
        address(3)


def test_a_local_store_is_located_as_a_path(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path == locate(tmp_path)


def test_a_url_is_located_below_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("JOINERY_CACHE", str(tmp_path))
    store = locate("http://127.0.0.1:9/data/name.zarr/")
    assert (str(store), store.name) == ("http://127.0.0.1:9/data/name.zarr", "name.zarr")
    commit = store / "commits" / "00000000.json"
    assert str(commit) == "http://127.0.0.1:9/data/name.zarr/commits/00000000.json"
    assert commit == store.joinpath("commits", "00000000.json")
    assert commit.name == "00000000.json"


def test_a_local_file_is_its_own_copy(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    fetch([file, tmp_path / "missing"])
    assert local_copy(file) == file
    assert not drop_copy(file)
    assert file.exists()


def test_files_are_mapped_in_order(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "cab"]
    for file in files:
        file.write_text(file.name)
    assert map_files(lambda file: file.read_text(), files) == ["c", "a", "b"]
    assert map_files(lambda file: file.read_text(), []) == []


def test_a_file_is_streamed_in_pieces(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(10)))
    assert [len(piece) for piece in stream(file, 4)] == [4, 4, 2]
    assert b"".join(stream(file, 4)) == bytes(range(10))


def test_ranges_of_a_local_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(10)))
    ranges = open_ranges(file, 10)
    assert isinstance(ranges, FileReader)
    assert ranges.read(2, 5) == bytes([2, 3, 4])
    assert ranges.read(8, 20) == bytes([8, 9])  # what is cut off is missing, not an error
    with pytest.raises(FileNotFoundError):
        open_ranges(tmp_path / "missing", 10)
