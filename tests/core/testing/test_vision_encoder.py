"""Contract tests of vision encoders: a sound one passes, each broken one fails its check."""

import pytest
import torch
from torch import nn

from core import TokenGroup, VisionEncoder
from tests.core.testing.failing import assert_fails, failures


class Vision(VisionEncoder):
    """One token per camera: its mean colour, projected."""

    width = 6

    def __init__(self, config, *, cameras, text_width):
        super().__init__()
        self.cameras = sorted(cameras)
        self.project = nn.Linear(3, self.width)
        self.text = nn.Linear(text_width, self.width)

    def colours(self, images):
        means = torch.stack(
            [images[name].float().mean((-1, -2)) / 255 for name in self.cameras], dim=2
        )  # (B T V C)
        return means.to(self.project.weight.dtype)

    def words(self, text):
        return (text.tokens * text.mask[..., None]).sum(1) / text.mask.sum(1, keepdim=True).to(
            text.tokens.dtype
        )

    def forward(self, images, text):
        return TokenGroup(
            self.project(self.colours(images)) + self.text(self.words(text))[:, None, None]
        )


class VisionWithDeadParameter(Vision):
    def __init__(self, config, *, cameras, text_width):
        super().__init__(config, cameras=cameras, text_width=text_width)
        self.unused = nn.Parameter(torch.zeros(3))


class VisionAcrossFrames(Vision):
    def colours(self, images):
        return (
            super()
            .colours(images)
            .mean(1, keepdim=True)
            .expand(-1, images["wrist"].shape[1], -1, -1)
        )


class VisionAcrossCameras(Vision):
    def colours(self, images):
        return super().colours(images).flip(2)


class VisionAcrossSamples(Vision):
    def colours(self, images):
        colours = super().colours(images)
        return colours - colours.mean(0)


class VisionOfAnotherWidth(Vision):
    def forward(self, images, text):
        return TokenGroup(super().forward(images, text).tokens[..., :4])


class VisionReadsPaddedText(Vision):
    def words(self, text):
        return text.tokens.mean(1)


BROKEN = [
    (VisionWithDeadParameter, {"gradients_reach_every_parameter"}),
    (VisionAcrossFrames, {"frames_are_independent"}),
    (VisionAcrossCameras, {"cameras_are_apart"}),
    (VisionAcrossSamples, {"samples_are_independent"}),
    (VisionOfAnotherWidth, {"shape_is_declared"}),
    (VisionReadsPaddedText, {"padded_text_is_not_seen"}),
]


def test_a_sound_vision_encoder_passes_every_check():
    assert not failures("vision_encoder", Vision)


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_vision_encoder_fails_the_checks_of_its_rule(build, expected):
    assert_fails("vision_encoder", build, expected)
