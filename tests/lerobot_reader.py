"""Everything that LeRobot reads of a dataset: python -m tests.lerobot_reader ROOT OUT.npz

A process of its own, because LeRobot caches what it reads in places that environment variables
name, and because its video reader looks for FFmpeg where LD_LIBRARY_PATH says.
"""

import sys
from typing import Any

import numpy as np

from core.system.torchvision import import_library


def main(root: str, out: str) -> None:
    lerobot = import_library("lerobot.datasets.lerobot_dataset")
    dataset = lerobot.LeRobotDataset("joinery/test", root=root)
    items = [dataset[index] for index in range(len(dataset))]
    found = {key: stacked([item[key] for item in items]) for key in items[0]}
    found["episodes"] = np.array(
        [(ep["dataset_from_index"], ep["dataset_to_index"]) for ep in dataset.meta.episodes]
    )
    for feature, summary in dataset.meta.stats.items():
        found |= {f"stats/{feature}/{kind}": value for kind, value in summary.items()}
    step = 1 / dataset.fps
    shifts = {key: [-step, 0, step] for key in ("action", *dataset.meta.camera_keys)}
    windows = lerobot.LeRobotDataset("joinery/test", root=root, delta_timestamps=shifts)
    items = [windows[index] for index in range(len(windows))]
    found |= {f"windows/{key}": stacked([item[key] for item in items]) for key in items[0]}
    np.savez(out, **found)


def stacked(values: list[Any]) -> np.ndarray:
    return (
        np.array(values)
        if isinstance(values[0], str)
        else np.stack([value.numpy() for value in values])
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
