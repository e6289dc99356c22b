"""Meta-World demonstrations: a folder of .npz files, each with several episodes of one task."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from core import DataError, Register, hookimpl
from core.episodes import ActionConvention, Camera, Episode, Gripper, StoreInfo
from core.formats import read_npz

# {array: (allowed kinds of dtype, number of axes, both in words for error messages)}
LAYOUT = {
    "images": ("u", 4, "unsigned integers (n Y X 3)"),
    "actions": ("f", 2, "floats (n 4)"),
    "proprio": ("f", 2, "floats (n 4)"),
    "episode_ends": ("iu", 1, "integers, one per episode"),
    "task": ("U", 0, "one string"),
    "instruction": ("U", 0, "one string"),
}


@dataclass(frozen=True)
class MetaWorldNpzConfig:
    """Facts that the files do not record."""

    camera: str = "corner2"
    """the name of the camera that recorded the images."""
    image_size: Annotated[int, Gt(0)] = 96
    """height and width of the images in pixels."""


class MetaWorldNpz:
    """Reads recordings of Meta-World's tasks; the arrays of a file are those of LAYOUT.

    Meta-World simulates 400 physics steps per second, and an action lasts five of them. An action
    of 1.0 moves the hand by one centimetre.
    """

    def __init__(self, config: MetaWorldNpzConfig, *, source: Path) -> None:
        self.camera = config.camera
        self.locations: dict[str, tuple[Path, int] | DataError] = {}
        for file in sorted(source.glob("*.npz")):
            try:
                count = len(_load(file, ["episode_ends"])["episode_ends"])
                self.locations |= {
                    f"{file.stem}/{number}": (file, number) for number in range(count)
                }
            except DataError as error:
                # the file counts as one episode, and `read` raises the error
                self.locations[file.name] = error
        if not self.locations:
            raise DataError(f"{source}: holds no .npz files; name the folder of the demonstrations")
        self.info = StoreInfo(
            fps=80.0,
            cameras={config.camera: Camera(config.image_size, config.image_size)},
            action=ActionConvention(
                names=("x", "y", "z", "gripper"),
                mode="delta",
                frame="world",
                rotation="none",
                scale=(0.01, 0.01, 0.01, 1.0),
                rate=80.0,
                grippers=(Gripper(dimension=3, kind="continuous", closed=1.0, open=-1.0),),
            ),
            proprio=("tcp_x", "tcp_y", "tcp_z", "gripper_opening"),
            origin="Meta-World (https://github.com/Farama-Foundation/Metaworld), MIT licence",
        )
        self._loaded: tuple[Path, dict[str, np.ndarray]] | None = None

    def ids(self) -> Sequence[str]:
        """Return the ids "<file>/<index>"; a file that cannot be read counts as one episode."""
        return [*self.locations]

    def read(self, episode: str) -> Episode:
        """Read one episode; raises DataError if the file is damaged or has another layout."""
        location = self.locations[episode]
        if isinstance(location, DataError):
            raise location
        file, number = location
        data = self._arrays(file)
        bounds = [0, *data["episode_ends"].tolist()]
        if number + 1 >= len(bounds):
            raise DataError(f"{file}: no longer holds episode {number}; import again")
        frames = slice(*bounds[number : number + 2])
        return Episode(
            id=episode,
            task=str(data["task"]),
            instruction=str(data["instruction"]),
            images={self.camera: data["images"][frames]},
            actions=data["actions"][frames],
            proprio=data["proprio"][frames],
        )

    def _arrays(self, file: Path) -> dict[str, np.ndarray]:
        """Return a file's arrays, and keep them in memory until another file is read.

        Raises DataError for a file that cannot be cut into episodes. The contents of an episode are
        checked later, when the episode enters a store.
        """
        if self._loaded is None or self._loaded[0] != file:
            data = _load(file, [*LAYOUT])
            ends = data["episode_ends"].astype(np.int64)
            lengths = {key: len(data[key]) for key in ("images", "actions", "proprio")}
            if (np.diff(ends, prepend=0) <= 0).any() or {*lengths.values()} != {ends[-1]}:
                raise DataError(
                    f"{file}: 'episode_ends' {ends.tolist()} must rise to the frames, {lengths}; "
                    "record it again"
                )
            self._loaded = (file, data)
        return self._loaded[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}


def _load(file: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Read some of a file's arrays and check their types and axes."""
    arrays = read_npz(file, keys)
    for key, array in arrays.items():
        kinds, ndim, expected = LAYOUT[key]
        if array.dtype.kind not in kinds or array.ndim != ndim or not array.size:
            raise DataError(
                f"{file}: '{key}' is {array.dtype} {array.shape}, expected {expected}; "
                "record it again"
            )
    return arrays


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "metaworld_npz"."""
    register("metaworld_npz", MetaWorldNpzConfig, MetaWorldNpz)
