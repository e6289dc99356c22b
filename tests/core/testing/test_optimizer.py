"""Contract tests of optimisers: a sound one passes, each broken one fails its checks."""

import pytest
import torch

from tests.core.testing.failing import assert_fails, failures
from tests.lion import Lion, LionConfig


class Sound(Lion):
    """Lion; `build` is called with a config of None here."""

    def __init__(self, config, *, groups):
        super().__init__(LionConfig(), groups=groups)


class OfTheFirstGroup(Sound):
    def __init__(self, config, *, groups):
        super().__init__(config, groups=groups[:1])


class OfGroupsOfItsOwn(torch.optim.SGD):
    def __init__(self, config, *, groups):
        super().__init__([parameter for group in groups for parameter in group["params"]], lr=0.1)


class AsksForMore(Sound):
    def __init__(self, config, *, groups, momentum):
        super().__init__(config, groups=groups)


class GoesUp(Sound):
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.neg_()
        super().step()


class KeepsItsRate(Sound):
    """Reads the learning rate when it is built."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = group["full_lr"]
        super().step()


class NeedsGradients(Sound):
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.abs()
        super().step()


class CountsInNumbers(Sound):
    """Counts its steps as a Python number, and steps less and less."""

    def step(self, closure=None):
        super().step()
        for entries in self.state.values():
            entries["count"] = entries.get("count", 0) + 1


class CountsInSecret(Sound):
    count = 0

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            group["lr"] /= self.count
        super().step()


BROKEN = [
    (GoesUp, {"loss_falls"}),
    (KeepsItsRate, {"learning_rate_is_read_at_every_step"}),
    (NeedsGradients, {"parameters_without_gradient_stay"}),
    (CountsInNumbers, {"state_is_tensors"}),
    (CountsInSecret, {"resumed_training_is_the_same"}),
]
# What it keeps cannot be copied as a tensor, either.
FAIL_OTHERS_TOO = {CountsInNumbers}


def test_a_sound_optimizer_passes_every_check():
    assert not failures("optimizer", Sound)


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_optimizer_fails_the_checks_of_its_rule(build, expected):
    assert_fails("optimizer", build, expected, others_too=build in FAIL_OTHERS_TOO)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (OfTheFirstGroup, "received it does not hold each parameter once"),
        (OfGroupsOfItsOwn, "received its groups lack the keys of the groups that it was given"),
        (AsksForMore, "build: expected no other arguments than config, groups, betas, received"),
    ],
)
def test_an_optimizer_that_does_not_fit_fails_one_check_that_says_why(build, message):
    errors = failures("optimizer", build)
    assert list(errors) == ["holds_each_parameter_once"]
    assert message in str(errors["holds_each_parameter_once"])
