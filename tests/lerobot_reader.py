"""Saves everything that LeRobot reads of a dataset: python -m tests.lerobot_reader ROOT OUT.npz

It runs in a process of its own, because environment variables say where LeRobot caches what it
reads, and where its video reader finds FFmpeg.
"""

import sys
from typing import Any

import numpy as np

from core.system.torchvision import import_library


def main(root: str, out: str) -> None:
    lerobot = import_library("lerobot.datasets.lerobot_dataset")
    dataset = lerobot.LeRobotDataset("joinery/test", root=root)
    items = [dataset[index] for index in range(len(dataset))]
    arrays = {key: stack([item[key] for item in items]) for key in items[0]}
    arrays["episodes"] = np.array(
        [(ep["dataset_from_index"], ep["dataset_to_index"]) for ep in dataset.meta.episodes]
    )
    for feature, summary in dataset.meta.stats.items():
        arrays |= {f"stats/{feature}/{kind}": value for kind, value in summary.items()}
    step = 1 / dataset.fps
    shifts = {key: [-step, 0, step] for key in ("action", *dataset.meta.camera_keys)}
    windows = lerobot.LeRobotDataset("joinery/test", root=root, delta_timestamps=shifts)
    items = [windows[index] for index in range(len(windows))]
    arrays |= {f"windows/{key}": stack([item[key] for item in items]) for key in items[0]}
    np.savez(out, **arrays)


def stack(values: list[Any]) -> np.ndarray:
    return (
        np.array(values)
        if isinstance(values[0], str)
        else np.stack([value.numpy() for value in values])
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
