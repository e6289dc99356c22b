from core.evaluation.failures import failure_lines, first_step_warnings
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


def test_a_task_that_is_always_done_after_its_first_step_is_named() -> None:
    def attempts(task: str, *steps: int, success: bool = True) -> list[EpisodeResult]:
        return [
            EpisodeResult("standard", task, seed, task, success, count)
            for seed, count in enumerate(steps)
        ]

    results = [
        *attempts("at once", 1, 1, 1),
        *attempts("in turn", 1, 2),
        *attempts("seldom", 1, 1),
        *attempts("seldom", 1, success=False),
        *attempts("once", 1),
        *attempts("bandit", 1, 1),
    ]
    allowed = {task: 1 if task == "bandit" else 9 for task in {e.task for e in results}}
    evaluation = Evaluation({}, {}, {"max_steps": allowed}, {}, results, [], {})
    assert first_step_warnings(evaluation) == [
        "warning: task 'at once': all 3 attempts were done after their first step; see that the "
        "environment's `step` and `is_done` mean this task"
    ]
