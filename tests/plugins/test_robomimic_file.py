"""A file that keeps its first error for later."""

from io import FileIO
from pathlib import Path

from plugins.datasets.robomimic.file import TolerantFile


class FullDisk(FileIO):
    """A file on which every write beyond ten bytes fails."""

    def write(self, data: object) -> int:
        if self.tell() + len(memoryview(data)) > 10:  # type: ignore[arg-type]
            raise OSError(28, "No space left on device")
        return super().write(data)  # type: ignore[arg-type]


def test_it_writes_and_reads_like_any_file(tmp_path: Path) -> None:
    file = TolerantFile(FileIO(tmp_path / "a", "x+"))
    assert file.write(b"abcdef") == 6
    file.seek(2)
    assert file.read(3) == b"cde"
    assert file.tell() == 5
    assert file.error is None
    file.close()
    assert (tmp_path / "a").read_bytes() == b"abcdef"


def test_an_error_is_kept_and_later_writes_are_dropped(tmp_path: Path) -> None:
    file = TolerantFile(FullDisk(tmp_path / "a", "x+"))
    assert [file.write(b"12345678"), file.write(b"90abc"), file.write(b"d")] == [8, 5, 1]
    assert file.error is not None
    assert file.error.errno == 28
    file.close()
    assert (tmp_path / "a").read_bytes() == b"12345678"


def test_bytes_that_were_never_written_are_zeros(tmp_path: Path) -> None:
    file = TolerantFile(FileIO(tmp_path / "a", "x+"))
    file.write(b"ab")
    file.seek(0)
    buffer = bytearray(b"????")
    assert file.readinto(buffer) == 4
    assert buffer == b"ab\0\0"
    file.close()
