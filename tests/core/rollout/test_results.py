import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import DataError
from core.rollout.intervals import MeanScore, Rate
from core.rollout.results import (
    STANDARD,
    ChainResult,
    EpisodeResult,
    Evaluation,
    read_evaluation,
)


def attempt(task: str, success: bool, condition: str = STANDARD, seed: int = 0) -> EpisodeResult:
    return EpisodeResult(condition, task, seed, f"do {task}", success, 5)


EVALUATION = Evaluation(
    policy={"run": "r"},
    environment={"name": "toy"},
    protocol={"lanes": 4},
    tiers={"lift": "easy", "push": "easy", "stack": "hard", "idle": ""},
    episodes=[
        attempt("lift", False, "blank_images"),
        *(attempt("lift", seed < 3, seed=seed) for seed in range(4)),
        attempt("push", True),
        attempt("stack", False),
        attempt("idle", True),
    ],
    chains=[
        ChainResult(0, ("lift", "push", "stack"), ("a", "b", "c"), 2, 30),
        ChainResult(1, ("push", "lift", "stack"), ("a",), 0, 9, "died (SIGKILL)"),
    ],
    time={"inference_ms": 1.5},
    hints=["camera 'static': first images are black"],
)


def test_rates_are_those_of_one_condition() -> None:
    assert EVALUATION.conditions == [STANDARD, "blank_images"]
    assert EVALUATION.by_task()["lift"] == Rate(3, 4)
    assert EVALUATION.by_task("blank_images") == {"lift": Rate(0, 1)}
    assert EVALUATION.overall() == Rate(5, 7)


def test_the_mean_weighs_tasks_and_a_tier_averages_its_own() -> None:
    assert EVALUATION.mean() == pytest.approx((0.75 + 1 + 0 + 1) / 4)
    assert EVALUATION.by_tier() == {"easy": pytest.approx(0.875), "hard": 0.0}
    assert EVALUATION.attempts_by_tier() == {"easy": Rate(4, 5), "hard": Rate(0, 1)}
    assert EVALUATION.mean_of_tiers() == pytest.approx(0.875 / 2)
    assert EVALUATION.mean_of_tiers("blank_images") is None  # only one tier was attempted


def test_chains_are_counted_as_calvin_counts_them() -> None:
    assert EVALUATION.chain_length == 1.0
    assert EVALUATION.chain_rates() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], None),
        ([2], None),
        ([0, 5] * 8, (1.12, 3.88)),  # Student's
        ([0, 0, 0, 1], (0.0, 1.05)),  # no length is below zero
        ([0] * 10, (0.0, 1.39)),  # all alike: as far as Wilson's interval for 0 of 10 allows others
        ([5] * 10, (3.61, 5.0)),
        ([2] * 10, (1.44, 2.83)),
    ],
)
def test_the_mean_length_of_chains_has_an_interval(
    lengths: list[int], expected: tuple[float, float] | None
) -> None:
    chains = [ChainResult(i, ("a",) * 5, ("",) * 5, length, 9) for i, length in enumerate(lengths)]
    interval = replace(EVALUATION, chains=chains).chain_interval
    assert interval == (None if expected is None else pytest.approx(expected, abs=0.005))


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(EVALUATION.to_json()))
    assert read_evaluation(path) == EVALUATION
    summary = json.loads(path.read_text())["summary"][STANDARD]
    assert summary["tasks"]["push"]["rate"] == 1.0
    assert summary["mean_of_tiers"] == EVALUATION.mean_of_tiers()
    easy = summary["attempts_by_tier"]["easy"]
    assert (easy["successes"], easy["episodes"]) == (4, 5)
    assert tuple(easy["interval"]) == Rate(4, 5).interval


def scored(task: str, best: float | None, ended: bool = False, seed: int = 0) -> EpisodeResult:
    sums = None if best is None else 2 * best
    mean = None if best is None else best / 2
    return EpisodeResult(STANDARD, task, seed, "", False, 4, None, ended, best, mean, sums)


def test_scores_are_averaged_over_attempts_by_task_and_measure() -> None:
    episodes = [scored("push", 0.5), scored("push", 1.0, seed=1), scored("lift", None)]
    evaluation = replace(EVALUATION, episodes=[*episodes, attempt("push", True, "blank_images")])
    assert evaluation.scores("best") == {"push": MeanScore.of([0.5, 1.0])}
    assert evaluation.scores("mean") == {"push": MeanScore.of([0.25, 0.5])}
    assert evaluation.mean_score("sum") == MeanScore.of([1.0, 2.0])
    assert evaluation.mean_score("best", "blank_images") is None
    assert EVALUATION.mean_score("best") is None


def test_every_attempt_ended_for_one_reason() -> None:
    broken = replace(attempt("push", False), failure="died (SIGKILL)")
    episodes = [attempt("push", True), attempt("push", False), broken, scored("push", 1, True)]
    ends = replace(EVALUATION, episodes=episodes).ends()
    assert ends == {"success": 1, "ended": 1, "max_steps": 1, "failure": 1}


def test_scores_and_ends_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    episodes = [scored("push", 0.5), scored("push", 1.0, ended=True, seed=1)]
    evaluation = replace(EVALUATION, episodes=episodes)
    path.write_text(json.dumps(evaluation.to_json()))
    assert read_evaluation(path) == evaluation
    summary = json.loads(path.read_text())["summary"][STANDARD]
    assert summary["ends"] == {"success": 0, "ended": 1, "max_steps": 1, "failure": 0}
    expected = MeanScore.of([0.5, 1.0])
    assert summary["scores"]["best"]["tasks"]["push"] == {
        "mean": expected.mean,
        "attempts": 2,
        "interval": list(expected.interval or ()),
    }
    assert summary["scores"]["sum"]["all"]["mean"] == 1.5


def test_metrics_are_averaged_over_attempts_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    episodes = [
        replace(attempt("push", False), seed=seed, metrics={"effort": {"best": best, "sum": 1.0}})
        for seed, best in enumerate((2.0, 4.0))
    ]
    evaluation = replace(EVALUATION, episodes=[*episodes, attempt("lift", True)])
    expected = MeanScore.of([2.0, 4.0])
    assert evaluation.metrics() == {"effort": {"best": expected, "sum": MeanScore.of([1.0, 1.0])}}
    assert EVALUATION.metrics() == {}
    path.write_text(json.dumps(evaluation.to_json()))
    assert read_evaluation(path) == evaluation
    summary = json.loads(path.read_text())["summary"][STANDARD]
    assert summary["metrics"]["effort"]["best"]["mean"] == expected.mean


def test_results_of_before_there_were_scores_are_read(tmp_path: Path) -> None:
    path, plain = tmp_path / "results.json", EVALUATION.to_json()
    for episode in plain["episodes"]:
        for key in ("ended", "score_best", "score_mean", "score_sum", "metrics"):
            del episode[key]
    for summary in plain["summary"].values():
        del summary["ends"], summary["scores"], summary["metrics"]
    path.write_text(json.dumps(plain))
    assert read_evaluation(path) == EVALUATION


def test_a_missing_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(DataError, match=r"results.json: cannot read it .*evaluate the run first"):
        read_evaluation(path)
    for content in ("{", '{"format": "joinery-evaluation"}'):
        path.write_text(content)
        with pytest.raises(DataError, match=r"results.json: no evaluation") as caught:
            read_evaluation(path)
        assert "\n" not in str(caught.value)
