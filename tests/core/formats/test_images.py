"""Images of other formats become RGB uint8, and damaged ones are named."""

import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from core.episodes.frames import Frames, images_of
from core.errors import DataError
from core.formats.images import as_images, decode_depth, decode_images, guess_white
from tests.damage import bounded

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)


def png(frame: np.ndarray) -> bytes:
    Image.fromarray(frame).save(stream := BytesIO(), "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("array", "white"),
    [
        (IMAGES, 255),
        (IMAGES.astype(np.int64), 255),
        (IMAGES.astype(np.float32), 255),
        (IMAGES.astype(np.float64) / 255, 1),
        (IMAGES.astype(np.uint16) * 257, 65535),
        (IMAGES.astype(np.int32) * 257, 65535),
    ],
)
def test_images_of_any_number_type(array: np.ndarray, white: float) -> None:
    assert guess_white(array) == white
    np.testing.assert_array_equal(as_images(array, "here", white), IMAGES)


def test_an_encoded_image_of_another_size_is_named() -> None:
    encoded = [png(frame) for frame in IMAGES]
    np.testing.assert_array_equal(decode_images(encoded, 4, 5, "here"), IMAGES)
    with pytest.raises(
        DataError, match=r"here, frame 1: has 4 x 5 pixels, expected 5 x 4; correct the size that"
    ):
        decode_images([png(IMAGES[0].swapaxes(0, 1)), encoded[1]], 5, 4, "here")


def test_an_image_that_claims_too_many_pixels_is_refused() -> None:
    flat = png(np.zeros((1, 1, 3), np.uint8))
    tall = flat[:16] + (6_000).to_bytes(4, "big") * 2 + flat[24:]
    tall = tall[:29] + zlib.crc32(tall[12:29]).to_bytes(4, "big") + tall[33:]
    with (
        bounded(),
        pytest.raises(DataError, match=r"here, frame 0: says that it holds 108,000,000 bytes"),
    ):
        decode_images([tall], 6_000, 6_000, "here")[:]


def test_nothing_shows_what_white_is() -> None:
    assert guess_white(np.empty((0, 4, 5, 3))) == 1
    assert guess_white(np.array(["a"])) == 255


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-0.5, "a value of -0.5, and a picture's are from 0 to 1; shift"),
        (np.nan, "values that are not finite"),
        (np.inf, "values that are not finite"),
    ],
)
def test_values_that_are_no_brightness_are_refused(value: float, message: str) -> None:
    images = np.full((1, 2, 2, 3), value)
    with pytest.raises(DataError, match=f"here: {message}"):
        as_images(images, "here", 1)


def test_floats_may_overshoot_a_little() -> None:
    """Resizing does so at edges; the images must not become black."""
    images = np.linspace(-0.02, 1.02, 12, dtype=np.float32).reshape(1, 2, 2, 3)
    white = guess_white(images)
    assert white == 1
    assert np.ravel(as_images(images, "here", white))[[0, -1]].tolist() == [0, 255]


def test_a_dark_episode_is_taken_if_white_was_told() -> None:
    dark = IMAGES.astype(np.uint16)
    np.testing.assert_array_equal(
        as_images(dark, "here", 65535, told=True), np.rint(dark / 257).astype(np.uint8)
    )


def test_an_episode_that_contradicts_the_first_is_refused() -> None:
    """Floats in [0, 1] would become black pictures."""
    unit = IMAGES / 255
    with pytest.raises(DataError, match=r"here: a value of 248, and white is 1 in the first"):
        as_images(255 * unit, "here", 1)
    with pytest.raises(DataError, match=r"no value exceeds .*, so white seems to be 1, .* 255"):
        as_images(unit, "here", 255)
    with pytest.raises(DataError, match=r"so white seems to be 255, .* 65535"):
        as_images(IMAGES.astype(np.uint16), "here", 65535)
    dark = np.zeros((2, 4, 5, 3), np.float32)
    np.testing.assert_array_equal(as_images(dark, "here", 255), dark)


def test_long_episodes_are_converted_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.episodes.frames.WHOLE_BYTES", 10)
    converted = as_images(IMAGES / 255, "here", 1)
    assert isinstance(converted, Frames)
    np.testing.assert_array_equal(converted[1:2], IMAGES[1:2])
    np.testing.assert_array_equal(converted, IMAGES)
    contradiction = as_images(IMAGES / 255, "here", 255)
    assert contradiction[:1].max() <= 1
    with pytest.raises(DataError, match="white seems to be 1"):
        contradiction[1:]


def test_encoded_images_of_other_kinds_are_converted_by_what_they_are() -> None:
    grey = IMAGES[0, ..., 0]
    for frame, expected in (
        (grey, np.repeat(grey[..., None], 3, axis=2)),
        (grey.astype(np.uint16) * 257, np.repeat(grey[..., None], 3, axis=2)),
        (np.concatenate([IMAGES[0], IMAGES[0, ..., :1]], axis=2), IMAGES[0]),  # with alpha
    ):
        np.testing.assert_array_equal(decode_images([png(frame)], 4, 5, "here"), expected[None])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_encoded_images_of_which_nothing_says_what_white_is(dtype: type) -> None:
    """As 16 bits, floats in [0, 1] would become black, and large numbers would wrap around."""
    frame = np.linspace(0, 1 if dtype == np.float32 else 10**6, 20).reshape(4, 5).astype(dtype)
    Image.fromarray(frame).save(stream := BytesIO(), "tiff")
    with pytest.raises(DataError, match=r"frame 0: \w+ from 0 to .*, expected 8 or 16 bits"):
        decode_images([stream.getvalue()], 4, 5, "here")


def test_white_is_guessed_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.episodes.frames.WHOLE_BYTES", 10)
    bright = np.zeros((5, 4, 5, 3), np.uint16)
    bright[3] = 300
    read: list[tuple[int, int]] = []

    def stretch(start: int, stop: int) -> np.ndarray:
        read.append((start, stop))
        return bright[start:stop]

    images = images_of(bright.shape, stretch, bright.dtype)
    assert isinstance(images, Frames)
    assert guess_white(images) == 65535
    assert read == [(number, number + 1) for number in range(5)]
    np.testing.assert_array_equal(as_images(images, "here", 65535)[3:4], [[[[1] * 3] * 5] * 4])


def test_depth_keeps_its_type() -> None:
    depth = IMAGES[..., 0].astype(np.uint16) * 30
    decoded = decode_depth([png(frame) for frame in depth], 4, 5, "here")
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, depth[..., None])
    with pytest.raises(DataError, match="here, frame 0: has 3 channels, expected one"):
        decode_depth([png(IMAGES[0])], 4, 5, "here")
