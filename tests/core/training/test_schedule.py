"""Schedules, at each of the small recipe's six steps, of which its warm-up takes two; stages."""

from itertools import accumulate
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, strategies as st

from core.errors import ConfigError
from core.recipe.train_section import StageConfig, TrainConfig
from core.training.schedule import (
    SCHEDULES,
    begins_stage,
    doubtful_warmup,
    schedule_factor,
    stage_at,
)


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


# ------------------------------------------------------------------------------------------- stages


def staged(lengths: list[int], rounds: int = 1, **keys: object) -> TrainConfig:
    """Training in stages of these lengths, in steps."""
    stages = tuple(StageConfig(steps, ("backbone",)) for steps in lengths)
    return TrainConfig(steps=rounds * sum(lengths), stages=stages, **keys)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 3))
def test_stages_follow_each_other_round_after_round(lengths, rounds):
    train = staged(lengths, rounds)
    numbers = [number for number, steps in enumerate(lengths) for _ in range(steps)] * rounds
    begins = [0, *accumulate(lengths * rounds)]
    assert [stage_at(done, train) for done in range(train.steps)] == [
        (number, max(begin for begin in begins if begin <= done))
        for done, number in enumerate(numbers)
    ]
    first_begins = [done for done in range(train.steps + 1) if begins_stage(done, train)]
    assert first_begins == begins[: len(lengths)]


def test_without_stages_none_begins():
    assert not begins_stage(0, TrainConfig())


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 6))
def test_a_stage_that_comes_once_has_the_schedule_of_a_run_of_its_own(lengths, warmup):
    train = staged(lengths, warmup_steps=warmup)
    apart = [TrainConfig(steps=steps, warmup_steps=warmup) for steps in lengths]
    expected = [schedule_factor(step, stage) for stage in apart for step in range(stage.steps)]
    assert [schedule_factor(step, train) for step in range(train.steps)] == expected


def test_stages_that_take_turns_share_the_schedule_of_the_run():
    turns, joint = staged([1, 2], rounds=4, warmup_steps=3), TrainConfig(steps=12, warmup_steps=3)
    assert [schedule_factor(step, turns) for step in range(12)] == [
        schedule_factor(step, joint) for step in range(12)
    ]


def test_a_warmup_longer_than_the_run_or_a_stage_is_told(load):
    assert list(doubtful_warmup(load().train)) == []
    (line,) = doubtful_warmup(load("train.warmup_steps=8").train)
    assert line.startswith("train.warmup_steps: 8 are more than the 6 of the run")
    assert "75% of its value" in line
    stages = (StageConfig(1, ("backbone",)), StageConfig(5, ("policy_head",)))
    (line,) = doubtful_warmup(TrainConfig(steps=6, warmup_steps=2, stages=stages))
    assert "of stage 0" in line
    in_turns = TrainConfig(steps=12, warmup_steps=2, stages=stages)
    assert list(doubtful_warmup(in_turns)) == []
