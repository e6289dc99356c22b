"""Films of attempts: .mp4 files (H.264), whose frames are encoded as they come.

A frame of a film shows all cameras side by side, so that every player shows all that the policy
saw. Where each camera lies, and what the attempt was, is in the file's comment, as JSON.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from PIL import Image
from pydantic import ConfigDict, TypeAdapter

from core.episodes.episode import Camera
from core.errors import DataError
from core.evaluation.files import open_whole
from core.system.strict import one_line

# Maximum length in pixels of an image's longer side, and of a film's row of images. Larger images
# are shrunk; reports show half of it. Images of less than half of it are enlarged, since the format
# halves the resolution of colours.
MAX_SIDE, MAX_WIDTH = 320, 4096
# H.264 compresses square blocks; each side of a block has this many pixels. Pixels of one block
# affect each other, so no block should hold pixels of two cameras.
BLOCK = 16
# Number of frames that players show in a second; each frame is an observation of the policy.
FRAMES_PER_SECOND = 20
# FFmpeg's decoders count pixels beyond a frame's edges, too; this is more than any of them adds.
EDGE = 64
ENCODER, DECODER = "libx264", "h264"
# The fastest preset, which keeps no frames back, at x264's own quality, which leaves out a camera's
# noise.
OPTIONS = {"preset": "ultrafast", "crf": "23"}


@dataclass(frozen=True)
class Place:
    """Where a camera's image lies in every frame of a film; its top is the frame's.

    x: the left edge in pixels of the film.
    width, height: the size of the image in pixels.
    zoom: sides of the square, in pixels of the film, by which a pixel of the image is shown.
    """

    name: str
    x: int
    width: int
    height: int
    zoom: int

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Return the view of a film's frame (Y X 3) that shows this image, enlarged."""
        return picture[: self.height * self.zoom, self.x : self.x + self.width * self.zoom]


@dataclass(frozen=True)
class FilmFacts:
    """What a film shows.

    cameras: the places of the cameras' images.
    frames: number of frames.
    gripper: opening of the gripper at each frame, from 0 (closed) to 1 (open); None if there is no
        gripper, or if nothing was done.
    """

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)

    task: str
    instruction: str
    seed: int
    success: bool
    cameras: tuple[Place, ...]
    frames: int
    gripper: tuple[float, ...] | None


@dataclass(frozen=True)
class Film:
    """The chosen frames of a film.

    steps: the indices of these frames among all frames (k).
    images: {camera: (k Y X 3) uint8}.
    """

    facts: FilmFacts
    steps: Sequence[int]
    images: Mapping[str, np.ndarray]


def place_cameras(cameras: Mapping[str, Camera]) -> tuple[Place, ...]:
    """Return the places of all cameras' images, shrunk or enlarged to a size that is well seen."""
    max_side = min(MAX_SIDE, MAX_WIDTH // len(cameras))
    places, x = [], 0
    for name, camera in cameras.items():
        side = max(camera.height, camera.width)
        factor = ceil(side / max_side)
        width, height = ceil(camera.width / factor), ceil(camera.height / factor)
        place = Place(name, x, width, height, zoom=max(1, max_side // 2 // side))
        places.append(place)
        x += _whole_blocks(width * place.zoom)
    return tuple(places)


# ------------------------------------------------------------------------------------------ writing


class FilmEncoder:
    """Encodes the frames of one attempt into a file without a name.

    Such a file ends with the process that writes it, however that ends. Memory holds the frame that
    is being encoded and the one before it.

    folder: where the film may be saved later; it is made if it does not exist.

    All methods may raise an OSError, `add` and `finish` also an error of FFmpeg.
    """

    def __init__(self, folder: Path, places: Sequence[Place]) -> None:
        self._folder, self._places = folder, places
        width = sum(_whole_blocks(place.width * place.zoom) for place in places)
        height = max(_whole_blocks(place.height * place.zoom) for place in places)
        self._picture = np.zeros((height, width, 3), np.uint8)
        self._file: IO[bytes] | None = None
        self._container: Any = None
        self._stream: Any = None

    def add(self, images: Mapping[str, np.ndarray]) -> None:
        """Encode a frame: {camera: (Y X 3) uint8}."""
        if self._container is None:
            self._open()
        for place in self._places:
            image = _scale(images[place.name], place)
            below, right = self._picture.shape[0] - image.shape[0], -image.shape[1] % BLOCK
            # black would shine through at the edges
            padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
            self._picture[:, place.x : place.x + padded.shape[1]] = padded
        frame = av.VideoFrame.from_ndarray(self._picture, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> IO[bytes]:
        """Encode what is left and return the film, an .mp4 without facts."""
        assert self._file is not None
        self._container.mux(self._stream.encode())
        self._container.close()
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Forget the film; its file vanishes."""
        with suppress(Exception):  # a full disk does not matter any more
            if self._container is not None:
                self._container.close()
        if self._file is not None:
            self._file.close()

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - `close` closes it
        self._container = av.open(self._file, "w", format="mp4")
        stream = self._container.add_stream(ENCODER, rate=FRAMES_PER_SECOND, options=OPTIONS)
        stream.height, stream.width = self._picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # each thread would hold frames of its own
        self._stream = stream


def save_film(path: Path, film: IO[bytes], facts: FilmFacts) -> None:
    """Write a finished film with its facts; raises DataError if it cannot be written."""
    with (
        open_whole(path) as file,
        av.open(film, "r", format="mp4") as source,
        av.open(file, "w", format="mp4") as target,
    ):
        target.metadata["comment"] = TypeAdapter(FilmFacts).dump_json(facts).decode()
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:  # the last packet is empty
                packet.stream = stream
                target.mux(packet)


def _scale(image: np.ndarray, place: Place) -> np.ndarray:
    """Shrink an image (Y X 3) by averaging, or enlarge it by repetition, so that it is as shown."""
    size = (place.width * place.zoom, place.height * place.zoom)
    if image.shape[1::-1] == size:
        return image
    # `reducing_gap` lets a faster function shrink it by whole factors first
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=1.0))


def _whole_blocks(pixels: int) -> int:
    return ceil(pixels / BLOCK) * BLOCK


# ------------------------------------------------------------------------------------------ reading


def read_film(path: Path, choose: Callable[[int], Sequence[int]]) -> Film:
    """Read some frames of a film; only these are in memory.

    choose: returns the indices of the wanted frames, given the number of all frames.

    Raises DataError if the file is damaged or no film of an evaluation.
    """
    try:
        # without the argument `format`, FFmpeg might take a damaged file for a playlist and open
        # the files that it lists
        with av.open(str(path), "r", format="mp4") as container:
            facts = TypeAdapter(FilmFacts).validate_json(container.metadata["comment"])
            stream = container.streams.video[0]
            _check_sizes(stream.codec_context, facts)
            steps = choose(facts.frames)
            images = {
                place.name: np.empty((len(steps), place.height, place.width, 3), np.uint8)
                for place in facts.cameras
            }
            for number, picture in enumerate(_chosen_pictures(container, facts, set(steps))):
                for place in facts.cameras:
                    image = Image.fromarray(place.cut(picture))
                    images[place.name][number] = np.asarray(image.reduce(place.zoom))
    except Exception as error:  # noqa: BLE001 - FFmpeg's errors have no common kind
        raise DataError(f"{path}: damaged ({one_line(error)}); evaluate the run again") from None
    return Film(facts, steps, images)


def _check_sizes(codec: Any, facts: FilmFacts) -> None:
    """Raise ValueError if a film is not as its facts say, or larger than any that is written."""
    most = MAX_WIDTH + BLOCK * len(facts.cameras)  # each image is padded to whole blocks
    if codec.name != DECODER or not facts.cameras or not 0 < codec.width <= most:
        raise ValueError("no film of cameras")
    for place in facts.cameras:
        is_inside = place.x >= 0 and place.x + place.width * place.zoom <= codec.width
        is_inside &= place.height * place.zoom <= codec.height <= MAX_SIDE
        if not is_inside or min(place.width, place.height, place.zoom) < 1:
            raise ValueError(f"no place for camera '{place.name}'")
    if facts.gripper is not None and len(facts.gripper) != facts.frames:
        raise ValueError(f"{len(facts.gripper)} openings of a gripper in {facts.frames} frames")


def _chosen_pictures(container: Any, facts: FilmFacts, chosen: set[int]) -> Iterator[np.ndarray]:
    """Yield the chosen frames (Y X 3); raises ValueError if the film is not as its facts say."""
    stream = container.streams.video[0]
    height, width = stream.codec_context.height, stream.codec_context.width
    stream.codec_context.options = {"max_pixels": str((height + EDGE) * (width + EDGE))}
    count = 0
    for number, frame in enumerate(container.decode(stream)):
        if frame.is_corrupt or (frame.height, frame.width) != (height, width):
            raise ValueError(f"frame {number} is broken")
        if number in chosen:
            yield frame.to_ndarray(format="rgb24")
        count += 1
    if count != facts.frames:
        raise ValueError(f"{count} frames instead of {facts.frames}")
