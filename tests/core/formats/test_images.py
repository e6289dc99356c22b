"""Images of other formats become RGB uint8, and damaged ones are named."""

import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from core.errors import DataError
from core.formats.images import as_images, decode_images, is_unit_range
from tests.damage import bounded

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)


def png(frame: np.ndarray) -> bytes:
    Image.fromarray(frame).save(stream := BytesIO(), "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("array", "unit"),
    [
        (IMAGES, False),
        (IMAGES.astype(np.int64), True),
        (IMAGES.astype(np.float32), False),
        (IMAGES.astype(np.float64) / 255, True),
    ],
)
def test_images_of_any_number_type(array: np.ndarray, unit: bool) -> None:
    np.testing.assert_array_equal(as_images(array, "here", unit=unit), IMAGES)


def test_an_encoded_image_of_another_size_is_named() -> None:
    encoded = [png(frame) for frame in IMAGES]
    np.testing.assert_array_equal(decode_images(encoded, 4, 5, "here"), IMAGES)
    with pytest.raises(
        DataError, match=r"here, frame 1: cannot be decoded \(4 x 5 pixels instead of 5 x 4"
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
        decode_images([tall], 6_000, 6_000, "here")


def test_only_floats_up_to_one_look_like_a_unit_range() -> None:
    assert is_unit_range(IMAGES / 255)
    assert not is_unit_range(IMAGES.astype(float))
    assert not is_unit_range(IMAGES // 255)
    assert not is_unit_range(np.empty((0, 4, 5, 3)))


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_values_outside_of_the_range_are_refused(value: float) -> None:
    images = np.full((1, 2, 2, 3), value)
    with pytest.raises(DataError, match=r"here: values outside \[0, 1\] are no pictures"):
        as_images(images, "here", unit=True)
