from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from core.environments.environment import EVALUATION_SEEDS
from core.environments.workers import EnvironmentSpec, open_workers
from core.rollout.attempt import Ended, begin
from core.rollout.plan import BLANK, SWAPPED, Attempt, Chain, Planned, planned_as
from core.rollout.queue import Queue
from core.rollout.results import STANDARD, Timing
from core.rollout.rows import roll_out
from tests.toy_environment import CHAIN, LONGEST, Fault, ToyConfig, ToyEnvironment, toy_tasks
from tests.toy_policy import Seer

ROWS = 4
PATIENCE, IMPATIENCE = 60.0, 5.0  # seconds: longer than any machine needs, and what a hang is given
FIRST = EVALUATION_SEEDS


def attempts(count: int, condition: str = STANDARD) -> list[Attempt]:
    """So many attempts at each task."""
    return [
        Attempt(condition, task.name, seed, task.instruction("evaluation", seed))
        for seed in range(FIRST, FIRST + count)
        for task in toy_tasks().values()
    ]


ATTEMPTS = attempts(2)
MIXED = [*attempts(4), *attempts(1, BLANK), *(Chain(FIRST + i) for i in range(3))]


@dataclass
class Outcome:
    """What came of a plan: results in its order, and in the order in which they ended."""

    results: list
    ended: list[Ended]
    timings: list[Timing]

    @property
    def trials(self) -> list:
        """What was recorded of each attempt, in the plan's order."""
        trial_of = {planned_as(ended.result): ended.trial for ended in self.ended}
        return [trial_of[planned_as(result)] for result in self.results]

    def busy(self, rows: int) -> float:
        """Share of the policy's rows that did work."""
        steps = sum(len(timing.inference_ms) for timing in self.timings)
        return sum(timing.busy_rows for timing in self.timings) / (rows * steps)


def roll_out_all(
    seer: Seer,
    plan: Sequence[Planned] = ATTEMPTS,
    *faults: Fault,
    rows: int = ROWS,
    execute: int = 1,
    records: Callable[[Attempt], bool] = lambda _: False,
    timeout: float = PATIENCE,
    cameras=1,
) -> Outcome:
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig(cameras, faults))
    with open_workers(spec, min(rows, len(plan)), timeout) as workers:
        start = partial(begin, tasks=toy_tasks(), execute=execute, records=records, visual=())
        pairs = list(roll_out(seer, workers, rows, Queue(plan, toy_tasks()), start))
    results = {planned_as(ended.result): ended.result for ended, _ in pairs}
    assert len(results) == len(pairs) == len(plan)
    return Outcome(
        [results[planned] for planned in plan], [e for e, _ in pairs], [t for _, t in pairs]
    )


# ---------------------------------------------------------------------------------------- refilling


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_results_do_not_depend_on_the_number_of_rows(seer, rows):
    """Nor on the row and the order: what a policy draws at random belongs to the attempt."""
    random = Seer(noise=0.4)
    results = roll_out_all(random, MIXED, rows=rows).results
    assert results == roll_out_all(Seer(noise=0.4), MIXED, rows=3).results
    assert results != roll_out_all(seer, MIXED).results  # chance has a part in it
    assert set(random.batches) == {rows}


def test_nearly_all_rows_work(seer):
    plan = [*attempts(200), *attempts(20, BLANK)]
    outcome = roll_out_all(seer, plan, rows=16)
    steps = sum(result.steps for result in outcome.results)
    assert sum(timing.busy_rows for timing in outcome.timings) == steps
    assert outcome.busy(16) == steps / (16 * len(seer.batches)) >= 0.95


def test_every_attempt_is_made_once(seer):
    outcome = roll_out_all(seer, MIXED)
    assert Counter(planned_as(ended.result) for ended in outcome.ended) == Counter(MIXED)


def test_rows_are_reset_exactly_when_an_attempt_or_a_task_of_a_chain_begins(seer):
    outcome = roll_out_all(seer, MIXED)
    seeds = [seed for _, reset in seer.resets for seed in reset.values()]
    single = [attempt.policy_seed for attempt in MIXED if isinstance(attempt, Attempt)]
    legs = [
        Chain(c.seed).policy_seed(leg, task)
        for c in outcome.results[-3:]
        for leg, task in enumerate(c.tasks)
    ]
    assert Counter(seeds) == Counter(single + legs)
    last: dict[int, tuple[int, int]] = {}
    lengths: dict[int, list[int]] = {}
    for step, reset in [*seer.resets, (len(seer.batches), dict.fromkeys(range(ROWS), -1))]:
        for row, seed in reset.items():
            if row in last:
                lengths.setdefault(last[row][1], []).append(step - last[row][0])
            last[row] = (step, seed)
    for attempt, result in zip(MIXED, outcome.results, strict=True):
        if (
            isinstance(attempt, Attempt) and attempt.condition == BLANK
        ):  # a row's next begins as it ends
            assert result.steps == LONGEST in lengths[attempt.policy_seed]


def test_a_row_that_is_free_begins_the_next_attempt_before_the_next_step(seer):
    """With one row, no step of the policy is without an attempt, whether attempts end or
    environments fail.
    """
    outcome = roll_out_all(seer, MIXED, Fault("crash", seed=FIRST + 1), rows=1)
    lost = sum(
        result.failure is not None for result in outcome.results
    )  # the step in which each environment died
    assert len(seer.batches) == sum(result.steps for result in outcome.results) + lost
    assert (lost, outcome.busy(1)) == (3, 1)


def test_which_attempt_goes_into_which_row_is_repeated(seer):
    outcome, again = roll_out_all(seer, MIXED), Seer()
    repeated = roll_out_all(again, MIXED)
    assert seer.resets == again.resets
    assert [ended.result for ended in outcome.ended] == [ended.result for ended in repeated.ended]


# ----------------------------------------------------------------------------------------- attempts


def test_a_policy_that_sees_does_every_task(seer):
    episodes = roll_out_all(seer).results
    assert [(e.task, e.seed) for e in episodes] == [(a.task, a.seed) for a in ATTEMPTS]
    assert all(
        episode.success and 0 < episode.steps < LONGEST and episode.failure is None
        for episode in episodes
    )


def test_the_batch_is_constant_with_fewer_attempts_than_rows(seer):
    episodes = roll_out_all(seer, ATTEMPTS[:3]).results
    assert set(seer.batches) == {ROWS}
    assert len(seer.batches) == max(episode.steps for episode in episodes)


def test_two_actions_of_a_chunk_are_executed_before_the_next_look(seer):
    episodes = roll_out_all(seer, execute=2).results
    assert all(episode.success for episode in episodes)
    assert len(seer.batches) == max(-(-episode.steps // 2) for episode in episodes)


def test_an_attempt_ends_at_its_last_step(seer):
    """Told of the other disc, the policy waits there until the time is up: at exactly that step,
    also with chunks.
    """
    plan = [Attempt(STANDARD, "reach_red", FIRST, "touch the blue disc")]
    assert [(e.success, e.steps) for e in roll_out_all(seer, plan, execute=2).results] == [
        (False, LONGEST)
    ]


def test_blank_images_are_all_black_and_nothing_else_changes(seer):
    plan = [*attempts(1, BLANK), *ATTEMPTS[2:]]
    outcome = roll_out_all(seer, plan, records=lambda _: True)
    assert [episode.success for episode in outcome.results] == [False, False, True, True]
    assert all(not trial.observation.images["front"].any() for trial in outcome.trials[:2])
    assert all(trial.observation.proprio.any() for trial in outcome.trials)


def test_swapped_words_are_judged_on_the_original_task(seer):
    other = {
        "touch the red disc": "touch the blue disc",
        "touch the blue disc": "touch the red disc",
    }
    swapped = [
        Attempt(SWAPPED, a.task, a.seed, other.get(a.instruction, a.instruction))
        for a in ATTEMPTS[:2]
    ]
    assert [episode.success for episode in roll_out_all(seer, swapped).results] == [False, False]


def test_controls_draw_what_the_standard_attempt_draws():
    standard, blank = attempts(3), attempts(3, BLANK)
    assert [a.policy_seed for a in standard] == [a.policy_seed for a in blank]
    assert len({a.policy_seed for a in standard}) == len(standard)


@pytest.mark.parametrize("kind", ["crash", "raise", "hang"])
def test_an_environment_that_fails_once_changes_no_number(seer, tmp_path, kind):
    undisturbed = roll_out_all(seer).results
    fault = Fault(kind, seed=FIRST + 1, step=2, marker=str(tmp_path / "once"))
    disturbed = roll_out_all(seer, ATTEMPTS, fault, timeout=IMPATIENCE).results
    assert (tmp_path / "once").exists()
    assert disturbed == undisturbed


@pytest.mark.parametrize(
    ("kind", "step", "reason"),
    [
        ("crash", 1, "died (exit code 3)"),
        ("raise", 0, "raised (RuntimeError: the toy broke"),
        ("hang", 1, "hung (5 s)"),
    ],
)
def test_an_environment_that_fails_again_fails_its_attempt_and_no_other(seer, kind, step, reason):
    """The next attempt in its row begins in a fresh environment."""
    plan = [ATTEMPTS[0], ATTEMPTS[3], *attempts(4)[4:]]
    undisturbed = roll_out_all(seer, plan).results
    fault = Fault(kind, seed=FIRST, step=step)
    failed, *others = roll_out_all(seer, plan, fault, rows=1, timeout=IMPATIENCE).results
    assert (failed.success, failed.steps) == (False, step)
    assert failed.failure.startswith(reason)
    assert others == undisturbed[1:]


def test_environments_that_cannot_be_built_leave_the_policy_without_a_step(seer):
    """Whatever ends an attempt before it has begun, the next one follows in the same gap."""
    outcome = roll_out_all(seer, rows=2, cameras="none")
    assert all(result.failure.startswith("raised (TypeError") for result in outcome.results)
    assert seer.batches == seer.resets == []


def test_what_is_recorded_is_all_that_the_policy_saw_and_the_end(seer):
    outcome = roll_out_all(seer, records=lambda attempt: attempt.task == "reach_red")
    for episode, trial in zip(outcome.results, outcome.trials, strict=True):
        if episode.task == "reach_red":
            assert len(trial.frames) == len(trial.commands) == episode.steps + 1
        else:
            assert trial is None
    frames = np.stack([frame.images["front"] for frame in outcome.trials[0].frames])
    assert (frames[1:] != frames[:-1]).any(axis=(1, 2, 3)).all()  # every frame is another moment


# ------------------------------------------------------------------------------------------- chains


def chain_all(seer: Seer, count: int, *faults: Fault) -> list:
    return roll_out_all(seer, [Chain(FIRST + i) for i in range(count)], *faults).results


def test_chains_go_on_until_a_task_fails(seer):
    chains = chain_all(seer, 6)
    assert [chain.seed for chain in chains] == [FIRST + i for i in range(6)]
    for chain in chains:
        assert len(chain.tasks) == chain.done == len(chain.instructions) == CHAIN
        assert chain.instructions == tuple(
            toy_tasks()[t].instruction("evaluation", chain.seed) for t in chain.tasks
        )
        assert chain.failure is None
    assert set(seer.batches) == {ROWS}


def test_a_chain_ends_where_a_task_fails(seer, monkeypatch):
    chunk = seer._chunk
    monkeypatch.setattr(seer, "_chunk", lambda observation, _: chunk(observation, "red"))
    chains = chain_all(seer, 2)  # even seeds begin with red, and odd ones with blue
    assert [(chain.done, chain.steps >= LONGEST) for chain in chains] == [(1, True), (0, True)]
    assert [len(chain.instructions) for chain in chains] == [2, 1]


def test_a_chain_survives_an_environment_that_dies_once(seer, tmp_path):
    undisturbed = chain_all(seer, 3)
    fault = Fault("crash", seed=FIRST + 1, step=6, marker=str(tmp_path / "once"))
    assert chain_all(seer, 3, fault) == undisturbed
    assert Path(fault.marker).exists()


def test_a_chain_whose_environment_fails_again_keeps_what_it_did(seer):
    chains = chain_all(seer, 2, Fault("crash", seed=FIRST, step=6))
    assert chains[0].failure == "died (exit code 3)"
    assert 0 < chains[0].done < CHAIN
    assert chains[1].done == CHAIN
