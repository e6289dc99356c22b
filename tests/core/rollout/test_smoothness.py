from dataclasses import replace

import numpy as np
import pytest

from core.episodes.normalization import Affine, Normalizer
from core.rollout.smoothness import jerk
from tests.factories import make_info

DELTA = make_info().action  # three dimensions that move, and a gripper
ABSOLUTE = replace(DELTA, mode="absolute")
PLAIN = Normalizer("none", Affine((0.0,) * 4, (1.0,) * 4))
STEPS = np.arange(40)


def positions(*columns: np.ndarray) -> np.ndarray:
    """Targets of three dimensions, and a gripper that flickers."""
    return np.stack([*columns, np.where(STEPS % 2, 1.0, -1.0)], axis=1)


def test_constant_acceleration_has_no_jerk() -> None:
    targets = positions(0.5 * STEPS**2, 3.0 * STEPS, np.ones(40))
    assert jerk(targets, ABSOLUTE, PLAIN) == pytest.approx(0, abs=1e-9)


def test_a_sine_has_the_jerk_of_its_third_derivative() -> None:
    frequency = 0.01
    targets = positions(*3 * [np.sin(frequency * STEPS)])
    middle = frequency * (STEPS[:-3] + 1.5)  # where the third difference lies
    expected = np.sqrt(np.mean((frequency**3 * np.cos(middle)) ** 2))
    assert jerk(targets, ABSOLUTE, PLAIN) == pytest.approx(expected, rel=1e-3)


def test_movements_have_the_jerk_of_the_positions_to_which_they_lead() -> None:
    targets = np.random.default_rng(0).normal(size=(40, 4))
    movements = np.diff(targets, axis=0)
    assert jerk(movements, DELTA, PLAIN) == pytest.approx(jerk(targets, ABSOLUTE, PLAIN))


def test_the_units_of_the_data_do_not_matter() -> None:
    targets = np.random.default_rng(0).normal(size=(40, 4))
    millimetres = Normalizer("none", Affine((7.0, 0.0, -3.0, 0.0), (1e-3,) * 4))
    assert jerk(1e3 * targets, ABSOLUTE, millimetres) == pytest.approx(
        jerk(targets, ABSOLUTE, PLAIN), rel=1e-6
    )


def test_too_few_actions_tell_nothing() -> None:
    targets = np.zeros((4, 4))
    assert jerk(targets, ABSOLUTE, PLAIN) == 0
    assert jerk(targets[:3], ABSOLUTE, PLAIN) is None
    assert jerk(targets[:3], DELTA, PLAIN) == 0
    assert jerk(targets[:2], DELTA, PLAIN) is None
