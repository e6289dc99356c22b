"""HDF5 files, read without trust: what a dataset claims is compared with the bytes that are there."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from core import ConfigError, DataError, did_you_mean, import_optional, one_line
from core.formats import check_claimed_size, file_size


@contextmanager
def open_demonstration(file: Path, demo: str) -> Iterator[tuple[Any, Any]]:
    """Open `data`, and one demonstration in it unless `demo` is ""; whatever damage raises becomes
    a DataError.
    """
    h5py = import_optional("h5py", extra="robomimic")
    file_size(file)
    try:
        with h5py.File(file, "r") as opened:
            data = opened["data"]
            yield data, data[demo] if demo else None
    except (DataError, ConfigError):
        raise
    except Exception as error:  # noqa: BLE001 - h5py raises almost anything for damaged bytes
        where = f"{file}, {demo}" if demo else f"{file}"
        raise DataError(f"{where}: cannot be read ({one_line(error)}); copy it again") from None


def read_dataset(file: Path, group: Any, name: str) -> np.ndarray:
    """Read numbers that are there as a whole; raises DataError that names file and dataset where
    they are not.
    """
    if name not in group:
        raise DataError(f"{file}, {group.name}: has no '{name}'{did_you_mean(name, [*group])}")
    dataset, where = group[name], f"{file}, {group.name}/{name}"
    if dataset.dtype.kind not in "uifb" or dataset.external:
        raise DataError(f"{where}: {dataset.dtype} {dataset.shape}, expected numbers in this file")
    _raise_unless_there(dataset, file.stat().st_size, where)
    array: np.ndarray = dataset[()]
    return array


def _raise_unless_there(dataset: Any, size: int, where: str) -> None:
    """Compare what a dataset says with what a file of that size holds; HDF5 takes chunks that are
    not there for zeros.

    Raises DataError before anything is allocated.
    """
    there, packed = dataset.id.get_storage_size(), dataset.id.get_create_plist().get_nfilters() > 0
    if there > size or (dataset.nbytes > there and not packed):
        raise DataError(
            f"{where}: says that it holds {dataset.nbytes:,} bytes, and {there:,} are there; copy it again"
        )
    chunk = dataset.chunks or ()
    check_claimed_size(max(dataset.nbytes, prod(chunk) * dataset.dtype.itemsize), there, where)
    if chunk:
        chunks = prod(-(-length // step) for length, step in zip(dataset.shape, chunk, strict=True))
        if (lost := chunks - dataset.id.get_num_chunks()) > 0:
            raise DataError(f"{where}: lacks {lost:,} of {chunks:,} chunks; copy it again")


def read_json(node: Any, attribute: str) -> Mapping[str, Any]:
    """What an attribute says in JSON; nothing where it is not there.

    A text's length is the one claim that is believed: the HDF5 library takes up to 4 GiB for it
    before it looks.
    """
    if attribute not in node.attrs or node.attrs.get_id(attribute).shape:
        return {}
    said = json.loads(node.attrs[attribute])
    return said if isinstance(said, dict) else {}
