"""The check of two modes lets the distribution itself pass, and nothing else."""

import pytest
import torch

from tests.two_modes import CENTRE, CONTINUOUS, MIXED, SAMPLED_ROWS, check_two_modes, chunks

DRAWN = chunks(MIXED.action, SAMPLED_ROWS, seed=1)


@pytest.mark.parametrize("setup", [CONTINUOUS, MIXED])
def test_the_distribution_itself_passes(setup):
    check_two_modes(chunks(setup.action, SAMPLED_ROWS, seed=1), setup.action)


def torn():
    """Every step draws its mode by itself."""
    return torch.cat(
        [chunks(MIXED.action, SAMPLED_ROWS, seed)[..., :1, :] for seed in (1, 2, 3)], 2
    )


@pytest.mark.parametrize(
    ("actions", "mistake"),
    [
        (DRAWN.mean(dim=(0, 1), keepdim=True).expand_as(DRAWN), "in between"),
        (DRAWN.abs(), "100.0% lie in the upper mode"),
        (CENTRE * DRAWN.sign() * (DRAWN != 0), "spread within modes is 0.000"),
        (torn(), "in between or in the other mode"),
        (torch.where(torch.tensor([0, 1, 0]) > 0, 1 - DRAWN, DRAWN), "gripper of the other mode"),
    ],
    ids=["the mean", "one mode", "no spread", "torn apart", "grippers exchanged"],
)
def test_other_distributions_fail(actions, mistake):
    with pytest.raises(AssertionError, match=mistake):
        check_two_modes(actions, MIXED.action)
