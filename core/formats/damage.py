"""Guard against damaged files: find a readable file, and check the sizes that files claim."""

from collections.abc import Callable, Iterable
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TypeVar

from core.errors import ConfigError, DataError
from core.system.strict import one_line

Place = TypeVar("Place")
Value = TypeVar("Value")
# A file may claim a decompressed size of at most this many times its own size. Deflate, the
# strongest common compression, reaches a factor of 1,032.
MAX_INFLATION = 2_000
# A claimed decompressed size of up to this many bytes is believed, however small the file is. For
# example, an image of a single colour compresses to almost no bytes.
ALWAYS_ALLOWED = 2**24
# After this many ConfigErrors, `first_readable` takes the setting to be wrong, and stops.
CONFIRMATIONS = 3


def first_readable(places: Iterable[Place], read: Callable[[Place], Value]) -> Value:
    """Call `read` on one or more places, one after the other, until a call succeeds.

    Returns the result of that call. If a call raises DataError or ConfigError, the next place is
    tried. A single ConfigError does not show that a setting is wrong, because one file may lack
    what the setting names while the other files have it.

    The third ConfigError ends the search, and the first ConfigError is raised. If all places fail,
    raises the first ConfigError, or a DataError if there was no ConfigError.
    """
    errors: list[DataError] = []
    mistakes: list[ConfigError] = []
    for place in places:
        try:
            return read(place)
        except DataError as error:
            errors.append(error)
        except ConfigError as error:
            mistakes.append(error)
            if len(mistakes) == CONFIRMATIONS:
                break
    if mistakes:
        raise mistakes[0]
    if len(errors) == 1:
        raise errors[0]
    raise DataError(f"none of {len(errors)} can be read; the first: {errors[0]}")


def file_size(file: Path) -> int:
    """Return the size of a file in bytes.

    Raises DataError if there is nothing to read: no file, a folder, a pipe, or an empty file.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error)}); copy it again") from None
    if not S_ISREG(status.st_mode):
        kind = "a folder" if S_ISDIR(status.st_mode) else "no file"
        raise DataError(f"{file}: is {kind}; put the file there")
    if not status.st_size:
        raise DataError(f"{file}: is empty; copy it again")
    return status.st_size


def check_claimed_size(claimed: int, size: int, where: str) -> None:
    """Raise DataError if `size` compressed bytes cannot unpack to as many as `claimed` bytes.

    Call this function before memory is allocated for the unpacked bytes.
    """
    if claimed > max(ALWAYS_ALLOWED, MAX_INFLATION * size):
        raise DataError(
            f"{where}: says that it holds {claimed:,} bytes, more than {size:,} can; copy it again"
        )
