"""Resizing of images: what shrinking, enlarging and leaving alone do to the pixels."""

import pytest
import torch

from core import resize_images


def random_images(rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, rows, columns), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_images_of_the_right_size_are_only_converted(method):
    images = random_images(32, 32)
    resized = resize_images(images, 32, method)
    assert resized.dtype == torch.float32
    assert torch.equal(resized, images.float())


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_images_of_any_shape_become_squares(method):
    assert resize_images(random_images(48, 64), 32, method).shape == (2, 3, 32, 32)
    assert resize_images(random_images(9, 20), 32, method).shape == (2, 3, 32, 32)


def test_images_are_averaged_down_rather_than_sampled():
    stripes = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    stripes[..., ::4] = 255  # from afar, one white column in four is a quarter of white
    middle = resize_images(stripes, 32)[..., 2:-2]
    torch.testing.assert_close(middle, torch.full_like(middle, 255 / 4), atol=0.1, rtol=0)


def test_bilinear_images_may_have_any_scale():
    scaled = random_images(48, 64).float() / 127.5 - 1
    resized = resize_images(scaled, 32)
    expected = resize_images(random_images(48, 64), 32) / 127.5 - 1
    torch.testing.assert_close(resized, expected, atol=1e-5, rtol=0)
    assert resized.min() < 0


def test_bicubic_images_do_not_overshoot():
    edge = torch.zeros(1, 3, 48, 64, dtype=torch.uint8)
    edge[..., 32:] = 255
    resized = resize_images(edge, 32, "bicubic")
    assert resized.min() == 0
    assert resized.max() == 255
