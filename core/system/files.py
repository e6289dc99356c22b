"""Files that appear whole or not at all, and files that another process is still writing."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from uuid import uuid4

from core.errors import DataError


@contextmanager
def written_aside(
    path: Path, *, durable: bool = False, keep_suffix: bool = False
) -> Iterator[Path]:
    """Yield a hidden path in the folder of `path`; rename it to `path` when the `with` block ends.

    The `with` block may write a file or a folder at the hidden path. A file at `path` is replaced
    in one step. If the block raises an exception, `path` stays as it was, and everything at the
    hidden path is removed.

    durable: flush everything to the disk before and after the rename. Without these flushes, a
        crash of the machine may keep the rename and lose the contents.
    keep_suffix: give the hidden path the suffix of `path`, for libraries that look at a file's
        suffix.

    Raises OSError if writing fails, or if `path` is a folder that is not empty.
    """
    unique = uuid4().hex
    aside = path.with_name(f".{unique}.{path.name}" if keep_suffix else f".{path.name}.{unique}")
    try:
        yield aside
        if durable:
            sync(*tree(aside))
        os.replace(aside, path)
        if durable:
            sync(path.parent)
    except BaseException:
        remove(aside)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove hidden files of `written_aside(path)` that killed processes left behind.

    Hidden files made with `keep_suffix` stay. Call this function only while no other process
    writes `path`: the hidden file of that process would be removed, too.
    """
    for leftover in path.parent.glob(f".{escape(path.name)}.*"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists; errors of the operating system are ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sync(*paths: Path) -> None:
    """Wait until all data of the given files and folders is on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def tree(path: Path) -> Iterator[Path]:
    """Yield all files and folders inside a folder, then the folder itself.

    For a file, yield only the file.
    """
    yield from path.rglob("*")
    yield path


def complete_lines(path: Path) -> list[str]:
    """Return the lines of a file of JSON objects, without an incomplete last line.

    A process that was killed or is still writing may have left half a line. If the file does not
    exist, the result is empty. Raises DataError if the file holds no text.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        raise DataError(f"{path}: damaged, it holds no text; remove the file") from None
    return [line for line in lines if line.endswith("}\n")]
