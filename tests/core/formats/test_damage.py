"""Damaged files: the first readable one is found, and claims are compared with file sizes."""

from pathlib import Path

import pytest

from core.errors import ConfigError, DataError
from core.formats.damage import check_claimed_size, file_size, first_readable


def test_the_first_readable_place_is_returned() -> None:
    def read(place: int) -> int:
        if place < 2:
            raise DataError(f"{place}: damaged")
        return place

    assert first_readable([0, 2, 1, 3], read) == 2
    with pytest.raises(DataError, match=r"^1: damaged"):
        first_readable([1], read)
    with pytest.raises(DataError, match=r"none of 2 can be read; the first: 1: damaged"):
        first_readable([1, 0], read)


def test_a_setting_is_wrong_once_three_places_say_so() -> None:
    def read(place: int) -> int:
        visited.append(place)
        if place == 0:
            raise DataError("damaged")
        if place < 9:
            raise ConfigError(f"{place}: there is no array 'front'")
        return place

    visited: list[int] = []
    assert first_readable([0, 1, 2, 9], read) == 9
    visited.clear()
    with pytest.raises(ConfigError, match=r"1: there is no array 'front'"):
        first_readable([0, 1, 2, 3, 4, 9], read)
    assert visited == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match=r"1: there is no array 'front'"):
        first_readable([0, 1, 0], read)


def test_claims_are_compared_with_the_file_size() -> None:
    check_claimed_size(10**9, 10**6, "here")
    check_claimed_size(10**7, 1, "here")
    with pytest.raises(
        DataError,
        match=r"here: says that it holds 1,000,000,000,000 bytes, more than 1,000,000 can",
    ):
        check_claimed_size(10**12, 10**6, "here")


def test_the_size_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"four")
    assert file_size(tmp_path / "a") == 4
    with pytest.raises(DataError, match=r"b: cannot be read \(No such file or directory\)"):
        file_size(tmp_path / "b")
    with pytest.raises(DataError, match="is a folder; put the file there"):
        file_size(tmp_path)
