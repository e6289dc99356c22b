"""Whether the success of evaluations differs by more than chance."""

from collections.abc import Sequence
from dataclasses import replace

from core.report.run_differences import Difference, DifferenceTable, difference_table
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


def compare(*evaluations: Evaluation | None) -> DifferenceTable | None:
    return difference_table("abcdefgh"[: len(evaluations)], evaluations)


def single_tasks(*evaluations: Evaluation) -> list[Difference]:
    return list(compare(*evaluations).groups["single tasks"])


def test_equal_attempts_are_compared_in_pairs():
    (row,) = single_tasks(
        evaluation([0, 0, 0, 0, 0, 0, 1, 1, 0]), evaluation([1, 1, 1, 1, 1, 1, 1, 0, 0])
    )
    assert (row.number, row.name, row.compared, row.detail) == (2, "b", "9 pairs", "6 won, 1 lost")
    assert (row.first, row.of_first) == ("22.2%", "2 of 9")
    assert (row.result, row.of_result) == ("77.8%", "7 of 9")
    assert (row.difference, row.p, row.verdict) == ("+55.6 points", "0.125", "may be chance")


def test_many_unequal_pairs_are_more_than_chance():
    good, bad = evaluation([True] * 30), evaluation([False] * 30)
    (row,) = single_tasks(good, bad)
    assert (row.difference, row.p, row.verdict) == ("-100 points", "1.9e-09", "worse")
    (row,) = single_tasks(bad, good)
    assert (row.difference, row.verdict) == ("+100 points", "better")
    (row,) = single_tasks(good, good)
    assert (row.difference, row.p, row.verdict) == ("0 points", "1.000", "may be chance")


def test_attempts_of_other_seeds_are_compared_unpaired():
    (row,) = single_tasks(
        evaluation([True] * 8), evaluation([True] * 6 + [False] * 2, first_seed=100)
    )
    assert (row.of_result, row.of_first) == ("6 of 8", "8 of 8")
    assert (row.compared, row.p) == ("unpaired", "")
    assert row.detail == "none equal in task, seed and instruction"
    assert row.difference == "-25 points"
    assert row.interval.startswith("-59.1 to ")
    assert row.verdict == "may be chance"


def test_a_part_of_equal_attempts_is_compared_both_ways():
    paired, unpaired = single_tasks(evaluation([True] * 8), evaluation([True] * 8, first_seed=6))
    assert paired.compared == "2 pairs"
    assert unpaired.detail.startswith("only 2 equal")


def test_attempts_in_another_environment_are_no_pairs():
    (row,) = single_tasks(evaluation([True] * 3), evaluation([True] * 3, environment="calvin"))
    assert row.compared == "unpaired"


def test_scenes_that_a_seed_does_not_repeat_are_no_pairs():
    successes = evaluation([True] * 3)
    unlike = {"name": "toy", "same_scene_twice": "no: camera front, 9 of 255"}
    drifting = replace(
        successes,
        environment=unlike,
        chains=[ChainResult(seed, ("a",), ("",), 1, 9) for seed in range(3)],
    )
    table = compare(drifting, drifting)
    assert list(table.groups) == ["single tasks"]
    assert table.groups["single tasks"][0].detail == "a seed shows another scene each time"
    for words in ("yes", "nearly: image 'front' differs by up to 1", "not tried"):
        alike = replace(successes, environment={"name": "toy", "same_scene_twice": words})
        assert single_tasks(successes, alike)[0].compared == "3 pairs"


def test_only_common_tasks_are_compared():
    both = evaluation([True, False])
    push = evaluation([True] * 9, task="push")
    first = replace(both, episodes=[*both.episodes, *push.episodes])
    (paired,) = single_tasks(first, both)
    assert paired.compared == "2 pairs"
    table = compare(push, both)
    assert (table.first, table.apart, table.groups) == ("a", ["b"], {})
    (row,) = single_tasks(first, evaluation([True], first_seed=50))
    assert row.of_first == "1 of 2"
    assert row.detail.endswith("; at the 1 task that both attempted")


def test_each_run_is_compared_with_the_first_that_was_evaluated():
    control = evaluation([True], condition="blank_images")
    table = compare(
        None, evaluation([True]), evaluation([True]), None, evaluation([False]), control
    )
    assert (table.number, table.first) == (2, "b")
    rows = table.groups["single tasks"]
    assert [(row.number, row.name) for row in rows] == [(3, "c"), (5, "e")]
    assert compare(evaluation([True]), None) is None
    assert compare(evaluation([True]), control) is None


def test_equal_chains_are_compared_by_their_lengths():
    def chains(lengths: Sequence[int], first_seed: int = 0) -> Evaluation:
        done = [
            ChainResult(seed, ("a",) * 5, ("",), length, 9)
            for seed, length in enumerate(lengths, first_seed)
        ]
        return replace(EMPTY, chains=done)

    def verdict(one: Sequence[int], other: Sequence[int]) -> str:
        (row,) = compare(chains(one), chains(other)).groups["chains"]
        return row.verdict

    (row,) = compare(chains([0, 1, 2, 3]), chains([1, 2, 4, 4])).groups["chains"]
    assert (row.first, row.result, row.difference) == ("1.50 tasks", "2.75 tasks", "+1.25 tasks")
    assert (row.compared, row.detail) == ("4 pairs", "4 longer, 0 shorter")
    assert (row.interval, row.verdict) == ("0.45 to 2.05", "better")
    assert compare(chains([0, 1]), chains([0, 1], first_seed=9)) is None
    # two chains that are longer by one each are no evidence, although nothing varies
    assert verdict([0, 1], [1, 2]) == "may be chance"
    assert verdict([0] * 30, [3] * 30) == "better"
    assert verdict([3] * 30, [0] * 30) == "worse"
