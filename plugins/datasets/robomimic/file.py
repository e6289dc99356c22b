"""A file for HDF5 to write to, which survives a full disk: HDF5 itself crashes when it cannot write
what it must.
"""

from io import SEEK_SET, FileIO, RawIOBase


class TolerantFile(RawIOBase):
    """Keeps the first error in `error` instead of raising it, and takes whatever comes after for
    written.
    """

    def __init__(self, file: FileIO) -> None:
        super().__init__()
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write all of it, or note why not."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self.error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Make the file as long as HDF5 wants it, or note why not."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read back; what was never written is zeros."""
        view = memoryview(buffer).cast("B")
        got = 0
        while got < len(view) and (count := self._file.readinto(view[got:])):
            got += count
        view[got:] = bytes(len(view) - got)
        return len(view)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move, also beyond the end."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where it stands."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
