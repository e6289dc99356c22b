"""HDF5 files that are one episode each, as ACT and ALOHA record them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from core import ConfigError, DataError, did_you_mean
from core.episodes import Images, images_of
from core.formats import (
    Column,
    Description,
    Guess,
    MappedSource,
    Recording,
    SourceMapping,
    array_column,
    decode_images,
    distinct_names,
    encoded_size,
    first_readable,
)
from plugins.datasets.robomimic.hdf5 import (
    open_file,
    read_attributes,
    read_dataset,
    read_texts,
    with_white,
)

ACTION, STATE = "action", "observations/qpos"
WORDS = ("instruction", "language_instruction", "task")  # attributes; the first one counts
MAGIC = (b"\xff\xd8\xff", b"\x89PNG")  # how JPEG and PNG files begin
COLOURS = "red and blue of images"
GUESS = Guess("absolute", "joint", "HDF5 files do not say what actions mean")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Hdf5Config(SourceMapping):
    """Which datasets of a file hold images, actions, proprioception and instruction.

    Datasets are given by their paths, "observations/images/cam_high" for example.
    """

    swap_red_blue: bool | None = None
    """whether to exchange red and blue in compressed images. Programs that give OpenCV an RGB image
    write files with the two exchanged: skin looks blue then in `joinery show --html`; default: no.
    """


class Hdf5(MappedSource):
    """Reads an .hdf5 file that is one episode, or a folder of them, in the order of their names.

    Images are (n Y X 3), or files such as JPEG in rows of bytes, padded with zeros.

    Raises DataError, naming the file, for missing or damaged data, and ConfigError for datasets
    that do not exist.
    """

    def __init__(self, config: Hdf5Config, *, source: Path) -> None:
        super().__init__(Hdf5Reader(source, config.swap_red_blue), config)


class Hdf5Reader:
    """The datasets of HDF5 files, each of which is an episode."""

    def __init__(self, source: Path, swap_red_blue: bool | None) -> None:
        self.swap_red_blue = swap_red_blue
        found = [source] if source.is_file() else [*source.glob("*.hdf5"), *source.glob("*.h5")]
        self.files = {file.stem: file for file in sorted(found, key=_natural_order)}
        if len(self.files) < len(found):
            raise DataError(
                f"{source}: two files have one name and differ in their ending alone; rename one"
            )
        if not self.files:
            raise DataError(f"{source}: holds no episodes; name an .hdf5 file, or a folder of them")

    def describe(self, use: Callable[[Description], T]) -> T:
        """Describe the datasets of the first file that can be read and that the settings fit."""
        return first_readable(self.files.values(), lambda file: use(self._describe(file)))

    def _describe(self, file: Path) -> Description:
        with open_file(file) as root:
            columns = {
                path: with_white(file, root, path, _column(file, root, path))
                for path in _paths(root)
            }
            facts = read_attributes(root)
            are_compressed = any(
                column.kind == "pictures" and root[path].ndim == 2
                for path, column in columns.items()
            )
        assumed = {}
        if are_compressed and self.swap_red_blue is None:
            assumed[COLOURS] = (
                "OpenCV may have exchanged them; say swap_red_blue = true or false when you import "
                "into a new store"
            )
        fps = facts.get("fps")
        short_names = {
            path: path.rpartition("/")[2]
            for path, column in columns.items()
            if column.kind == "pictures"
        }
        return Description(
            where=str(file),
            noun="dataset",
            columns=columns,
            cameras={name: path for path, name in distinct_names(short_names).items()},
            action=(ACTION,),
            proprio=(STATE,) if STATE in columns else (),
            guess=GUESS,
            origin=f"HDF5 files {file.parent.name}",
            has_instruction=any(isinstance(facts.get(name), str) for name in WORDS),
            fps=float(fps) if isinstance(fps, int | float) and 0 < fps < inf else None,
            assumed=assumed,
        )

    def ids(self) -> Sequence[str]:
        """Return the files' names without ".hdf5"."""
        return [*self.files]

    def facts(self, episode: str) -> Mapping[str, Any]:
        """Return the file's attributes that are numbers or texts."""
        with open_file(self.files[episode]) as root:
            return read_attributes(root)

    def members(self, mask: str) -> Collection[str]:
        """Raise ConfigError: files that are an episode each have no masks."""
        raise ConfigError(f"mask: these files have no '{mask}'; choose with episodes or where")

    def read(self, episode: str, columns: Collection[str]) -> Recording:
        """Read one file; raises DataError with the file's name."""
        file = self.files[episode]
        values: dict[str, Any] = {}
        with open_file(file) as root:
            for path in columns:
                column = _column(file, root, path)
                if column.kind == "text":
                    values[path] = read_texts(file, root, path)
                elif column.kind != "pictures":
                    values[path] = read_dataset(file, root, path)
                elif root[path].ndim == 2:
                    rows = [row.tobytes() for row in read_dataset(file, root, path)]
                    height, width = column.shape[:2]
                    images = decode_images(rows, height, width, f"{file}, {path}")
                    values[path] = _swapped(images) if self.swap_red_blue else images
                else:
                    read = partial(_read_frames, file, path)
                    values[path] = images_of(root[path].shape, read, root[path].dtype)
            facts = read_attributes(root)
        words = next((facts[name] for name in WORDS if isinstance(facts.get(name), str)), None)
        arrays = [x for x in values.values() if getattr(x, "ndim", 0)]
        length = max(map(len, arrays), default=0)
        return Recording(str(file), length, values, words)


def _swapped(images: Images) -> Images:
    """Exchange red and blue."""

    def read(start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(images[start:stop][..., ::-1])

    return images_of(images.shape, read)


def _read_frames(file: Path, path: str, start: int, stop: int) -> np.ndarray:
    """Read a stretch of images; the file is opened for each, so that it can be read later."""
    with open_file(file) as root:
        return read_dataset(file, root, path, slice(start, stop))


def _paths(root: Any) -> list[str]:
    """Return the paths of all datasets of a file."""
    paths: list[str] = []
    root.visititems(lambda name, node: paths.append(name) if hasattr(node, "dtype") else None)
    return paths


def _column(file: Path, root: Any, path: str) -> Column:
    """Describe a dataset, apart from what stands for white; raises DataError if it is missing."""
    if path not in root:
        raise DataError(f"{file}: has no dataset '{path}'{did_you_mean(path, _paths(root))}")
    dataset = root[path]
    if dataset.ndim == 2 and dataset.dtype == np.uint8 and len(dataset):
        first = read_dataset(file, root, path, slice(0, 1))[0].tobytes()
        if first.startswith(MAGIC):
            return Column("pictures", (*encoded_size(first, f"{file}, {path}"), 3), "uint8")
    return array_column(dataset)


def _natural_order(file: Path) -> tuple[int, str]:
    """Return a sort key that puts episode_2 before episode_10."""
    digits = "".join(character for character in file.stem if character.isdecimal())
    return (int(digits or 0), file.name)
