"""The benchmark of whole recipes: the record of several seeds, and what the time went into."""

import pytest

from core.rollout.intervals import Rate
from tests.benchmarks.speedrun import (
    Trial,
    duration,
    loop_times,
    record_table,
    shares_of_time,
    summarise,
)
from tests.benchmarks.step_profile import WAITING, StepProfile


def trial(seed: int, training: float, successes: int) -> Trial:
    return Trial(
        seed=seed,
        recording=70,
        training=training,
        evaluation=30,
        loop=training - 20,
        waiting=10,
        success=Rate(successes, 108),
    )


def test_the_record_is_the_median_time_and_the_lowest_success() -> None:
    record = summarise([trial(7, 300, 107), trial(8, 500, 108), trial(9, 400, 103)], 0.95)
    assert record.trial.seed == 9
    assert record.trial.total == 500
    assert record.success == Rate(103, 108)
    assert record.seeds == (7, 8, 9)
    assert record.passes
    assert not summarise([trial(7, 300, 102), trial(8, 500, 108)], 0.95).passes


def test_of_two_seeds_the_slower_one_is_the_record() -> None:
    assert summarise([trial(7, 300, 107), trial(8, 500, 108)], 0.95).trial.seed == 8


def test_the_row_of_the_record_names_phases_success_and_seeds() -> None:
    row = record_table("small.toml", summarise([trial(7, 300, 107)], 0.95)).splitlines()[-1]
    assert "| small.toml | - | 1 min 10 s | 5 min 0 s | 30 s | 6 min 40 s |" in row
    assert "| 107 of 108 (94.9% to 99.8%) | 7 |" in row


@pytest.mark.parametrize("profiled", [True, False])
def test_what_the_time_went_into_adds_up_to_the_total(profiled: bool) -> None:
    groups = {"matrix products": 6.0, "optimiser": 2.0}
    step = StepProfile(step=9, profiled=10, waiting=1, groups=groups, operators={})
    times = shares_of_time(trial(7, 300, 107), step if profiled else None)
    assert sum(times.values()) == pytest.approx(400)
    assert times[f"training: {WAITING}"] == 10
    if profiled:
        assert times["training: matrix products"] == pytest.approx(270 * 6 / 9)


def test_the_loop_ends_at_the_last_entry_with_timings() -> None:
    timings = [
        {"step": 10, "time/samples_per_second": 64.0, "time/data_wait": 0.5},
        {"step": 20, "time/samples_per_second": 128.0, "time/data_wait": 0.25},
        {"step": 20, "validation/error": 0.1},
    ]
    assert loop_times(timings, batch_size=64) == (10, 2.5)


def test_durations_are_minutes_and_seconds() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 544)] == ["0 s", "1 min 0 s", "9 min 4 s"]
