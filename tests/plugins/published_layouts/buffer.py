"""A replay buffer in zarr's format 2, in a zip archive, as UMI publishes its data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import zarr
from numcodecs.blosc import Blosc

from tests.plugins.published_layouts.demonstrations import Demonstration


def write_buffer(path: Path, episodes: Sequence[Demonstration], image_codec: Any) -> None:
    """Write all episodes back to back. Every image is a chunk."""
    folder = path.with_name("unpacked")
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    for name in episodes[0].columns:
        array = np.concatenate([episode.columns[name] for episode in episodes])
        _write_array(group, f"data/{name}", array, len(array), Blosc("zstd"))
    for name in episodes[0].images:
        array = np.concatenate([episode.images[name] for episode in episodes])
        _write_array(group, f"data/{name}", array, 1, image_codec)
    ends = np.cumsum([*map(len, episodes)])
    _write_array(group, "meta/episode_ends", ends, len(ends), Blosc("zstd"))
    with ZipFile(path, "w") as archive:
        for file in (file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, file.relative_to(folder))


def _write_array(group: zarr.Group, name: str, array: np.ndarray, rows: int, codec: Any) -> None:
    """Write an array in chunks of some rows."""
    target = group.create_array(
        name,
        shape=array.shape,
        chunks=(rows, *array.shape[1:]),
        dtype=array.dtype,
        compressors=codec,
    )
    target[:] = array
