"""Keeps what is done in a stranger's folder inside that folder.

A store or a run that somebody hands over may hold links, and pipes or devices in the place of
files. A link that leads out of the folder is never followed, neither to read nor to write: it may
lead to anything that the user can read or overwrite. The folder itself, and the folders above it,
may be links, because those are the user's own.
"""

import os
from collections.abc import Collection, Iterator
from errno import ELOOP
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import BinaryIO

from core.errors import DataError

# the folders in the folder of a run, or of an evaluation, in which Joinery reads and writes
RUN_FOLDERS = ("checkpoints", "evaluation", "files", "rollouts")


def path_below(folder: Path, name: str) -> Path:
    """Return the path FOLDER/name for a name that a file gives, "images/frame_0.png" for example.

    Links are followed, since a data set in a cache consists of them. Raises DataError if the name
    is absolute or leads up, so that it could name any file.
    """
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute() or "\0" in name:
        raise DataError(f"{folder}: names {name[:80]!r}, which lies outside; correct the name")
    return folder / name


def inside(folder: Path, *names: str) -> Path:
    """Return the path FOLDER/name1/name2/... if what lies there lies inside the folder.

    There may be nothing at that path. Raises DataError if a link on the way from `folder` to the
    path leads out of `folder`, if a name does, or if there is a pipe or a device, of which reading
    may never end.
    """
    path = path_below(folder, "/".join(names))
    check_way(path, len(path.parts) - len(folder.parts))
    return path


def check_way(path: Path, depth: int) -> None:
    """Raise DataError if a link on the way to a path leads out of a folder, as `inside` does.

    depth: how many components the path has inside that folder. None of them leads up.
    """
    way = [str(path)]  # texts, because a store has thousands of files, and texts are quick
    for _ in range(depth):
        way.append(os.path.dirname(way[-1]))
    *entries, folder = way
    for entry in reversed(entries):
        if not _check_entry(entry, folder):
            break


def refuse_links_out(folder: Path, descend: Collection[str] | None = None) -> None:
    """Raise DataError if anything in a folder is a link that leads out of it, a pipe or a device.

    descend: names of the entries of the folder that are searched, too; default: all of them.
    A folder that does not exist holds nothing.
    """
    for entry in _entries(str(folder), None if descend is None else frozenset(descend)):
        _check_entry(entry, str(folder))


def check_run(run: Path) -> None:
    """Raise DataError if a file or folder that Joinery uses in a run's folder lies elsewhere.

    Loggers of other packages may keep links in folders of their own, which are not searched.
    """
    refuse_links_out(run, descend=RUN_FOLDERS)


def open_to_append(path: Path) -> BinaryIO:
    """Open a file to append to it, and to read it; it is made if there is none.

    Raises OSError if the path is a link, which would let the lines go to another file.
    """
    try:
        return open(path, "a+b", opener=_open_no_link)
    except OSError as error:
        if error.errno == ELOOP:
            raise OSError(ELOOP, "is a link, which is not written to; remove it", path) from None
        raise


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _entries(folder: str, descend: Collection[str] | None) -> Iterator[str]:
    """Yield the paths of all entries of a folder, and of the folders in it; follow no link."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        yield entry.path
        if entry.is_dir(follow_symlinks=False) and (descend is None or entry.name in descend):
            yield from _entries(entry.path, None)


def _check_entry(path: str, folder: str) -> bool:
    """Return whether there is something at a path; raise DataError if it must not be used."""
    try:
        mode = os.lstat(path).st_mode
        if S_ISLNK(mode):
            root = os.path.realpath(folder)
            if os.path.commonpath([root, os.path.realpath(path)]) != root:
                raise DataError(
                    f"{path}: a link that leads out of {folder or '.'} and is not followed; remove "
                    "it, or put a copy of what it leads to in its place (cp -rL copies a whole "
                    "folder)"
                )
            mode = os.stat(path).st_mode
    except OSError:  # nothing there, or a link to nothing: whoever opens it gets the error
        return False
    if not S_ISREG(mode) and not S_ISDIR(mode):
        raise DataError(f"{path}: neither a file nor a folder, so it is not read; remove it")
    return True
