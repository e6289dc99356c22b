"""Reads HDF5 files, and checks that they are large enough for the sizes that datasets claim."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from core import ConfigError, DataError, did_you_mean, import_optional, one_line
from core.episodes import images_of
from core.formats import Column, check_claimed_size, file_size, guess_white, parse_json

# number of files of which is remembered that they may be read
FILES_KNOWN = 2**14


@contextmanager
def open_file(file: Path, within: str = "") -> Iterator[Any]:
    """Open a file and yield its root.

    If code in the `with` block fails on damaged data, this raises a DataError that names the file
    and what is read `within` it.
    """
    h5py = import_optional("h5py", extra="robomimic")
    file_size(file)
    try:
        _refuse_links_out(file)
        with h5py.File(file, "r") as root:
            yield root
    except (DataError, ConfigError):
        raise
    except Exception as error:  # noqa: BLE001 - h5py raises almost anything for damaged bytes
        where = f"{file}, {within}" if within else f"{file}"
        raise DataError(f"{where}: cannot be read ({one_line(error)}); copy it again") from None


@contextmanager
def open_demonstration(file: Path, demo: str) -> Iterator[tuple[Any, Any]]:
    """Open a file; yield its group `data`, and the demonstration `demo` (None if `demo` is "").

    Raises DataError as `open_file` does, and if the file is not laid out as robomimic's.
    """
    with open_file(file, demo) as root:
        if "data" not in root:
            raise DataError(
                f"{file}: has no group 'data' with demonstrations, so it is not robomimic's; it "
                f"holds {', '.join([*root][:8]) or 'nothing'}; files that are one episode each, as "
                "ACT and ALOHA write them, are imported as hdf5"
            )
        data = root["data"]
        yield data, data[demo] if demo else None


def read_dataset(file: Path, group: Any, name: str, rows: slice = slice(None)) -> np.ndarray:
    """Read some rows of a numeric dataset; raises DataError if it is missing or incomplete."""
    if name not in group:
        raise DataError(f"{file}, {group.name}: has no '{name}'{did_you_mean(name, [*group])}")
    dataset, where = group[name], f"{file}, {group.name}/{name}"
    if dataset.dtype.kind not in "uifb":
        raise DataError(f"{where}: {dataset.dtype} {dataset.shape}, expected numbers")
    _require_own(dataset, where)
    _check_storage(dataset, file.stat().st_size, where)
    array: np.ndarray = dataset[rows] if dataset.ndim else dataset[()]
    return array


def with_white(file: Path, group: Any, path: str, column: Column) -> Column:
    """Describe a dataset with the value that stands for white, if it holds images.

    Only images of another type than uint8 are read.
    """
    if column.kind != "pictures" or column.dtype == "uint8":
        return column

    def read(start: int, stop: int) -> np.ndarray:
        return read_dataset(file, group, path, slice(start, stop))

    dataset = group[path]
    return replace(column, white=guess_white(images_of(dataset.shape, read, dataset.dtype)))


def read_texts(file: Path, group: Any, name: str) -> list[str]:
    """Read a dataset of texts: one, or one for each frame; raises DataError for anything else."""
    dataset, size, where = group[name], file.stat().st_size, f"{file}, {name}"
    _require_own(dataset, where)
    try:
        check_claimed_size(dataset.nbytes, size, where)
        texts: list[str] = []
        total = 0
        for index in np.ndindex(dataset.shape):
            texts.append(str(dataset.asstr()[index]))
            # many entries may refer to one long text
            check_claimed_size(total := total + len(texts[-1]), size, where)
        return texts
    except TypeError:
        raise DataError(
            f"{file}, {name}: {dataset.dtype} is neither numbers nor text; name another dataset"
        ) from None


def _refuse_links_out(file: Path) -> None:
    """Raise DataError if a link in a file leads to another file."""
    status = file.stat()
    if (name := _link_out(file, status.st_size, status.st_mtime_ns)) is not None:
        raise DataError(
            f"{file}: '{name}' is a link to another file, which is not followed; write the data "
            "into this file (h5repack and h5copy do)"
        )


@lru_cache(FILES_KNOWN)
def _link_out(file: Path, size: int, time: int) -> str | None:  # noqa: ARG001 (name what was seen)
    """Return the name of a link in a file that leads to another file; None if there is none.

    The answer is remembered, because a file is opened for each demonstration and for each stretch
    of its images, and looking at the links of 1,000 demonstrations takes 0.2 s.

    size, time: in bytes, and of the last change in ns; another file has others.
    """
    h5py = import_optional("h5py", extra="robomimic")

    def external(name: bytes, link: Any) -> bytes | None:
        return name if link.type == h5py.h5l.TYPE_EXTERNAL else None

    with h5py.File(file, "r") as root:
        found: bytes | None = root.id.links.visit(external, info=True)
    return None if found is None else found.decode(errors="replace")


def _require_own(dataset: Any, where: str) -> None:
    """Raise DataError if a dataset's values lie in other files."""
    if dataset.external or dataset.is_virtual:
        raise DataError(
            f"{where}: its values lie in other files, which are not read; write them into this file"
        )


def _check_storage(dataset: Any, size: int, where: str) -> None:
    """Raise DataError if a file of `size` bytes cannot hold the dataset or lacks some chunks.

    Without this check, HDF5 would allocate the size that the dataset claims, and would read missing
    chunks as zeros.
    """
    stored = dataset.id.get_storage_size()
    is_compressed = dataset.id.get_create_plist().get_nfilters() > 0
    if stored > size or (dataset.nbytes > stored and not is_compressed):
        raise DataError(
            f"{where}: says that it holds {dataset.nbytes:,} bytes, and {stored:,} are there; "
            "copy it again"
        )
    chunk = dataset.chunks or ()
    check_claimed_size(max(dataset.nbytes, prod(chunk) * dataset.dtype.itemsize), stored, where)
    if chunk:
        count = prod(-(-length // step) for length, step in zip(dataset.shape, chunk, strict=True))
        missing = count - dataset.id.get_num_chunks()
        if missing > 0:
            raise DataError(
                f"{where}: lacks {missing:,} of {count:,} chunks; copy it again, or write the rows "
                "that were never written: HDF5 would take them for zeros"
            )


def read_json(node: Any, attribute: str) -> Mapping[str, Any]:
    """Read a JSON object from an attribute; return {} if it is missing or holds no object.

    Raises DataError if it holds no JSON.

    The length that a damaged attribute claims cannot be checked: the HDF5 library allocates that
    length, up to 4 GiB, before it reads the text.
    """
    if attribute not in node.attrs or node.attrs.get_id(attribute).shape:
        return {}
    try:
        content = parse_json(node.attrs[attribute])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{node.file.filename}, {node.name}: the attribute '{attribute}' is no JSON "
            f"({one_line(error)}); correct or remove it, or copy the file again"
        ) from None
    return content if isinstance(content, dict) else {}


def read_attributes(node: Any) -> Mapping[str, Any]:
    """Return the attributes of a group that are single numbers or texts."""
    return {
        name: _plain(value)
        for name, value in node.attrs.items()
        if isinstance(value, str | int | float | bytes | np.generic)
    }


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value
