"""Videos: episodes encoded, appended and decoded again."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from core.episodes import Camera
from core.errors import ConfigError, DataError
from plugins.datasets.lerobot import video
from plugins.datasets.lerobot.video import (
    Encoder,
    VideoFiles,
    as_json_number,
    as_rate,
    decode_video,
)

av = pytest.importorskip("av", reason="needs PyAV (pip install -e '.[lerobot]')")

CAMERA = Camera(32, 48)
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
        frames = decode_video(path, span.begin, len(levels), 10.0, CAMERA)
        assert frames.shape == (len(levels), 32, 48, 3)
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), levels, atol=4)


def test_a_missing_frame_and_another_size_are_errors(tmp_path: Path) -> None:
    files = VideoFiles(tmp_path, TEMPLATE, Encoder(None, 20, Fraction(10)), CAMERA)
    files.append(grey_frames(0, 60))
    files.close()
    path = tmp_path / "0-0.mp4"
    with pytest.raises(DataError, match=r"0-0.mp4: lacks frame 2 of 3 from second 0.00 on"):
        decode_video(path, 0.0, 3, 10.0, CAMERA)
    with pytest.raises(DataError, match="frames of 32 x 48 pixels, and meta/ says 32 x 50"):
        decode_video(path, 0.0, 2, 10.0, Camera(32, 50))


def test_an_encoder_that_ffmpeg_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(video.ENCODERS, "av1", "libnothing")
    with pytest.raises(ConfigError, match="FFmpeg has no encoder for av1"):
        Encoder("av1", 30, Fraction(10))
    assert Encoder(None, 30, Fraction(10)).codec == "h264"


def test_frame_rates_as_a_fraction_and_in_json() -> None:
    assert as_rate(29.97) == Fraction(2997, 100)
    assert isinstance(as_json_number(30.0), int)
    assert as_json_number(29.97) == 29.97
