"""Datasets that Joinery wrote, read by LeRobot's own reader."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from core.episodes.episode import Episode
from plugins.datasets.lerobot import LeRobot, LeRobotConfig, LeRobotWriter, LeRobotWriterConfig
from tests.factories import make_episodes, make_info

ROOT = Path(__file__).parents[2]
HOW = "(pip install --no-deps lerobot==0.4.4 and what it needs: .ci/run does)"
pytestmark = pytest.mark.skipif(
    not (find_spec("lerobot") and find_spec("datasets")), reason=f"needs LeRobot {HOW}"
)
needs_video_reader = pytest.mark.skipif(
    not find_spec("torchcodec"), reason=f"needs torchcodec {HOW}"
)


def ffmpeg(folder: Path) -> Path:
    """PyAV's FFmpeg under the names that torchcodec looks for."""
    folder.mkdir()
    for library in (Path(av.__file__).parents[1] / "av.libs").glob("*.so.*"):
        if match := re.match(r"(lib\w+)-[0-9a-f]{8}(\.so\.\d+)", library.name):
            (folder / f"{match[1]}{match[2]}").symlink_to(library)
    return folder


def read_with_lerobot(root: Path, work: Path) -> dict[str, np.ndarray]:
    """What `tests.lerobot_reader` finds in a dataset."""
    environment = os.environ | {
        "HF_HOME": str(work / "cache"),
        "HF_HUB_OFFLINE": "1",  # LeRobot would look for missing files on the hub
        "LD_LIBRARY_PATH": str(ffmpeg(work / "ffmpeg")),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.lerobot_reader", str(root), str(work / "found.npz")]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if "Could not load libtorchcodec" in process.stderr:
        pytest.skip("this torchcodec fits neither this PyTorch nor PyAV's FFmpeg")
    assert process.returncode == 0, process.stderr[-2000:]
    with np.load(work / "found.npz") as actual:
        return dict(actual)


def write(out: Path, config: LeRobotWriterConfig) -> list[Episode]:
    info = make_info()
    writer = LeRobotWriter(config, info=info, out=out)
    episodes = make_episodes(4, info)
    for episode in episodes:
        writer.append(episode)
    writer.finish()
    return episodes


def join(episodes: list[Episode], feature: str) -> np.ndarray:
    return np.concatenate([getattr(episode, feature) for episode in episodes])


def as_lerobot_images(episodes: list[Episode], camera: str) -> np.ndarray:
    """(n C Y X) in [0, 1], as LeRobot has them."""
    frames = np.concatenate([episode.images[camera] for episode in episodes])
    return frames.transpose(0, 3, 1, 2).astype(np.float32) / 255


def assert_numbers(actual: dict[str, np.ndarray], episodes: list[Episode]) -> None:
    lengths = [len(episode) for episode in episodes]
    np.testing.assert_array_equal(actual["action"], join(episodes, "actions"))
    np.testing.assert_array_equal(actual["observation.state"], join(episodes, "proprio"))
    assert actual["task"].tolist() == [e.instruction for e in episodes for _ in range(len(e))]
    assert actual["episode_index"].tolist() == np.repeat(range(len(episodes)), lengths).tolist()
    assert actual["frame_index"].tolist() == [
        frame for length in lengths for frame in range(length)
    ]
    assert actual["index"].tolist() == [*range(sum(lengths))]
    np.testing.assert_allclose(actual["timestamp"], actual["frame_index"] / 10, rtol=1e-6)
    ends = np.cumsum(lengths)
    assert actual["episodes"].tolist() == np.stack([ends - lengths, ends], axis=1).tolist()
    np.testing.assert_allclose(
        actual["stats/action/mean"], join(episodes, "actions").mean(axis=0), rtol=1e-4
    )


def assert_windows(actual: dict[str, np.ndarray], key: str) -> None:
    """Frames before, at and after each, which stay within the episode."""
    index = np.arange(len(actual["index"]))
    begins, ends = actual["episodes"][actual["episode_index"]].T
    for shift, column in ((-1, 0), (0, 1), (1, 2)):
        expected = actual[key][np.clip(index + shift, begins, ends - 1)]
        np.testing.assert_array_equal(actual[f"windows/{key}"][:, column], expected)


def test_lerobot_reads_images_in_tables(tmp_path: Path) -> None:
    episodes = write(tmp_path / "out", LeRobotWriterConfig(images="image", robot_type="panda"))
    actual = read_with_lerobot(tmp_path / "out", tmp_path)
    assert_numbers(actual, episodes)
    for camera in ("front", "wrist"):
        key = f"observation.images.{camera}"
        np.testing.assert_array_equal(actual[key], as_lerobot_images(episodes, camera))
        np.testing.assert_allclose(
            actual[f"stats/{key}/mean"].ravel(), actual[key].mean(axis=(0, 2, 3)), rtol=1e-4
        )
        assert_windows(actual, key)


@needs_video_reader
@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_lerobot_reads_videos(tmp_path: Path, codec: str) -> None:
    episodes = write(tmp_path / "out", LeRobotWriterConfig(codec=codec, crf=20))
    actual = read_with_lerobot(tmp_path / "out", tmp_path)
    assert_numbers(actual, episodes)
    source = LeRobot(LeRobotConfig(), source=tmp_path / "out")
    decoded = [source.read(episode) for episode in source.ids()]
    for camera in ("front", "wrist"):
        key = f"observation.images.{camera}"
        # two decoders convert from YUV in slightly different ways
        np.testing.assert_allclose(actual[key], as_lerobot_images(decoded, camera), atol=0.02)
        assert np.abs(actual[key] - as_lerobot_images(episodes, camera)).mean() < 0.04
        assert_windows(actual, key)
