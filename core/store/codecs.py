"""How a camera's frames become bytes: JPEG for noisy or moving cameras, lossless zstd for clean
static ones.

A codec works on a *group* of consecutive frames of one episode, (n Y X C) uint8, and any group can
be decoded alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10, prod
from threading import local
from typing import ClassVar, Literal, Protocol

import numpy as np
from numcodecs.zstd import compress, decompress
from simplejpeg import decode_jpeg, encode_jpeg  # type: ignore[attr-defined]

from core.episodes.episode import Codec as CodecName
from core.errors import DataError

Chroma = Literal["4:4:4", "4:2:0"]
LEAST_ROOM, MOST_ROOM = (
    2**23,
    2**25,
)  # bytes that a thread keeps; numpy asks for huge pages from 4 MiB on


class Codec(Protocol):
    """Encodes groups of at most `group` frames."""

    name: ClassVar[CodecName]

    @property
    def group(self) -> int:
        """Frames per group; an episode's last group may be shorter."""

    @property
    def quality(self) -> int | None:
        """JPEG quality, None where the codec is lossless."""

    @property
    def chroma(self) -> Chroma | None:
        """How JPEG samples colours, None where the codec is lossless."""

    def __str__(self) -> str:
        """Name the codec to people."""

    def encode(self, frames: np.ndarray) -> bytes:
        """Encode one group (n Y X C) uint8."""

    def decode(
        self, data: bytes, bounds: Sequence[int], count: int, first: int, out: np.ndarray
    ) -> None:
        """Write frames first..first+m of consecutive groups, of `count` frames in all, into out (m
        Y X C) uint8.

        data: the groups, of one episode, back to back. bounds: where in the stream each begins and
        the last ends. out: C-contiguous. It is one call for all, since each gives up the
        interpreter and has to get it back.
        """


@dataclass(frozen=True)
class Jpeg:
    """Baseline JPEG, one frame a group, whose colours have full resolution (4:4:4) or half of it
    both ways (4:2:0).
    """

    name: ClassVar[CodecName] = "jpeg"
    group: int = 1
    quality: int = 95
    chroma: Chroma = "4:4:4"

    def __str__(self) -> str:
        return f"{self.name} {self.chroma}"

    def encode(self, frames: np.ndarray) -> bytes:
        """Encode a group of one frame (1 Y X C)."""
        frame = np.ascontiguousarray(frames[0])
        subsampling = self.chroma.replace(":", "")
        return bytes(
            encode_jpeg(frame, quality=self.quality, colorspace="RGB", colorsubsampling=subsampling)
        )

    def decode(
        self,
        data: bytes,
        bounds: Sequence[int],
        count: int,  # noqa: ARG002
        first: int,  # noqa: ARG002
        out: np.ndarray,
    ) -> None:
        """Decode straight into out (m Y X C): a group is a frame, so there are no others."""
        begin = bounds[0]
        for frame, (low, high) in zip(out, pairwise(bounds), strict=True):
            decode_jpeg(data[low - begin : high - begin], colorspace="RGB", buffer=frame)


@dataclass(frozen=True)
class Zstd:
    """Plain zstd over raw frames: lossless, and the repetition between a static camera's frames
    costs nothing.
    """

    name: ClassVar[CodecName] = "zstd"
    group: int = 8
    level: ClassVar[int] = 3

    @property
    def quality(self) -> None:
        """Lossless."""
        return None

    @property
    def chroma(self) -> None:
        """Lossless."""
        return None

    def __str__(self) -> str:
        return self.name

    def encode(self, frames: np.ndarray) -> bytes:
        """Encode a group of up to `group` frames (n Y X C)."""
        return bytes(compress(np.ascontiguousarray(frames), self.level))

    def decode(
        self,
        data: bytes,
        bounds: Sequence[int],
        count: int,
        first: int,
        out: np.ndarray,
    ) -> None:
        """Decode straight into out (m Y X C) where the whole groups are wanted, else by way of
        other memory.
        """
        shape = (count, *out.shape[1:])
        if len(out) == count:
            decompress(data, out)
        elif count > self.group and prod(shape) > MOST_ROOM:
            self._decode_each(data, bounds, count, first, out)
        else:
            frames = _room(shape)
            decompress(data, frames)
            out[:] = frames[first : first + len(out)]

    def _decode_each(
        self, data: bytes, bounds: Sequence[int], count: int, first: int, out: np.ndarray
    ) -> None:
        """Decode one group after the other: whole ones straight into out, and no second copy of a
        long run.
        """
        for number, (low, high) in enumerate(pairwise(bounds)):
            start, end = number * self.group, min((number + 1) * self.group, count)
            wanted = out[max(start - first, 0) : end - first]
            group = data[low - bounds[0] : high - bounds[0]]
            self.decode(group, [low, high], end - start, max(first - start, 0), wanted)


_kept = local()


def _room(shape: tuple[int, ...]) -> np.ndarray:
    """Return memory (uint8) that the thread has to itself until it asks again.

    Kept and in huge pages, it makes reading windows 6 % faster than new memory each time.
    """
    size = prod(shape)
    if size > MOST_ROOM:
        return np.empty(shape, np.uint8)
    if not hasattr(_kept, "room") or _kept.room.size < size:
        _kept.room = np.empty(max(size, LEAST_ROOM), np.uint8)
    room: np.ndarray = _kept.room[:size].reshape(shape)
    return room


def groups(frames: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut an episode's frames (n Y X C) into groups of `size`; the last may be shorter."""
    return (frames[i : i + size] for i in range(0, len(frames), size))


LOSSLESS, FULL, HALF = Zstd(), Jpeg(), Jpeg(chroma="4:2:0")  # the codecs that a camera may get


@dataclass(frozen=True)
class Cost:
    """What a codec makes of frames: bytes a frame, and the mean squared error of a value (0 to
    255).
    """

    size: float
    error: float

    def __str__(self) -> str:
        loss = f" at {10 * log10(255**2 / self.error):.0f} dB" if self.error else ""
        return f"{self.size / 1e3:.1f} KB a frame{loss}"


def try_codecs(frames: np.ndarray) -> dict[Codec, Cost]:
    """Encode an episode (n Y X C) uint8 in every way, lossless first."""
    candidates: tuple[Codec, ...] = (LOSSLESS, FULL, HALF)
    return {codec: _try(codec, frames) for codec in candidates}


def _try(codec: Codec, frames: np.ndarray) -> Cost:
    size, error = 0, 0.0
    for group in groups(frames, codec.group):
        encoded = codec.encode(group)
        size += len(encoded)
        if codec.quality is not None:
            decoded = np.empty_like(group, order="C")
            codec.decode(encoded, [0, len(encoded)], len(group), 0, decoded)
            error += float(np.square(decoded - group.astype(np.float32)).sum())
    return Cost(size / len(frames), error / frames.size)


def choose_codec(costs: Mapping[Codec, Cost]) -> Codec:
    """Return the lossless codec unless JPEG is smaller, and with half its colours where that loses
    little.

    Little is at most 3 dB, twice the squared error. So it is in photographs and films, most of
    which held no more colours to begin with; in renders with their clean edges it is 7 dB.
    """
    if costs[LOSSLESS].size <= costs[FULL].size:
        return LOSSLESS
    return HALF if costs[HALF].error <= 2 * costs[FULL].error else FULL


def make_codec(name: str, group: int, quality: int | None, chroma: Chroma | None) -> Codec:
    """Return the codec that a store's metadata names; raises DataError for one that this version
    does not know.
    """
    match name:
        case Jpeg.name:
            return Jpeg(group, quality or Jpeg.quality, chroma or Jpeg.chroma)
        case Zstd.name:
            return Zstd(group)
    raise DataError(
        f"the store's codec '{name}' is unknown to this version; known: {Jpeg.name}, {Zstd.name}"
    )
