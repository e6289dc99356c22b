"""A file that hides write errors, for example of a full disk, from HDF5.

HDF5 crashes the process if writing fails while HDF5 closes a file.
"""

from io import SEEK_SET, FileIO, RawIOBase


class TolerantFile(RawIOBase):
    """Stores the first error in `error` instead of raising it, and ignores all later writes."""

    def __init__(self, file: FileIO) -> None:
        super().__init__()
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write all of the data, or store the error in `error`."""
        remaining = memoryview(data).cast("B")
        size = len(remaining)
        try:
            while remaining and self.error is None:
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Change the file's length to `size` bytes, or store the error in `error`."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill the buffer from the file; bytes beyond the file's end are zeros."""
        view = memoryview(buffer).cast("B")
        total = 0
        while total < len(view) and (count := self._file.readinto(view[total:])):
            total += count
        view[total:] = bytes(len(view) - total)
        return len(view)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move to an offset, which may be beyond the file's end."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the current offset."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
