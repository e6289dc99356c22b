"""LeRobot's videos: read an episode's frames from a video, and append episodes to a video.

A file holds many episodes. Each episode begins with a key frame, so that it can be decoded without
the episode before it. FFmpeg is imported where it is needed, since that takes a tenth of a second.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import ConfigError, DataError, one_line
from core.episodes import Camera, Images, images_of
from core.formats import file_size
from plugins.datasets.lerobot.features import VIDEO_MB
from plugins.datasets.lerobot.tables import FileNumber

Codec = Literal["av1", "h264"]
ENCODERS: dict[Codec, str] = {"av1": "libsvtav1", "h264": "h264"}  # FFmpeg's names
# Maximum length of a video file. LeRobot compares frame times in float32. At 29.97 Hz, for example,
# rounding errors of these times make LeRobot refuse frames after 1,024 s.
VIDEO_SECONDS = 1_000
# maximum number of pixels by which a codec's blocks extend beyond the image
EDGE = 256
# what the time of a row comes from
TIMES = "the column timestamp (or without one, fps in meta/info.json)"


# ------------------------------------------------------------------------------------------ reading


def read_video(path: Path, times: np.ndarray, camera: Camera, tolerance: float) -> Images:
    """Return the image nearest to each time (n), in seconds -> RGB (n Y X 3) uint8.

    As in LeRobot, the video's own rate does not matter: each image is the one that the video shows
    at the row's time.

    tolerance: largest distance of an image from its time, in seconds.

    Raises a DataError that names the file if the video is damaged, or if an image is too far from
    its time. If the video is long, the error is raised while it is read.
    """
    file_size(path)
    video = _Video(path, times, camera, tolerance)
    images = images_of((len(times), camera.height, camera.width, 3), video.read)
    images[:1]  # if they are read later, a video of another size should be noticed now
    return images


class _Video:
    """Reads the images of an episode in stretches; a stretch goes on where the one before ended."""

    def __init__(self, path: Path, times: np.ndarray, camera: Camera, tolerance: float) -> None:
        self.path, self.times, self.camera = path, times, camera
        # times are stored as float32, which is coarser than the tolerance after some minutes
        latest = float(np.abs(times).max(initial=0.0))
        self.rounding = 2 * latest * float(np.finfo(np.float32).eps)
        self.tolerance = tolerance + self.rounding
        self._nearest: Iterator[np.ndarray] = iter(())
        self._next = -1  # index of the image that the iterator yields next

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the images start..stop-1, (m Y X 3) uint8."""
        if start != self._next:
            self._nearest = self._images(start)
        images = list(islice(self._nearest, stop - start))
        self._next = stop
        height, width = self.camera.height, self.camera.width
        return np.stack(images) if images else np.empty((0, height, width, 3), np.uint8)

    def _images(self, first: int) -> Iterator[np.ndarray]:
        """Yield the image nearest to each time, from the time with index `first` on."""
        begin = float(self.times[first]) - self.tolerance
        decoded = self._decode(max(0.0, begin))
        frame, following = next(decoded, None), None
        for index in range(first, len(self.times)):
            wanted = float(self.times[index])
            # an image at the very time is the nearest, so what follows need not be decoded
            while frame is not None and frame.time < wanted - self.rounding:
                following = following or next(decoded, None)
                if following is None or following.time - wanted >= wanted - frame.time:
                    break
                frame, following = following, None
            if frame is None or abs(frame.time - wanted) > self.tolerance:
                raise self._gap()
            yield frame.to_ndarray(format="rgb24")

    def _gap(self) -> DataError:
        """Say how far at most an image is from the time of its row, without decoding the images."""
        import av

        with av.open(str(self.path), format="mp4") as container:
            packets = container.demux(container.streams.video[0])
            shown = np.array([float(p.pts * p.time_base) for p in packets if p.pts is not None])
        if not shown.size:
            return DataError(f"{self.path}: holds no images; copy it again")
        gaps = np.abs(self.times[:, None] - shown).min(axis=1)
        worst = int(gaps.argmax())
        where = f"frame {worst} of {len(self.times)}, at {self.times[worst]:.3f} s"
        if self.times[worst] > shown.max():
            return DataError(
                f"{self.path}: its last image is at {shown.max():.3f} s, and {where}, comes after "
                f"it; is the video cut off? If not, correct {TIMES}"
            )
        return DataError(
            f"{self.path}: the images are up to {gaps[worst]:.4f} s from the times of their rows "
            f"({where}); correct {TIMES}, or say tolerance = {1.1 * gaps[worst]:.2g}"
        )

    def _decode(self, begin: float) -> Iterator[Any]:
        """Yield the video's frames from the second `begin` on, and the one before that."""
        import av

        try:
            # without the argument `format`, FFmpeg might take a damaged file for a playlist and
            # open the files that it lists
            with av.open(str(self.path), format="mp4") as container:
                stream: Any = container.streams.video[0]
                self._check_size(stream.codec_context)
                most_pixels = (self.camera.height + EDGE) * (self.camera.width + EDGE)
                stream.codec_context.options = {"max_pixels": str(most_pixels)}
                container.seek(int(begin / stream.time_base), stream=stream)
                earlier = None
                for frame in container.decode(stream):
                    if frame.time < begin:
                        earlier = frame
                        continue
                    if earlier is not None and not earlier.is_corrupt:
                        yield earlier
                    earlier = None
                    self._check_size(frame)
                    if frame.is_corrupt:
                        raise ValueError(f"a damaged frame at second {frame.time:.2f}")
                    yield frame
                if earlier is not None and not earlier.is_corrupt:
                    yield earlier
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 - FFmpeg's errors have no common kind
            raise DataError(
                f"{self.path}: cannot be decoded ({one_line(error)}); copy it again"
            ) from None

    def _check_size(self, frame: Any) -> None:
        """Raise DataError if a frame, or a codec's context, has another size than the camera."""
        height, width = self.camera.height, self.camera.width
        if (frame.height, frame.width) != (height, width):
            raise DataError(
                f"{self.path}: frames of {frame.height} x {frame.width} pixels, and meta/ says "
                f"{height} x {width}; correct the shape in meta/info.json, or leave the camera out"
            )


# ------------------------------------------------------------------------------------------ writing


class Encoder:
    """Encodes the frames of one episode into one .mp4 in memory, with LeRobot's settings.

    codec: None for the first of ENCODERS that FFmpeg has.
    crf: quality, from 0 (best) to 51.
    rate: frames per second.

    Raises ConfigError if FFmpeg cannot encode with the codec.
    """

    def __init__(self, codec: Codec | None, crf: int, rate: Fraction) -> None:
        import av

        self._av: Any = av
        available = [name for name in ENCODERS if self._has_encoder(ENCODERS[name])]
        if codec not in (None, *available) or not available:
            raise ConfigError(
                f"lerobot.codec: FFmpeg has no encoder for {codec or 'either'}; "
                'say images = "image"'
            )
        self.codec = codec or available[0]
        self.rate = rate
        self._options = {"g": "2", "crf": str(crf)}
        if self.codec == "av1":
            self._options["preset"] = "12"
        else:
            # without B-frames, packets are in the order of frames and can be appended
            self._options["bf"] = "0"
        # without this setting, SVT-AV1 prints two dozen lines for every episode
        os.environ.setdefault("SVT_LOG", "1")

    def _has_encoder(self, name: str) -> bool:
        try:
            self._av.codec.Codec(name, "w")
        except self._av.codec.codec.UnknownCodecError:
            return False
        return True

    def encode(self, frames: np.ndarray) -> bytes:
        """Encode (n Y X 3) uint8 -> the bytes of an .mp4.

        Raises DataError if FFmpeg refuses frames of this size.
        """
        height, width = frames.shape[1:3]
        buffer = BytesIO()
        try:
            with self._av.open(buffer, "w", format="mp4") as container:
                stream = container.add_stream(
                    ENCODERS[self.codec], rate=self.rate, options=self._options
                )
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                for number, image in enumerate(frames):
                    frame = self._av.VideoFrame.from_ndarray(
                        np.ascontiguousarray(image), format="rgb24"
                    )
                    frame.pts, frame.time_base = number, 1 / self.rate
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
        except self._av.error.FFmpegError as error:
            raise DataError(
                f"{height} x {width} pixels cannot be encoded as {self.codec} ({one_line(error)}); "
                'say images = "image"'
            ) from None
        return buffer.getvalue()


@dataclass(frozen=True)
class VideoSpan:
    """Where an episode's video is: the file, and when the episode begins and ends, in seconds."""

    file: FileNumber
    begin: float
    end: float


class VideoFiles:
    """Writes one camera's videos: each episode is encoded once and appended to the open file.

    properties: the videos' entry in info.json.

    Raises DataError if frames do not keep their size when they are encoded.
    """

    def __init__(self, root: Path, template: str, encoder: Encoder, camera: Camera) -> None:
        import av

        self._av: Any = av
        self._root, self._template, self._encoder = root, template, encoder
        self._number = FileNumber()
        self._container: Any = None  # the open file
        self._stream: Any = None
        self._bytes = self._frames = 0  # how much was written to the open file
        self.properties = self._encode_black(camera)

    def _encode_black(self, camera: Camera) -> dict[str, Any]:
        """Encode a black frame, check that it keeps its size, and return the videos' properties."""
        black = np.zeros((1, camera.height, camera.width, 3), np.uint8)
        with self._av.open(BytesIO(self._encoder.encode(black))) as container:
            stream = container.streams.video[0]
            frame = next(container.decode(stream))
            if (frame.height, frame.width) != (camera.height, camera.width):
                raise DataError(
                    f"{camera.height} x {camera.width} pixels become {frame.height} x {frame.width}"
                    f' as {self._encoder.codec}; say images = "image"'
                )
            return {
                "video.height": camera.height,
                "video.width": camera.width,
                "video.codec": stream.codec.canonical_name,
                "video.pix_fmt": stream.pix_fmt,
                "video.fps": as_json_number(float(self._encoder.rate)),
                "video.channels": 3,
                "has_audio": False,
                "is_depth_map": False,
            }

    def append(self, frames: np.ndarray) -> VideoSpan:
        """Append an episode (n Y X 3) uint8.

        The episode begins a new file if the open file would otherwise become too large or too long.
        """
        encoded = self._encoder.encode(frames)
        rate = self._encoder.rate
        is_full = (
            self._bytes + len(encoded) >= VIDEO_MB * 2**20
            or (self._frames + len(frames)) / rate > VIDEO_SECONDS
        )
        if self._container is not None and is_full:
            self.close()
            self._number = self._number.next()
        with self._av.open(BytesIO(encoded)) as episode:
            self._append_packets(episode)
        begin = self._frames
        self._bytes += len(encoded)
        self._frames += len(frames)
        return VideoSpan(self._number, float(begin / rate), float(self._frames / rate))

    def _append_packets(self, episode: Any) -> None:
        """Append an episode's packets; their times are shifted by the length of the open file."""
        source = episode.streams.video[0]
        if self._container is None:
            path = self._number.make_path(self._root, self._template)
            self._container = self._av.open(str(path), "w", options={"movflags": "faststart"})
            self._stream = self._container.add_stream_from_template(source, opaque=True)
            self._stream.time_base = source.time_base
            self._bytes = self._frames = 0
        offset = round(self._frames / self._encoder.rate / source.time_base)
        for packet in episode.demux(source):
            if packet.dts is None:  # demux ends with an empty packet
                continue
            packet.pts += offset
            packet.dts += offset
            packet.stream = self._stream
            self._container.mux(packet)

    def close(self) -> None:
        """Write the index of the open file, and close it."""
        if self._container is not None:
            container, self._container = self._container, None
            container.close()


def as_rate(fps: float) -> Fraction:
    """Return a frame rate as the fraction that a video stores: 29.97 becomes 2997/100."""
    return Fraction(fps).limit_denominator(10_000)


def as_json_number(fps: float) -> int | float:
    """Return a frame rate as LeRobot writes it in JSON: as an integer if it is a whole number."""
    return int(fps) if fps.is_integer() else fps
