"""Guard against damaged files: find a readable one, and do not trust a size that a file claims."""

from collections.abc import Callable, Iterable
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TypeVar

from core.errors import ConfigError, DataError
from core.system.strict import one_line

Place = TypeVar("Place")
Value = TypeVar("Value")
# The decompressed size that a file states may be at most this many times the size of the file.
# Deflate, the strongest common compression, reaches a factor of 1,032.
MAX_INFLATION = 2_000
# A decompressed size of up to this many bytes is believed, however small the file is: an image of
# one colour takes almost no bytes.
ALWAYS_ALLOWED = 2**24
# Once this many places lack what a setting names, the setting is taken to be wrong.
CONFIRMATIONS = 3


def first_readable(places: Iterable[Place], read: Callable[[Place], Value]) -> Value:
    """Call `read` on one or more places, one after the other, until a call succeeds.

    Returns the result of that call. A DataError or ConfigError leads on to the next place, because
    a setting is not wrong just because one file lacks what it names.

    Raises the first ConfigError once three places have raised one, or once all places have failed.
    If none has raised a ConfigError, raises a DataError about all of them.
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
    """Raise DataError if `size` bytes of a file cannot unpack to the `claimed` number of bytes.

    Call it before memory is allocated for these bytes.
    """
    if claimed > max(ALWAYS_ALLOWED, MAX_INFLATION * size):
        raise DataError(
            f"{where}: says that it holds {claimed:,} bytes, more than {size:,} can; copy it again"
        )
