"""What looks wrong about a store's numbers."""

from dataclasses import replace

import numpy as np
import pytest

from core.episodes.episode import ActionConvention, Gripper
from core.episodes.plausibility import has_outliers, implausible_numbers, jittering
from core.episodes.statistics import Statistics
from tests.factories import make_info

RANDOM = np.random.default_rng(0)
NONE = Statistics.of(np.zeros((10, 0)))


def lines(action: ActionConvention, actions: np.ndarray, proprio: Statistics = NONE) -> list[str]:
    names = tuple(f"p{d}" for d in range(proprio.dim))
    info = replace(make_info(), action=action, proprio=names)
    return [*implausible_numbers(info, {"action": Statistics.of(actions), "proprio": proprio})]


def joints(scale: float = 1.0) -> ActionConvention:
    names = ("a", "b", "gripper")
    gripper = (Gripper(2, "continuous", closed=0.0, open=100.0),)
    return ActionConvention(names, "absolute", "joint", "none", (scale, scale, 1.0), 30.0, gripper)


def test_outliers_lie_more_than_five_spans_away() -> None:
    assert has_outliers(0, 0, 1, 6.1)
    assert has_outliers(-5.1, 0, 1, 1)
    assert not has_outliers(-5, 0, 1, 6)
    assert not has_outliers(0, 1, 1, 9)  # a dimension that hardly ever changes has no span


def test_sound_numbers_are_not_suspected() -> None:
    actions = np.stack([*RANDOM.uniform(-3, 3, (2, 500)), RANDOM.uniform(0, 100, 500)], axis=1)
    assert lines(joints(), actions) == []


def test_degrees_that_are_taken_for_radians() -> None:
    actions = np.stack([*RANDOM.uniform(-190, 190, (2, 500)), np.arange(500) / 5], axis=1)
    (line,) = lines(joints(), actions)
    assert line.startswith("action a, b reach up to 18")
    assert "rad, 29." in line or "rad, 30" in line
    assert "meaning.scale is 0.017453 for all angles" in line
    (line,) = lines(joints(), actions * [1, 0, 1])[1:]  # the other joint stands still
    assert line.startswith("action a reaches 18")
    assert lines(joints(scale=np.pi / 180), actions) == []


def test_millimetres_that_are_taken_for_metres() -> None:
    action = ActionConvention(("x", "y"), "absolute", "world", "none", (1.0, 1.0), 30.0)
    actions = np.stack([RANDOM.uniform(0, 600, 500), RANDOM.uniform(0, 0.6, 500)], axis=1)
    (line,) = lines(action, actions)
    assert line.startswith("action x reaches 59")
    assert "meaning.scale is 0.001 there" in line


def test_numbers_in_other_units_are_not_taken_for_metres() -> None:
    action = ActionConvention(("x", "y"), "absolute", "world", "none", (1.0, 1.0), 30.0)
    actions = RANDOM.uniform(0, 512, (500, 2))
    assert len(lines(action, actions)) == 1
    assert lines(replace(action, units=("px", "px")), actions) == []
    (line,) = lines(replace(action, units=("px", "rad")), actions)
    assert line.startswith("action y reaches 5")
    assert " rad, " in line


@pytest.mark.parametrize(
    ("closed", "opened", "is_doubted"),
    [
        (-1.0, 1.0, False),
        (1.0, -1.0, False),
        (0.0, 1.0, True),
        (0.0, 100.0, False),
        (-1.2, 1.1, False),
    ],
)
def test_a_gripper_whose_values_are_others(closed: float, opened: float, is_doubted: bool) -> None:
    """Clipped to its range, a gripper that reaches far beyond it would seem to be always open."""
    grippers = (Gripper(1, "binary", closed, opened),)
    action = ActionConvention(("x", "grip"), "delta", "base", "none", (0.1, 1.0), 10.0, grippers)
    actions = np.stack([RANDOM.uniform(-1, 1, 500), np.sign(RANDOM.normal(size=500))], axis=1)
    if opened == 100:
        actions[:, 1] = 50 + 50 * actions[:, 1]
    found = lines(action, actions)
    assert len(found) == is_doubted
    for line in found:
        assert line.startswith(
            "action grip reaches from -1 to 1, and as a gripper it is closed at 0"
        )
        assert "correct meaning.grippers" in line


@pytest.mark.parametrize(("closed", "opened", "is_doubted"), [(1, -1, True), (0, 1, False)])
def test_a_binary_gripper_that_never_passes_the_middle(
    closed: float, opened: float, is_doubted: bool
) -> None:
    grippers = (Gripper(1, "binary", closed, opened),)
    action = ActionConvention(("x", "grip"), "delta", "base", "none", (0.1, 1.0), 10.0, grippers)
    actions = np.stack([RANDOM.uniform(-1, 1, 500), RANDOM.integers(0, 2, 500)], axis=1)
    assert len(lines(action, actions)) == is_doubted


def test_what_stands_still_and_what_jitters() -> None:
    numbers = RANDOM.uniform(-1, 1, (500, 4))
    numbers[:, 1] = 0.5
    numbers[:, 2] = 7 + RANDOM.normal(0, 1e-5, 500)
    proprio = Statistics.of(numbers)
    assert jittering(proprio).tolist() == [False, False, True, False]
    constant, jitter = lines(joints(), RANDOM.uniform(-1, 1, (500, 3)), proprio)
    assert constant == "proprio p1 is 0.5 throughout"
    assert jitter.startswith("proprio p2 hardly changes: from 6.9999")


@pytest.mark.parametrize("dim", [0, 1])
def test_nothing_to_compare_with(dim: int) -> None:
    assert not jittering(Statistics.of(np.full((9, dim), 2.0))).any()
    assert not jittering(Statistics.of(np.arange(9.0 * dim).reshape(9, dim))).any()
