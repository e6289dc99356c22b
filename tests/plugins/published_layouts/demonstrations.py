"""What the datasets of these tests hold: numbers and frames of which no two are alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SIDE = 64  # pixels


@dataclass(frozen=True)
class Demonstration:
    """An episode as its dataset stores it.

    instruction: what the robot is told.
    columns: {name in the dataset: (n D) numbers}.
    images: {name in the dataset: (m Y X 3) uint8}; m differs from n if a video has another rate.
    times: (n) seconds from the episode's beginning.
    """

    instruction: str
    columns: Mapping[str, np.ndarray]
    images: Mapping[str, np.ndarray]
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.times)


def numbers(random: np.random.Generator, length: int, width: int) -> np.ndarray:
    """Numbers between -1 and 1, (n D) float32."""
    return random.uniform(-1, 1, (length, width)).astype(np.float32)


def film(random: np.random.Generator, length: int) -> np.ndarray:
    """A square that moves over a mosaic, (n Y X 3) uint8.

    No two films and no two frames of one are alike, and none looks the same upside down. The mosaic
    stands still, so an episode store keeps it without loss.
    """
    mosaic = random.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.tile(mosaic, (length, 1, 1, 1))
    for number, frame in enumerate(frames):
        row, column = divmod(number, SIDE - 6)
        frame[row : row + 6, column : column + 6] = random.integers(0, 256, 3)
    return frames
