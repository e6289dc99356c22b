"""Videos as LeRobot writes them: many episodes in one file, each of which could be cut out again."""

import os
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import ConfigError, DataError, import_optional, one_line
from core.episodes import Camera
from plugins.datasets.lerobot.features import FILM_MB
from plugins.datasets.lerobot.tables import Slot

Codec = Literal["av1", "h264"]
ENCODERS: dict[Codec, str] = {"av1": "libsvtav1", "h264": "h264"}  # FFmpeg's names
# LeRobot compares seconds in float32 and refuses frames past 1,024, at 29.97 Hz for example
FILM_SECONDS = 1_000


class Encoder:
    """Encodes the frames of an episode into an .mp4 of its own, in memory, with LeRobot's settings.

    codec: the first of ENCODERS that FFmpeg has, where it is None. Raises ConfigError for one that
    it has not.
    """

    def __init__(self, codec: Codec | None, crf: int, rate: Fraction) -> None:
        self._av = import_optional("av", extra="lerobot")
        there = [name for name in ENCODERS if self._is_there(ENCODERS[name])]
        if codec not in (None, *there) or not there:
            raise ConfigError(
                f'lerobot.codec: FFmpeg has no encoder for {codec or "either"}; say images = "image"'
            )
        self.codec = codec or there[0]
        self.rate = rate
        own = (
            {"preset": "12"} if self.codec == "av1" else {"bf": "0"}
        )  # packets in the order of frames, to be appended
        self._options = {"g": "2", "crf": str(crf), **own}
        os.environ.setdefault(
            "SVT_LOG", "1"
        )  # else SVT-AV1 writes two dozen lines for every episode

    def _is_there(self, encoder: str) -> bool:
        try:
            self._av.codec.Codec(encoder, "w")
        except self._av.codec.codec.UnknownCodecError:
            return False
        return True

    def encode(self, frames: np.ndarray) -> bytes:
        """(n Y X 3) uint8 -> the bytes of an .mp4; raises DataError where FFmpeg refuses frames of
        this size.
        """
        buffer = BytesIO()
        try:
            with self._av.open(buffer, "w", format="mp4") as film:
                stream = film.add_stream(
                    ENCODERS[self.codec], rate=self.rate, options=self._options
                )
                stream.height, stream.width, stream.pix_fmt = (
                    frames.shape[1],
                    frames.shape[2],
                    "yuv420p",
                )
                for number, pixels in enumerate(frames):
                    frame = self._av.VideoFrame.from_ndarray(
                        np.ascontiguousarray(pixels), format="rgb24"
                    )
                    frame.pts, frame.time_base = number, 1 / self.rate
                    film.mux(stream.encode(frame))
                film.mux(stream.encode())
        except self._av.error.FFmpegError as error:
            size = f"{frames.shape[1]} x {frames.shape[2]} pixels"
            raise DataError(
                f'{size} cannot be encoded as {self.codec} ({one_line(error)}); say images = "image"'
            ) from None
        return buffer.getvalue()


@dataclass(frozen=True)
class Film:
    """Where an episode lies: file, and seconds from its beginning."""

    slot: Slot
    begins: float
    ends: float


class FilmFiles:
    """One camera's videos, which grow by an episode at a time, without encoding anything twice."""

    def __init__(self, root: Path, template: str, encoder: Encoder, camera: Camera) -> None:
        self._av = import_optional("av", extra="lerobot")
        self._root, self._template, self._encoder = root, template, encoder
        self._slot = Slot()
        self._film: Any = None
        self._stream: Any = None
        self._bytes = self._frames = 0  # of the file at hand
        self.facts = self._probe(camera)

    def _probe(self, camera: Camera) -> dict[str, Any]:
        """What info.json says about a video; raises DataError if frames do not come back in their
        size.
        """
        black = np.zeros((1, camera.height, camera.width, 3), np.uint8)
        with self._av.open(BytesIO(self._encoder.encode(black))) as film:
            stream = film.streams.video[0]
            frame = next(film.decode(stream))
            if (frame.height, frame.width) != (camera.height, camera.width):
                raise DataError(
                    f"{camera.height} x {camera.width} pixels become {frame.height} x {frame.width} as "
                    f'{self._encoder.codec}; say images = "image"'
                )
            return {
                "video.height": camera.height,
                "video.width": camera.width,
                "video.codec": stream.codec.canonical_name,
                "video.pix_fmt": stream.pix_fmt,
                "video.fps": plain(float(self._encoder.rate)),
                "video.channels": 3,
                "has_audio": False,
                "is_depth_map": False,
            }

    def append(self, frames: np.ndarray) -> Film:
        """Add an episode (n Y X 3) uint8, in a new file where the last would grow too large or too
        long.
        """
        encoded = self._encoder.encode(frames)
        seconds = (self._frames + len(frames)) / self._encoder.rate
        if self._film is not None and (
            self._bytes + len(encoded) >= FILM_MB * 2**20 or seconds > FILM_SECONDS
        ):
            self.close()
            self._slot = self._slot.next()
        with self._av.open(BytesIO(encoded)) as episode:
            self._copy(episode)
        begins, ends = (
            float(n / self._encoder.rate) for n in (self._frames, self._frames + len(frames))
        )
        self._bytes += len(encoded)
        self._frames += len(frames)
        return Film(self._slot, begins, ends)

    def _copy(self, episode: Any) -> None:
        """Append an episode's packets, moved in time to where the film ends."""
        source = episode.streams.video[0]
        if self._film is None:
            path = self._slot.path(self._root, self._template)
            self._film = self._av.open(str(path), "w", options={"movflags": "faststart"})
            self._stream = self._film.add_stream_from_template(source, opaque=True)
            self._stream.time_base = source.time_base
            self._bytes = self._frames = 0
        offset = round(self._frames / self._encoder.rate / source.time_base)
        for packet in episode.demux(source):
            if packet.dts is None:  # the last, empty one
                continue
            packet.pts, packet.dts, packet.stream = (
                packet.pts + offset,
                packet.dts + offset,
                self._stream,
            )
            self._film.mux(packet)

    def close(self) -> None:
        """Write the index of the file at hand, and let go of it."""
        if self._film is not None:
            film, self._film = self._film, None
            film.close()


def as_rate(fps: float) -> Fraction:
    """Frames per second as a video has them, 29.97 as 2997/100."""
    return Fraction(fps).limit_denominator(10_000)


def plain(fps: float) -> int | float:
    """Frames per second as JSON has them: a whole number, as LeRobot wants it, where it is whole."""
    return int(fps) if fps.is_integer() else fps
