"""Codecs of frames: lossless zstd, and JPEG for cameras where JPEG needs fewer bytes.

A codec works on a *block* of consecutive frames of one episode, (n Y X C) uint8. Each block can be
decoded alone. The frames of a named feature are viewed as bytes and encoded by the lossless codec.
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

from core.episodes.episode import Codec as CodecName, Feature
from core.episodes.frames import Images
from core.errors import DataError

Chroma = Literal["4:4:4", "4:2:0"]

# Minimum and maximum bytes of the scratch memory that each thread keeps for decoding. The minimum
# is above 4 MiB, because numpy asks for huge pages only for arrays of at least 4 MiB.
MIN_SCRATCH, MAX_SCRATCH = 2**23, 2**25

# A codec expands its input at most so many times: zstd makes 128 KiB of 4 bytes if all are equal.
MAX_INFLATION = 2**15
# So many bytes are allocated for frames whatever the size of their file.
ALWAYS_ALLOWED = 2**24

# Number of frames that are read at once if they are not in memory.
STRETCH_FRAMES = 32
# Target number of bytes in one block of a feature. It is small, because reading one frame decodes
# the frame's whole block.
FEATURE_BLOCK_BYTES = 2**15
# Maximum number of frames in one block of a feature.
MAX_FEATURE_BLOCK = 256


class Codec(Protocol):
    """Encodes and decodes blocks of at most `block_size` frames."""

    name: ClassVar[CodecName]

    @property
    def block_size(self) -> int:
        """Number of frames in a block; the last block of an episode may have fewer frames."""

    @property
    def quality(self) -> int | None:
        """JPEG quality; None for a lossless codec."""

    @property
    def chroma(self) -> Chroma | None:
        """JPEG's resolution of colours: 4:4:4 or 4:2:0; None for a lossless codec."""

    def __str__(self) -> str:
        """Return the codec's name for users."""

    def encode(self, frames: np.ndarray) -> bytes:
        """Encode one block (n Y X C) uint8."""

    def decode(
        self, data: bytes, bounds: Sequence[int], count: int, first: int, out: np.ndarray
    ) -> None:
        """Decode frames first..first+m-1 of consecutive blocks of one episode into `out`.

        data: the encoded blocks back to back.
        bounds: where each block begins, and where the last block ends: byte offsets in the stored
            stream from which `data` was read.
        count: number of frames in all these blocks together.
        first: index of the first frame to decode, counted from the first frame of these blocks.
        out: (m Y X C) uint8, C-contiguous.

        Raises an exception of any kind if a block is not what the codec encodes.

        All blocks are passed in one call, because each call of a decoder releases the interpreter
        lock and then has to wait until it gets the lock back.
        """


@dataclass(frozen=True)
class Jpeg:
    """Baseline JPEG, one frame in a block.

    chroma: "4:4:4" keeps the full resolution of the colours; "4:2:0" halves it in both directions.
    """

    name: ClassVar[CodecName] = "jpeg"
    block_size: int = 1
    quality: int = 95
    chroma: Chroma = "4:4:4"

    def __str__(self) -> str:
        return f"{self.name} {self.chroma}"

    def encode(self, frames: np.ndarray) -> bytes:
        """Encode a block of one frame (1 Y X C)."""
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
        """Decode directly into `out` (m Y X C).

        Each block is one frame, so callers pass only the blocks of the requested frames, and
        `first` is 0.
        """
        begin = bounds[0]
        for frame, (low, high) in zip(out, pairwise(bounds), strict=True):
            encoded = data[low - begin : high - begin]
            if decode_jpeg(encoded, colorspace="RGB", buffer=frame).shape != frame.shape:
                raise ValueError(f"a picture of another size than {frame.shape}")


@dataclass(frozen=True)
class Zstd:
    """Lossless zstd compression of raw frames.

    Content that every frame of a block repeats needs hardly more bytes than if it occurred once.
    """

    name: ClassVar[CodecName] = "zstd"
    block_size: int = 8
    level: ClassVar[int] = 3

    @property
    def quality(self) -> None:
        """None: the codec is lossless."""
        return None

    @property
    def chroma(self) -> None:
        """None: the codec is lossless."""
        return None

    def __str__(self) -> str:
        return self.name

    def encode(self, frames: np.ndarray) -> bytes:
        """Encode a block of up to `block_size` frames (n Y X C)."""
        return bytes(compress(np.ascontiguousarray(frames), self.level))

    def decode(
        self,
        data: bytes,
        bounds: Sequence[int],
        count: int,
        first: int,
        out: np.ndarray,
    ) -> None:
        """Decode directly into `out` if `out` takes all frames of the blocks.

        Otherwise the frames are decoded into scratch memory, and the requested frames are copied to
        `out`. If the blocks do not all fit into the scratch memory, they are decoded one by one. So
        a long sequence of frames is never in memory twice.
        """
        shape = (count, *out.shape[1:])
        if len(out) == count:
            decompress(data, out)
        elif count > self.block_size and prod(shape) > MAX_SCRATCH:
            self._decode_one_by_one(data, bounds, count, first, out)
        else:
            frames = _scratch(shape)
            decompress(data, frames)
            out[:] = frames[first : first + len(out)]

    def _decode_one_by_one(
        self, data: bytes, bounds: Sequence[int], count: int, first: int, out: np.ndarray
    ) -> None:
        for number, (low, high) in enumerate(pairwise(bounds)):
            start, end = number * self.block_size, min((number + 1) * self.block_size, count)
            target = out[max(start - first, 0) : end - first]
            block = data[low - bounds[0] : high - bounds[0]]
            self.decode(block, [low, high], end - start, max(first - start, 0), target)


_thread = local()


def _scratch(shape: tuple[int, ...]) -> np.ndarray:
    """Return scratch memory (uint8) of the calling thread; the thread's next call reuses it.

    Reading windows is 6 % faster if each call decodes into the same memory, in huge pages, than if
    it allocates new memory. Memory of more than MAX_SCRATCH bytes is not kept.
    """
    size = prod(shape)
    if size > MAX_SCRATCH:
        return np.empty(shape, np.uint8)
    if not hasattr(_thread, "scratch") or _thread.scratch.size < size:
        _thread.scratch = np.empty(max(size, MIN_SCRATCH), np.uint8)
    scratch: np.ndarray = _thread.scratch[:size].reshape(shape)
    return scratch


def split_blocks(frames: Images, size: int) -> Iterator[np.ndarray]:
    """Split an episode's frames (n ...) into blocks of `size` frames; the last may be shorter.

    Frames that are read when they are needed are read some blocks at a time.
    """
    step = size if isinstance(frames, np.ndarray) else size * -(-STRETCH_FRAMES // size)
    for begin in range(0, len(frames), step):
        stretch = frames[begin : begin + step]
        yield from (stretch[i : i + size] for i in range(0, len(stretch), size))


# ------------------------------------------------------------------------------ choosing a codec

LOSSLESS, FULL, HALF = Zstd(), Jpeg(), Jpeg(chroma="4:2:0")  # the candidates for a camera


@dataclass(frozen=True)
class Cost:
    """What a codec costs: bytes per frame, and mean squared error of pixel values (0 to 255)."""

    size: float
    error: float

    def __str__(self) -> str:
        loss = f" at {10 * log10(255**2 / self.error):.0f} dB" if self.error else ""
        return f"{self.size / 1e3:.1f} KB a frame{loss}"


def try_codecs(frames: Images) -> dict[Codec, Cost]:
    """Return {candidate: its cost} for an episode (n Y X C) uint8; the lossless codec is first."""
    candidates: tuple[Codec, ...] = (LOSSLESS, FULL, HALF)
    sizes, errors = dict.fromkeys(candidates, 0), dict.fromkeys(candidates, 0.0)
    for stretch in split_blocks(frames, LOSSLESS.block_size):
        for codec in candidates:
            for block in split_blocks(stretch, codec.block_size):
                encoded = codec.encode(block)
                sizes[codec] += len(encoded)
                errors[codec] += _error(codec, encoded, block)
    return {codec: Cost(sizes[codec] / len(frames), errors[codec] / frames.size) for codec in sizes}


def _error(codec: Codec, encoded: bytes, block: np.ndarray) -> float:
    """Return the sum of squared errors of the values of an encoded block."""
    if codec.quality is None:
        return 0.0
    decoded = np.empty_like(block, order="C")
    codec.decode(encoded, [0, len(encoded)], len(block), 0, decoded)
    return float(np.square(decoded - block.astype(np.float32)).sum())


def choose_codec(costs: Mapping[Codec, Cost]) -> Codec:
    """Return the codec to use, given what each candidate costs.

    The lossless codec is chosen unless JPEG 4:4:4 needs fewer bytes. JPEG 4:2:0 is chosen over
    JPEG 4:4:4 if its squared error is at most twice as large (a loss of 3 dB). Most photographs and
    videos lose less than 3 dB, since they were stored as 4:2:0 before they were imported. Rendered
    images with sharp edges lose 7 dB.
    """
    if costs[LOSSLESS].size <= costs[FULL].size:
        return LOSSLESS
    return HALF if costs[HALF].error <= 2 * costs[FULL].error else FULL


def feature_codec(feature: Feature) -> Zstd:
    """Return the lossless codec of a named feature, with about 32 KiB of frames in a block.

    Every block has at least eight frames, as in losslessly encoded cameras, and at most
    MAX_FEATURE_BLOCK. Content that every frame of a block repeats needs hardly more bytes than if
    it occurred once.
    """
    frames_that_fit = FEATURE_BLOCK_BYTES // feature.frame_bytes
    return Zstd(min(MAX_FEATURE_BLOCK, max(LOSSLESS.block_size, frames_that_fit)))


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """View C-contiguous frames (n ...) of any dtype as their bytes, (n bytes) uint8."""
    return frames.reshape(len(frames), prod(frames.shape[1:])).view(np.uint8)


def make_codec(name: str, block_size: int, quality: int | None, chroma: Chroma | None) -> Codec:
    """Return the codec that a store's metadata describes; raises DataError for an unknown name."""
    match name:
        case Jpeg.name:
            return Jpeg(block_size, quality or Jpeg.quality, chroma or Jpeg.chroma)
        case Zstd.name:
            return Zstd(block_size)
    raise DataError(
        f"the store's codec '{name}' is unknown to this version; known: {Jpeg.name}, {Zstd.name}"
    )
