"""What is checked of every kind of part: a sound one passes, each broken one fails its check."""

import pytest
import torch
from torch import Tensor, nn

from core import TokenGroup, VisionEncoder
from core.testing.every_part import PartUnderTest, checks_of
from tests.core.testing.failing import failures
from tests.core.testing.test_vision_encoder import Vision


def part_under_test(build) -> PartUnderTest:
    def run(part, dtype) -> Tensor:
        return part(torch.ones(2, 3, dtype=dtype))

    return PartUnderTest(nn.Module, build, None, {}, run)


class VisionOfOneCamera(Vision):
    def __init__(self, config, *, cameras, text_width):
        super().__init__(config, cameras={"wrist": cameras["wrong"]}, text_width=text_width)


class VisionAsksForMore(Vision):
    def __init__(self, config, *, cameras, text_width, resolution):
        super().__init__(config, cameras=cameras, text_width=text_width)


class VisionOfAnArray(Vision):
    def forward(self, images, text):
        return super().forward(images, text).tokens


class VisionWithoutWidth(VisionEncoder):
    def __init__(self, config):
        super().__init__()

    def forward(self, images, text):
        return TokenGroup(torch.zeros(*images["wrist"].shape[:2], 1, 6))


class NoVisionAtAll(nn.Module):
    def __init__(self, config):
        super().__init__()


class VisionCountsInSecret(Vision):
    """Centres colours by a running mean that no checkpoint holds."""

    persistent = False

    def __init__(self, config, *, cameras, text_width):
        super().__init__(config, cameras=cameras, text_width=text_width)
        self.register_buffer("mean", torch.zeros(3), persistent=self.persistent)

    def colours(self, images):
        colours = super().colours(images)
        if self.training:
            self.mean.lerp_(colours.detach().mean((0, 1, 2)), 0.1)
        return colours - self.mean


class VisionCounts(VisionCountsInSecret):
    persistent = True


class Backwards(torch.autograd.Function):
    """Reverses the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class VisionLearnsBackwards(Vision):
    def forward(self, images, text):
        group = super().forward(images, text)
        return TokenGroup(Backwards.apply(group.tokens), group.mask)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (VisionOfOneCamera, "build: expected a VisionEncoder, received KeyError: 'wrong'"),
        (
            VisionAsksForMore,
            "build: expected no other arguments than config, cameras, text_width, features, "
            "received resolution",
        ),
        (NoVisionAtAll, "build: expected a VisionEncoder, received a NoVisionAtAll"),
        (
            VisionWithoutWidth,
            "attributes of the VisionEncoder: expected self.width, self.cameras, received none",
        ),
        (VisionOfAnArray, "output: expected a TokenGroup, received Tensor"),
    ],
)
def test_a_part_that_cannot_run_fails_one_check_that_says_why(build, message):
    errors = failures("vision_encoder", build)
    assert list(errors) == ["builds_and_runs"]
    assert str(errors["builds_and_runs"]) == message


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (VisionCountsInSecret, {"state_dict_round_trip"}),
        (VisionLearnsBackwards, {"loss_falls_in_training"}),
        (VisionCounts, set()),
    ],
)
def test_a_part_that_trains_badly_fails_the_check_that_trains_it(build, expected):
    assert set(failures("vision_encoder", build)) == expected


def test_a_part_without_trainable_weights_is_not_trained():
    part = part_under_test(lambda config: nn.Linear(3, 3).requires_grad_(False))
    for check in checks_of(part, []):
        check()


def test_each_test_gets_a_part_of_its_own_in_evaluation_mode():
    received = []

    def remember(part, argument):
        received.append((part, argument))

    part = part_under_test(lambda config: nn.Dropout(0.5))
    checks = checks_of(part, [remember, remember], "argument")
    assert [check.name for check in checks[:3]] == ["builds_and_runs", "remember", "remember"]
    assert len(checks) == 3 + 6
    checks[1]()
    checks[2]()
    (first, argument), (second, _) = received
    assert argument == "argument"
    assert first is not second
    assert not first.training


def test_a_seed_builds_the_same_part_every_time():
    part = part_under_test(lambda config: nn.Linear(3, 3))
    first, again, other = part.build(0).weight, part.build(0).weight, part.build(1).weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
