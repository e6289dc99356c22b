"""Episodes on which formats are compared: rendered and photograph-like images of two cameras.

Simulation: the Meta-World demonstrations of the repository; one camera has the whole image, the
other its middle, enlarged.
Photographs: cameras that wander over a "dead leaves" image, discs of random size and colour that
hide one another. It has the edges and the 1/f spectrum of photographs (Lee, Mumford and Huang,
"Occlusion Models for Natural Images", IJCV 2001). A sensor's noise is added to every frame.
Both: a camera of each kind.
Every value is a function of the seed. Actions and proprioception are Meta-World's.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from core.episodes.episode import Camera, Episode, StoreInfo
from core.store.store import EpisodeStore

METAWORLD = Path(__file__).parents[2] / "recipes" / "data" / "metaworld.zarr"
SIMULATION, PHOTOGRAPHS, BOTH = "simulation", "photographs", "both"
CAMERAS = ("static", "wrist")
SIZE = 128  # pixels, rows and columns
NOISE = 3.0  # standard deviation of the sensor's, in steps of 1/255
CANVAS = 512  # pixels, rows and columns of a dead leaves image


def info_of(content: str) -> StoreInfo:
    """What holds for every episode of a content."""
    metaworld = EpisodeStore(METAWORLD).info
    return replace(
        metaworld,
        cameras=dict.fromkeys(CAMERAS, Camera(SIZE, SIZE)),
        origin=f"benchmark: {content}",
    )


def episodes_of(content: str, limit: int | None = None) -> Iterator[Episode]:
    """Episodes of a content, all or the first `limit`; about 1,600 frames in all."""
    store = EpisodeStore(METAWORLD)
    (source,), images = store.info.cameras, IMAGES[content]
    for e in range(len(store) if limit is None else limit):
        camera, n = store.info.cameras[source], int(store.length[e])
        frames = np.empty((n, camera.height, camera.width, 3), np.uint8)
        store.read_frames(source, e, 0, n, frames)
        yield Episode(
            id=store.episode_id(e),
            task=store.task_name(e),
            instruction=store.instruction(e),
            images=images(frames, np.random.default_rng(e)),
            actions=store.actions(e, 0, n),
            proprio=store.proprio(e, 0, n),
        )


def _enlarged(frames: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the whole images and their middle, (n Y X C) each."""
    rows, columns = frames.shape[1:3]
    middle = frames[:, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    images = zip(CAMERAS, (frames, middle), strict=True)
    return {camera: np.stack([_resized(frame) for frame in views]) for camera, views in images}


def _one_of_each(frames: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """The first camera of the renders, the second of the photographs."""
    rendered, photographed = _enlarged(frames, random), _photographed(frames, random)
    return {CAMERAS[0]: rendered[CAMERAS[0]], CAMERAS[1]: photographed[CAMERAS[1]]}


def _resized(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _photographed(frames: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return as many frames of two cameras that wander over one image."""
    scene = dead_leaves(CANVAS, random)
    return {camera: _wander(scene, len(frames), random) for camera in CAMERAS}


def _wander(scene: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Move a SIZE x SIZE cut-out by some pixels a frame, and add noise -> (count Y X C)."""
    room = len(scene) - SIZE
    path = random.uniform(0, room, 2) + np.cumsum(random.normal(0, 2, (count, 2)), axis=0)
    corners = np.clip(path.round().astype(int), 0, room)
    cut = np.stack([scene[y : y + SIZE, x : x + SIZE] for y, x in corners])
    return np.clip(cut + random.normal(0, NOISE, cut.shape), 0, 255).astype(np.uint8)


def dead_leaves(size: int, random: np.random.Generator) -> np.ndarray:
    """Return an image (size size 3), float64 in [0, 255], of shaded discs.

    Their radii r are drawn with density r^-3. The image is drawn twice as large and made smaller,
    which smooths the edges as a lens does.
    """
    large = np.full((2 * size, 2 * size, 3), 128.0)
    smallest, largest = 6.0, 400.0  # pixels
    radii = smallest / np.sqrt(1 - random.uniform(size=1500) * (1 - (smallest / largest) ** 2))
    for radius in radii:
        y, x = random.integers(0, 2 * size, 2)
        reach = int(np.ceil(radius))
        top, left = max(y - reach, 0), max(x - reach, 0)
        part = large[top : y + reach + 1, left : x + reach + 1]
        dy, dx = np.ogrid[top - y : top - y + part.shape[0], left - x : left - x + part.shape[1]]
        inside = dy**2 + dx**2 <= radius**2
        slope = random.normal(0, 20, 2)
        shade = ((slope[0] * dy + slope[1] * dx) / radius)[inside]
        part[inside] = random.uniform(20, 235) + random.normal(0, 20, 3) + shade[:, None]
    image: np.ndarray = np.clip(large.reshape(size, 2, size, 2, 3).mean(axis=(1, 3)), 0, 255)
    return image


# (frames, random) -> {camera: frames}
IMAGES = {SIMULATION: _enlarged, PHOTOGRAPHS: _photographed, BOTH: _one_of_each}
