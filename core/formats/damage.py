"""Files that are damaged: what can still be read of them, and what must not be believed."""

from collections.abc import Callable, Iterable
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TypeVar

from core.errors import ConfigError, DataError
from core.system.strict import one_line

Place = TypeVar("Place")
Found = TypeVar("Found")
# times the bytes that are there: more than compression reaches, deflate's limit being 1,032
INFLATION = 2_000
ALWAYS = 2**24  # bytes that may be claimed in any case: one flat picture takes next to nothing
AGREEING = 3  # places that lack what a setting names, until the setting is taken to be wrong


def first_readable(places: Iterable[Place], read: Callable[[Place], Found]) -> Found:
    """What `read` finds at the first place, of one or more, that is as it should be.

    Goes on past DataError, and past ConfigError too: a setting is not wrong because one file lacks
    what it names. Raises the ConfigError once three places agree on it, and what was raised first
    where there is no good place.
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
            if len(mistakes) == AGREEING:
                break
    if mistakes:
        raise mistakes[0]
    if len(errors) == 1:
        raise errors[0]
    raise DataError(f"none of {len(errors)} can be read; the first: {errors[0]}")


def file_size(file: Path) -> int:
    """Bytes in a file; raises DataError where there is nothing to read: no file, a folder or a
    pipe, or no bytes.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error)}); copy it again") from None
    if not S_ISREG(status.st_mode):
        raise DataError(
            f"{file}: is {'a folder' if S_ISDIR(status.st_mode) else 'no file'}; put the file there"
        )
    if not status.st_size:
        raise DataError(f"{file}: is empty; copy it again")
    return status.st_size


def check_claimed_size(claimed: int, there: int, where: str) -> None:
    """Raise DataError where the `there` bytes of a file cannot hold as many as they claim; before
    any is allocated.
    """
    if claimed > max(ALWAYS, INFLATION * there):
        raise DataError(
            f"{where}: says that it holds {claimed:,} bytes, more than {there:,} can; copy it again"
        )
