"""Other formats, written and read as their users do: robomimic's HDF5, zarr-python and LeRobot.

Each format is written by its `write_...`, and read by a torch Dataset of the same windows that the
Loader reads. The Dataset opens its files in the process that reads. A sample holds the frames of a
window from all cameras, its proprioception, and the actions from its first frame on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from torch.utils.data import Dataset

from core.episodes.episode import Episode, StoreInfo
from core.loading.windows import Windows
from core.system.torchvision import import_library

# by import_library, because it imports torchvision
LeRobotDataset = import_library("lerobot.datasets.lerobot_dataset").LeRobotDataset
# Frames in a chunk of zarr: as many as a window has, the fastest for windows of that length.
CHUNK = 8

Sample = dict[str, Any]


@dataclass(frozen=True)
class Numbers:
    """Actions and proprioception in memory, as robomimic keeps them, and where each window lies."""

    windows: Windows
    actions: np.ndarray
    proprio: np.ndarray

    @classmethod
    def of(cls, windows: Windows) -> "Numbers":
        store, episodes = windows.store, range(len(windows.store))
        actions = [store.actions(e, 0, int(store.length[e])) for e in episodes]
        proprio = [store.proprio(e, 0, int(store.length[e])) for e in episodes]
        return cls(windows, np.concatenate(actions), np.concatenate(proprio))

    def sample(self, episode: int, start: int, images: dict[str, np.ndarray]) -> Sample:
        """Add a window's numbers to its frames; past the episode's end the last ones repeat."""
        store = self.windows.store
        offset, length = int(store.start[episode]), int(store.length[episode])
        frames = offset + np.minimum(start + np.arange(self.windows.window), length - 1)
        targets = offset + np.minimum(start + np.arange(self.windows.horizon), length - 1)
        padded = {
            name: _padded(of_camera, self.windows.window) for name, of_camera in images.items()
        }
        return {**padded, "proprio": self.proprio[frames], "action": self.actions[targets]}


def _padded(frames: np.ndarray, window: int) -> np.ndarray:
    missing = window - len(frames)
    return frames if missing == 0 else np.concatenate([frames, frames[-1:].repeat(missing, axis=0)])


# ---------------------------------------------------------------------------------- HDF5, robomimic


def write_hdf5(path: Path, episodes: Iterable[Episode], info: StoreInfo) -> None:
    """Write robomimic's layout, compressed as its `dataset_states_to_obs.py --compress` does."""
    with h5py.File(path, "w") as file:
        for e, episode in enumerate(episodes):
            for camera in info.cameras:
                file.create_dataset(
                    f"data/demo_{e}/obs/{camera}", data=episode.images[camera], compression="gzip"
                )


@dataclass
class HDF5Windows(Dataset[Sample]):
    """Slices of a file that each process opens for itself.

    Numbers are in memory, as with robomimic's hdf5_cache_mode "low_dim".
    """

    path: Path
    numbers: Numbers

    @cached_property
    def _file(self) -> Any:
        return h5py.File(self.path, "r")

    def __len__(self) -> int:
        return len(self.numbers.windows)

    def __getitem__(self, index: int) -> Sample:
        windows = self.numbers.windows
        episode, start = windows.locate(index)
        images = {
            camera: self._file[f"data/demo_{episode}/obs/{camera}"][start : start + windows.window]
            for camera in windows.store.info.cameras
        }
        return self.numbers.sample(episode, start, images)


# --------------------------------------------------------------------------------------------- zarr


def write_zarr(path: Path, episodes: Iterable[Episode], info: StoreInfo) -> None:
    """Write raw frames in chunks of CHUNK: an array for each camera, with all episodes."""
    root, episodes = zarr.create_group(path, zarr_format=3), list(episodes)
    for camera in info.cameras:
        frames = np.concatenate([episode.images[camera] for episode in episodes])
        chunks = (CHUNK, *frames.shape[1:])
        array = root.create_array(
            camera, shape=frames.shape, chunks=chunks, dtype=frames.dtype, compressors=None
        )
        array[:] = frames


@dataclass
class ZarrWindows(Dataset[Sample]):
    """Slices of zarr-python's arrays."""

    path: Path
    numbers: Numbers

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        root = zarr.open_group(self.path, mode="r")
        return {camera: root[camera] for camera in self.numbers.windows.store.info.cameras}

    def __len__(self) -> int:
        return len(self.numbers.windows)

    def __getitem__(self, index: int) -> Sample:
        windows = self.numbers.windows
        episode, start = windows.locate(index)
        first, length = int(windows.store.start[episode]), int(windows.store.length[episode])
        span = slice(first + start, first + min(start + windows.window, length))
        return self.numbers.sample(
            episode, start, {name: array[span] for name, array in self._arrays.items()}
        )


# ------------------------------------------------------------------------------------------ LeRobot


def write_lerobot(path: Path, episodes: Iterable[Episode], info: StoreInfo, kind: str) -> None:
    """Write format v3.0 by LeRobot itself, with its own defaults.

    kind: "video" (AV1) or "image" (PNG).
    """
    features: dict[str, dict[str, Any]] = {}
    for name, camera in info.cameras.items():
        features[f"observation.images.{name}"] = {
            "dtype": kind,
            "shape": (camera.height, camera.width, 3),
            "names": ["height", "width", "channels"],
        }
    for key, names in {"observation.state": info.proprio, "action": info.action.names}.items():
        features[key] = {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    dataset = LeRobotDataset.create(
        "benchmark", int(info.fps), features, root=path, use_videos=kind == "video"
    )
    for episode in episodes:
        for i in range(len(episode)):
            images = {
                f"observation.images.{name}": frames[i] for name, frames in episode.images.items()
            }
            numbers = {"observation.state": episode.proprio[i], "action": episode.actions[i]}
            dataset.add_frame({**images, **numbers, "task": episode.instruction})
        dataset.save_episode()
    dataset.finalize()


@dataclass
class LeRobotWindows(Dataset[Sample]):
    """LeRobotDataset, whose delta_timestamps ask for the same windows.

    backend: the video decoder.
    """

    path: Path
    windows: Windows
    backend: str | None = None

    @cached_property
    def _dataset(self) -> Any:
        window, horizon, info = self.windows.window, self.windows.horizon, self.windows.store.info
        cameras = [f"observation.images.{name}" for name in info.cameras]
        frames = [step / int(info.fps) for step in range(window)]
        targets = [step / int(info.fps) for step in range(horizon)]
        deltas = {**dict.fromkeys([*cameras, "observation.state"], frames), "action": targets}
        return LeRobotDataset(
            "benchmark", root=self.path, delta_timestamps=deltas, video_backend=self.backend
        )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[index]  # type: ignore[no-any-return]
