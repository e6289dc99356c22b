"""Whether the success of evaluations differs by more than chance."""

from collections.abc import Sequence
from dataclasses import replace
from math import comb

import pytest
from hypothesis import given, settings, strategies as st

from core.report.run_differences import Pairs, describe_differences, difference_interval
from core.rollout.intervals import Rate
from core.rollout.results import STANDARD, ChainResult, EpisodeResult, Evaluation
from tests.core.report.factories import make_evaluation

EMPTY = replace(make_evaluation("run"), episodes=(), chains=())


def evaluation(
    successes: Sequence[bool],
    *,
    first_seed: int = 0,
    task: str = "lift",
    condition: str = STANDARD,
    environment: str = "toy",
) -> Evaluation:
    episodes = [
        EpisodeResult(condition, task, seed, "lift it", success, 9)
        for seed, success in enumerate(successes, first_seed)
    ]
    return replace(EMPTY, episodes=episodes, environment={"name": environment})


def compare(*evaluations: Evaluation | None) -> list[str]:
    return describe_differences("abcdefgh"[: len(evaluations)], evaluations)


def test_equal_attempts_are_compared_in_pairs():
    (line,) = compare(
        evaluation([0, 0, 0, 0, 0, 0, 1, 1, 0]), evaluation([1, 1, 1, 1, 1, 1, 1, 0, 0])
    )
    assert line.startswith(
        "b and a made 9 equal attempts, of the same task, seed and instruction: b alone succeeded "
        "in 6, a alone in 1. That is 55.6 percentage points more (95% interval "
    )
    assert line.endswith("by McNemar's exact test p = 0.125, which may be chance.")


def test_many_unequal_pairs_are_more_than_chance():
    (line,) = compare(evaluation([True] * 30), evaluation([False] * 30))
    assert "100 percentage points less" in line
    assert line.endswith("p = 1.9e-09, more than chance.")


@given(alone=st.integers(0, 30), other=st.integers(0, 30), rest=st.integers(0, 30))
@settings(deadline=None)
def test_mcnemars_exact_test_is_that_of_a_fair_coin(alone, other, rest):
    unequal, fewer = alone + other, min(alone, other)
    tail = sum(comb(unequal, k) for k in range(fewer + 1)) / 2**unequal
    pairs = Pairs(rest, alone, other, 1)
    assert pairs.p_value == pytest.approx(min(1.0, 2 * tail))
    low, high = pairs.interval
    assert -1 <= low <= (other - alone) / pairs.count <= high <= 1


def test_intervals_are_those_that_newcombe_publishes():
    # 56 of 70 and 48 of 80, method 10 of his paper on independent proportions
    assert difference_interval(Rate(48, 80), Rate(56, 70)) == pytest.approx(
        (0.0524, 0.3339), abs=1e-4
    )
    # all pairs alike: the correlation leaves nothing of the difference but its own width
    low, high = Pairs(50, 0, 0, 50).interval
    assert -0.03 < low < 0 < high < 0.03


def test_attempts_of_other_seeds_are_compared_unpaired():
    (line,) = compare(evaluation([True] * 8), evaluation([True] * 6 + [False] * 2, first_seed=100))
    assert line.startswith(
        "b succeeded in 6 of 8 attempts and a in 8 of 8; none of them equal in task, seed and "
        "instruction. Unpaired, that is 25 percentage points less (95% interval -59.1 to "
    )
    assert line.endswith("which may be chance.")


def test_a_part_of_equal_attempts_is_compared_both_ways():
    paired, unpaired = compare(evaluation([True] * 8), evaluation([True] * 8, first_seed=6))
    assert "made 2 equal attempts" in paired
    assert "only 2 of them equal" in unpaired


def test_attempts_in_another_environment_are_no_pairs():
    (line,) = compare(evaluation([True] * 3), evaluation([True] * 3, environment="calvin"))
    assert "none of them equal" in line


def test_scenes_that_a_seed_does_not_repeat_are_no_pairs():
    successes = evaluation([True] * 3)
    unlike = {"name": "toy", "same_scene_twice": "no: camera front, 9 of 255"}
    drifting = replace(
        successes,
        environment=unlike,
        chains=[ChainResult(seed, ("a",), ("",), 1, 9) for seed in range(3)],
    )
    (line,) = compare(drifting, drifting)
    assert "none of them equal in scene: a seed shows another each time" in line
    for words in ("yes", "nearly: image 'front' differs by up to 1", "not tried"):
        alike = replace(successes, environment={"name": "toy", "same_scene_twice": words})
        assert "made 3 equal attempts" in compare(successes, alike)[0]


def test_only_common_tasks_are_compared():
    both = evaluation([True, False])
    push = evaluation([True] * 9, task="push")
    first = replace(both, episodes=[*both.episodes, *push.episodes])
    paired, *unpaired = compare(first, both)
    assert "made 2 equal attempts" in paired
    assert unpaired == []
    assert compare(push, both) == ["b and a attempted no task in common."]
    later = evaluation([True], first_seed=50)
    assert "in 1 of 2, at the 1 task that both attempted;" in compare(first, later)[0]


def test_each_run_is_compared_with_the_first_that_was_evaluated():
    control = evaluation([True], condition="blank_images")
    lines = compare(
        None, evaluation([True]), evaluation([True]), None, evaluation([False]), control
    )
    assert [line.split(" made")[0] for line in lines] == ["c and b", "e and b"]
    assert compare(evaluation([True]), None) == []


def test_equal_chains_are_compared_by_their_lengths():
    def chains(lengths: Sequence[int], first_seed: int = 0) -> Evaluation:
        done = [
            ChainResult(seed, ("a",) * 5, ("",), length, 9)
            for seed, length in enumerate(lengths, first_seed)
        ]
        return replace(EMPTY, chains=done)

    (line,) = compare(chains([0, 1, 2, 3]), chains([1, 2, 4, 4]))
    assert line.startswith("In 4 equal chains, b did 1.25 tasks more in a row than a (95% interval")
    assert line.endswith("0.45 to 2.05), more than chance.")
    assert compare(chains([0, 1]), chains([0, 1], first_seed=9)) == []
    # two chains that are longer by one each are no evidence, although nothing varies
    assert compare(chains([0, 1]), chains([1, 2]))[0].endswith("which may be chance.")
    assert compare(chains([0] * 30), chains([3] * 30))[0].endswith("more than chance.")
