"""Schedules, at each of the small recipe's six steps; its warm-up takes two."""

from typing import get_args, get_type_hints

import pytest

from core.errors import ConfigError
from core.recipe.sections import TrainConfig
from core.training.schedule import SCHEDULES, schedule_factor


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466]),
        ("rsqrt", [0.5, 1.0, 1.0, (2 / 3) ** 0.5, (2 / 4) ** 0.5, (2 / 5) ** 0.5]),
    ],
)
def test_schedules(load, schedule, expected):
    train = load(f"train.schedule={schedule}").train
    assert [schedule_factor(step, train) for step in range(6)] == pytest.approx(expected)


def test_a_recipe_can_name_every_schedule():
    assert SCHEDULES.keys() == set(get_args(get_type_hints(TrainConfig)["schedule"]))


def test_the_rate_may_fall_late(load):
    train = load("train.schedule=linear", "train.decay=0.5").train
    assert [schedule_factor(step, train) for step in range(6)] == pytest.approx(
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.5]
    )
    with pytest.raises(ConfigError, match="decay has no effect"):
        load("train.schedule=constant", "train.decay=0.5")


def test_the_inverse_square_root_may_begin_late_and_needs_no_warm_up():
    late = TrainConfig(steps=100, warmup_steps=10, schedule="rsqrt", decay=0.5)
    assert schedule_factor(55, late) == 1.0
    assert schedule_factor(100, late) == pytest.approx((10 / (10 + 45)) ** 0.5)
    without = TrainConfig(steps=100, warmup_steps=0, schedule="rsqrt")
    assert schedule_factor(0, without) == 1.0
    assert schedule_factor(99, without) == pytest.approx(0.1)
