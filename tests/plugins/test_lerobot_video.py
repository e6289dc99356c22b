"""Videos: episodes encoded, appended and decoded again."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from core.episodes import Camera, Frames
from core.errors import ConfigError, DataError
from plugins.datasets.lerobot import video
from plugins.datasets.lerobot.video import (
    Encoder,
    VideoFiles,
    as_json_number,
    as_rate,
    read_video,
)

CAMERA = Camera(32, 48)
TOLERANCE = 1e-4
TEMPLATE = "{chunk_index}-{file_index}.mp4"


def grey_frames(*levels: int) -> np.ndarray:
    frames = np.array(levels, np.uint8)[:, None, None, None]
    return np.broadcast_to(frames, (len(levels), CAMERA.height, CAMERA.width, 3))


def test_appended_episodes_are_decoded_by_their_seconds(tmp_path: Path) -> None:
    files = VideoFiles(tmp_path, TEMPLATE, Encoder(None, 20, Fraction(10)), CAMERA)
    spans = [files.append(grey_frames(0, 60, 120)), files.append(grey_frames(180, 240))]
    files.close()
    assert [(span.begin, span.end) for span in spans] == [(0.0, 0.3), (0.3, 0.5)]
    path = tmp_path / "0-0.mp4"
    for span, levels in zip(spans, ([0, 60, 120], [180, 240]), strict=True):
        times = span.begin + np.arange(len(levels)) / 10
        frames = np.asarray(read_video(path, times, CAMERA, TOLERANCE))
        assert frames.shape == (len(levels), 32, 48, 3)
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), levels, atol=4)


def test_each_row_has_the_image_of_its_time(tmp_path: Path) -> None:
    """Rows may be trimmed or dropped, and the video may have a higher rate than the table."""
    files = VideoFiles(tmp_path, TEMPLATE, Encoder(None, 20, Fraction(30)), CAMERA)
    files.append(grey_frames(*range(0, 240, 8)))
    files.close()
    for numbers in ([3, 4, 5], [0, 3, 6, 9], [0, 1, 7, 8], [5, 5, 6], [29]):
        times = np.array(numbers) / 30
        frames = np.asarray(read_video(tmp_path / "0-0.mp4", times, CAMERA, TOLERANCE))
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), 8 * np.array(numbers), atol=3)


def test_the_nearest_image_within_the_tolerance(tmp_path: Path) -> None:
    files = VideoFiles(tmp_path, TEMPLATE, Encoder(None, 20, Fraction(10)), CAMERA)
    files.append(grey_frames(0, 60, 120, 180))
    files.close()
    path, times = tmp_path / "0-0.mp4", np.array([0.02, 0.08, 0.21, 0.26])
    frames = np.asarray(read_video(path, times, CAMERA, 0.045))
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 60, 120, 180], atol=4)
    message = r"up to 0.0400 s .* \(frame 3 of 4, at 0.260 s\).* say tolerance = 0.044"
    with pytest.raises(DataError, match=message):
        read_video(path, times, CAMERA, TOLERANCE)


@pytest.mark.parametrize("tolerance", [0.06, 0.25])
def test_a_generous_tolerance_moves_no_image(tmp_path: Path, tolerance: float) -> None:
    """The nearest image counts, though images of another episode are near enough, too."""
    files = VideoFiles(tmp_path, TEMPLATE, Encoder(None, 20, Fraction(10)), CAMERA)
    spans = [files.append(grey_frames(*range(0, 50, 10))), files.append(grey_frames(60, 90, 120))]
    files.close()
    path = tmp_path / "0-0.mp4"
    for times, levels in (
        (spans[0].begin + np.array([0.0, 0.1, 0.24, 0.3]), [0, 10, 20, 30]),
        (spans[1].begin + np.arange(3) / 10, [60, 90, 120]),
        (spans[1].begin + np.array([0.04, 0.16]), [60, 120]),
    ):
        frames = np.asarray(read_video(path, times, CAMERA, tolerance))
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), levels, atol=3)


def test_the_tolerance_that_is_advised_suffices(tmp_path: Path) -> None:
    """A video of 29.97 Hz beside times of 30 Hz: the gap grows from image to image."""
    files = VideoFiles(tmp_path, TEMPLATE, Encoder(None, 20, Fraction(30_000, 1_001)), CAMERA)
    files.append(grey_frames(*range(0, 180, 3)))
    files.close()
    path = tmp_path / "0-0.mp4"
    for count in (5, 60):
        times = np.arange(count) / 30
        with pytest.raises(DataError, match=r"correct the column timestamp .*, or say") as failed:
            read_video(path, times, CAMERA, TOLERANCE)
        tolerance = float(str(failed.value).rpartition("tolerance = ")[2])
        frames = np.asarray(read_video(path, times, CAMERA, tolerance))
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), 3 * np.arange(count), atol=3)


def test_long_videos_are_read_in_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.episodes.frames.WHOLE_BYTES", 10)
    files = VideoFiles(tmp_path, TEMPLATE, Encoder(None, 20, Fraction(10)), CAMERA)
    files.append(grey_frames(*range(0, 200, 20)))
    files.close()
    frames = read_video(tmp_path / "0-0.mp4", np.arange(10) / 10, CAMERA, TOLERANCE)
    assert isinstance(frames, Frames)
    for start, stop in ((0, 3), (3, 10), (7, 9), (2, 4), (10, 10)):
        levels = 20 * np.arange(start, stop)
        np.testing.assert_allclose(frames[start:stop].mean(axis=(1, 2, 3)), levels, atol=4)


def test_a_missing_frame_and_another_size_are_errors(tmp_path: Path) -> None:
    files = VideoFiles(tmp_path, TEMPLATE, Encoder(None, 20, Fraction(10)), CAMERA)
    files.append(grey_frames(0, 60))
    files.close()
    path, times = tmp_path / "0-0.mp4", np.arange(3) / 10
    with pytest.raises(DataError, match=r"last image is at 0.100 s, and frame 2 of 3, at 0.200 s"):
        read_video(path, times, CAMERA, TOLERANCE)
    with pytest.raises(DataError, match="frames of 32 x 48 pixels, and meta/ says 32 x 50"):
        read_video(path, times[:2], Camera(32, 50), TOLERANCE)


def test_an_encoder_that_ffmpeg_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(video.ENCODERS, "av1", "libnothing")
    with pytest.raises(ConfigError, match="FFmpeg has no encoder for av1"):
        Encoder("av1", 30, Fraction(10))
    assert Encoder(None, 30, Fraction(10)).codec == "h264"


def test_frame_rates_as_a_fraction_and_in_json() -> None:
    assert as_rate(29.97) == Fraction(2997, 100)
    assert isinstance(as_json_number(30.0), int)
    assert as_json_number(29.97) == 29.97
