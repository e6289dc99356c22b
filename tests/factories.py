"""Small stores and episodes for tests: every value is a function of the seed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.episodes.episode import ActionConvention, Camera, Episode, Feature, Gripper, StoreInfo
from core.episodes.text import encode_text
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter

# a still camera is stored by zstd, a moving and noisy one by JPEG
STILL, MOVING = "front", "wrist"
INSTRUCTIONS = {"reach": "reach the red cube", "push": "push the puck", "open": "open the drawer"}
FEATURES = {
    "depth": Feature((48, 64, 1), "uint16", "depth", "mm"),
    "force": Feature((6,), "float32", "force", "N"),
    "points": Feature((128, 3), "float32", "points", "m"),
    "reward": Feature((), "float32", "reward"),
    "subtask": Feature((64,), "uint8", "text"),
}


def make_info(
    cameras: Sequence[str] = (STILL, MOVING),
    size: int = 32,
    proprio: int = 3,
    features: Mapping[str, Feature] | None = None,
) -> StoreInfo:
    """Actions of three position dimensions and a binary gripper."""
    return StoreInfo(
        fps=10.0,
        cameras={name: Camera(size, size) for name in cameras},
        action=ActionConvention(
            names=("x", "y", "z", "gripper"),
            mode="delta",
            frame="world",
            rotation="none",
            scale=(0.02, 0.02, 0.02, 1.0),
            rate=10.0,
            grippers=(Gripper(3, "binary", closed=-1.0, open=1.0),),
        ),
        proprio=tuple(f"p{i}" for i in range(proprio)),
        origin="made for tests",
        features=features or {},
    )


def make_episode(number: int, info: StoreInfo, length: int = 11, task: str = "reach") -> Episode:
    """Episode "<task>/<number>", whose contents depend on the number alone."""
    random = np.random.default_rng(number)
    actions = random.normal(size=(length, info.action.dim)).astype(np.float32)
    actions[:, 3] = np.where(actions[:, 3] > 0, 1, -1)
    return Episode(
        id=f"{task}/{number}",
        task=task,
        instruction=INSTRUCTIONS[task],
        images={
            name: _frames(random, length, camera, name) for name, camera in info.cameras.items()
        },
        actions=actions,
        proprio=random.normal(size=(length, len(info.proprio))).astype(np.float32),
        features={
            name: _feature(number, length, feature) for name, feature in info.features.items()
        },
    )


def make_episodes(
    count: int, info: StoreInfo, tasks: Sequence[str] = ("reach", "push")
) -> list[Episode]:
    """Episodes of 11 to 15 frames, of the tasks in turn."""
    return [make_episode(i, info, 11 + i % 5, tasks[i % len(tasks)]) for i in range(count)]


def make_store(
    path: Path,
    episodes: int = 6,
    tasks: Sequence[str] = ("reach", "push"),
    info: StoreInfo | None = None,
    segment_bytes: int = 2**20,
) -> EpisodeStore:
    """A store of make_episodes; a small `segment_bytes` gives each episode its own segment."""
    info = info or make_info()
    with StoreWriter(path, info, segment_bytes) as writer:
        for episode in make_episodes(episodes, info, tasks):
            writer.append(episode)
    return EpisodeStore(path)


def _feature(number: int, length: int, feature: Feature) -> np.ndarray:
    """Values that change a little from frame to frame.

    Some readings of points and depth are missing where they are floats.
    """
    if feature.meaning == "text":
        return encode_text([f"schritt {number}.{t} läuft" for t in range(length)], feature.shape[0])
    random = np.random.default_rng([number, len(feature.shape)])
    steps = np.arange(length).reshape(-1, *[1] * len(feature.shape))
    array = (100 * random.random(feature.shape) + steps).astype(feature.dtype)
    if feature.meaning in ("depth", "points") and array.dtype.kind == "f":
        array.reshape(length, -1)[:, number % 3] = np.nan
    return array


def contents(path: Path) -> dict[str, bytes]:
    """Everything that can be read of each episode, by id, in the store's order."""
    store = EpisodeStore(path)
    contents = {}
    for e in range(len(store)):
        length = int(store.length[e])
        content = store.instruction(e).encode()
        content += store.actions(e, 0, length).tobytes() + store.proprio(e, 0, length).tobytes()
        for name in store.info.cameras:
            content += images_of(store, name, e, 0, length).tobytes()
        content += b"".join(array.tobytes() for array in store.read(e).features.values())
        contents[store.episode_id(e)] = content
    return contents


def images_of(store: EpisodeStore, camera: str, episode: int, start: int, stop: int) -> np.ndarray:
    """Frames start..stop-1 of a camera, (n Y X 3)."""
    shape = store.info.cameras[camera]
    images = np.zeros((stop - start, shape.height, shape.width, 3), np.uint8)
    store.read_frames(camera, episode, start, stop, images)
    return images


def with_actions(episode: Episode, actions: np.ndarray) -> Episode:
    return replace(episode, actions=actions)


def _frames(random: np.random.Generator, length: int, camera: Camera, name: str) -> np.ndarray:
    """A square that moves over a floor, which shifts and is noisy for the moving camera."""
    rows, columns = np.mgrid[: camera.height, : camera.width]
    frames = np.empty((length, camera.height, camera.width, 3), np.uint8)
    for t in range(length):
        shift = 2 * t if name == MOVING else 0
        wave = np.sin((rows + columns + shift) / 9)[..., None]
        floor = 128 + 60 * wave * np.array([1.0, 0.6, 0.3])
        noise = random.normal(0, 6, floor.shape) if name == MOVING else 0
        frames[t] = np.clip(floor + noise, 0, 255)
        x = (3 * t) % (camera.width - 4)
        frames[t, 4:8, x : x + 4] = random.integers(0, 255, 3)
    return frames
