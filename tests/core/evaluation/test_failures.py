from core.evaluation.failures import failure_lines
from core.rollout.results import ChainResult, EpisodeResult, Evaluation


def test_a_cause_is_one_line_however_many_attempts_it_ended() -> None:
    def attempt(seed: int, failure: str | None) -> EpisodeResult:
        return EpisodeResult("standard", "open", seed, "open it", False, seed, failure)

    attempts = [attempt(1, "hung (8 s)"), attempt(2, None), attempt(3, "died"), attempt(4, "died")]
    chain = ChainResult(7, ("open",), ("open it",), 0, 2, "died")
    evaluation = Evaluation({}, {}, {}, {}, attempts, [chain], {})
    assert failure_lines(evaluation) == [
        "standard open/1, after 1 steps: hung (8 s); counted as failed",
        "standard open/3, after 3 steps, and 2 more: died; counted as failed",
    ]
    assert failure_lines(Evaluation({}, {}, {}, {}, attempts[1:2], [], {})) == []
