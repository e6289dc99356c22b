"""The FiLM encoder: its contract, keypoints against numpy, and the effect of the instruction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core import ConfigError, TokenGroup
from core.testing import Setup, checks_for
from plugins.vision.film_cnn import FiLMConfig, FiLMEncoder, expected_places

SMALL = FiLMConfig(image_size=32, width=24, channels=16, keypoints=4)
CONFIGS = [
    (SMALL, Setup()),
    (replace(SMALL, keypoints=0, grid=4), Setup(cameras={"wrist": (3, 32, 32)})),
    (replace(SMALL, blocks=3, image_size=16), Setup()),
]
CHECKS = [
    pytest.param(check, id=f"{config.blocks}-{config.keypoints}-{check}")
    for config, given in CONFIGS
    for check in checks_for("vision_encoder", FiLMEncoder, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def test_expected_places_against_numpy():
    logits = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    weights = np.exp(logits.numpy())
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    y, x = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 7), indexing="ij")
    mean_y, mean_x = (weights * y).sum((2, 3)), (weights * x).sum((2, 3))
    var_y = (weights * (y - mean_y[..., None, None]) ** 2).sum((2, 3))
    var_x = (weights * (x - mean_x[..., None, None]) ** 2).sum((2, 3))
    expected = np.concatenate([mean_y, var_y, mean_x, var_x], axis=1)
    np.testing.assert_allclose(expected_places(logits), expected, atol=1e-12)


def test_a_peak_is_found_where_it_is():
    logits = torch.zeros(1, 1, 9, 9)
    logits[0, 0, 2, 6] = 50.0
    y, var_y, x, var_x = expected_places(logits)[0].tolist()
    assert (y, x) == pytest.approx((-0.5, 0.5), abs=1e-4)
    assert (var_y, var_x) == pytest.approx((0, 0), abs=1e-4)


def test_the_instruction_changes_every_cameras_tokens():
    torch.manual_seed(0)
    encoder = FiLMEncoder(SMALL, cameras={"a": (3, 32, 32), "b": (3, 32, 32)}, text_width=8).eval()
    images = {name: torch.randint(256, (1, 1, 3, 32, 32), dtype=torch.uint8) for name in "ab"}
    one, other = (encoder(images, TokenGroup(torch.randn(1, 3, 8))).tokens[0, 0] for _ in range(2))
    assert one.shape == (2 * 5, 24)
    assert ((one - other).abs().amax(dim=1) > 1e-4).all()


def test_images_of_any_size_are_resized():
    encoder = FiLMEncoder(SMALL, cameras={"a": (3, 48, 64)}, text_width=8)
    images = {"a": torch.randint(256, (2, 3, 3, 48, 64), dtype=torch.uint8)}
    assert encoder(images, TokenGroup(torch.randn(2, 3, 8))).tokens.shape == (2, 3, 5, 24)


def test_refuses_what_it_cannot_cut():
    with pytest.raises(ValueError, match="image_size = 30 is no multiple"):
        FiLMConfig(image_size=30)
    for camera in ("a.b", "keys"):
        with pytest.raises(
            ConfigError, match=f"weights after cameras, and cannot after \\['{camera}'\\]"
        ):
            FiLMEncoder(SMALL, cameras={camera: (3, 32, 32)}, text_width=8)
