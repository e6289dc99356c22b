"""The FiLM encoder: its contract, and the effect of the instruction."""

from dataclasses import replace

import pytest
import torch

from core import ConfigError, TokenGroup
from core.policy.recomputation import recompute_blocks
from core.testing import Setup, checks_for
from plugins.vision.film_cnn import FiLMConfig, FiLMEncoder

SMALL = FiLMConfig(image_size=32, width=24, channels=16, keypoints=4)
CONFIGS = [
    (SMALL, Setup()),
    (replace(SMALL, keypoints=0, grid=4), Setup(cameras={"wrist": (3, 32, 32)})),
    (replace(SMALL, blocks=3, image_size=16), Setup()),
    (replace(SMALL, keypoint_sharpness=3.0), Setup()),
]
CHECKS = [
    pytest.param(
        check, id=f"{config.blocks}-{config.keypoints}-{config.keypoint_sharpness:g}-{check}"
    )
    for config, given in CONFIGS
    for check in checks_for("vision_encoder", FiLMEncoder, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


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


def test_sharp_keypoints_are_small_places_before_training():
    images, instruction = torch.rand(4, 3, 32, 32) * 2 - 1, torch.randn(4, 8)
    variance = {}
    for sharpness in (0.0, 3.0):
        torch.manual_seed(0)
        config = replace(SMALL, keypoint_sharpness=sharpness)
        encoder = FiLMEncoder(config, cameras={"a": (3, 32, 32)}, text_width=8).encoders["a"]
        moments = []
        encoder.places.register_forward_pre_hook(lambda _, given, to=moments: to.append(given[0]))
        encoder(images, instruction)
        variance[sharpness] = moments[0][:, 4:8].mean()  # of the row, of all keypoints
    assert variance[3.0] < 0.7 * variance[0.0]


def test_sharpness_without_keypoints_is_refused():
    with pytest.raises(ValueError, match="keypoint_sharpness has no effect with keypoints = 0"):
        replace(SMALL, keypoints=0, keypoint_sharpness=3.0)


def test_gradient_checkpointing_changes_no_gradient():
    cameras = {"a": (3, 32, 32), "b": (3, 32, 32)}
    images = {name: torch.randint(256, (1, 1, 3, 32, 32), dtype=torch.uint8) for name in cameras}
    text, gradients = TokenGroup(torch.randn(1, 3, 8)), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = FiLMEncoder(SMALL, cameras=cameras, text_width=8).train()
        if checkpointing:
            assert len(encoder.blocks) == len(cameras) * SMALL.blocks
            recompute_blocks(encoder, "vision_encoder")
        encoder(images, text).tokens.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)
