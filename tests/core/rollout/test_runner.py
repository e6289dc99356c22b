from collections import Counter
from dataclasses import replace

import pytest

from core.rollout.plan import BLANK, BLANK_HISTORY, PlannedAttempt, PlannedChain, planned_rollout
from tests.core.rollout import factories
from tests.core.rollout.factories import (
    ATTEMPTS,
    FIRST_SEED,
    MIXED,
    NUM_ROWS,
    SHORT_TIMEOUT,
    attempts,
    run_plan,
)
from tests.toy_environment import MAX_STEPS, Fault, ToyEnvironment
from tests.toy_policy import ScriptedActor

# --------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("num_rows", [1, 4, 16])
def test_results_do_not_depend_on_the_number_of_rows(scripted_actor, num_rows):
    """They do not depend on the row or the order: random draws belong to the attempt."""
    noisy_actor = ScriptedActor(noise=0.4)
    results = run_plan(noisy_actor, MIXED, num_rows=num_rows).results
    assert results == run_plan(ScriptedActor(noise=0.4), MIXED, num_rows=3).results
    assert results != run_plan(scripted_actor, MIXED).results  # the noise has an effect
    assert set(noisy_actor.batch_sizes) == {num_rows}


def test_nearly_all_rows_are_busy(scripted_actor):
    plan = [*attempts(200), *attempts(20, BLANK)]
    outcome = run_plan(scripted_actor, plan, num_rows=16)
    steps = sum(result.steps for result in outcome.results)
    assert sum(timing.busy_rows for timing in outcome.timings) == steps
    assert outcome.busy(16) == steps / (16 * len(scripted_actor.batch_sizes)) >= 0.95


def test_every_rollout_of_the_plan_is_run_once(scripted_actor):
    outcome = run_plan(scripted_actor, MIXED)
    run = Counter(planned_rollout(result) for result in outcome.finished)
    assert run == Counter(MIXED)


def test_rows_are_reset_exactly_when_an_attempt_or_a_task_of_a_chain_begins(scripted_actor):
    outcome = run_plan(scripted_actor, MIXED)
    reset_seeds = [seed for _, seeds in scripted_actor.resets for seed in seeds.values()]
    attempt_seeds = [
        planned.policy_seed for planned in MIXED if isinstance(planned, PlannedAttempt)
    ]
    chain_seeds = [
        PlannedChain(chain.seed).policy_seed(position, task)
        for chain in outcome.results[-3:]
        for position, task in enumerate(chain.tasks)
    ]
    assert Counter(reset_seeds) == Counter(attempt_seeds + chain_seeds)
    last_reset: dict[int, tuple[int, int]] = {}  # {row: (step, seed)}
    lengths: dict[int, list[int]] = {}  # {seed: steps from its resets to the next of the same row}
    end = (len(scripted_actor.batch_sizes), dict.fromkeys(range(NUM_ROWS), -1))
    for step, seeds in [*scripted_actor.resets, end]:
        for row, seed in seeds.items():
            if row in last_reset:
                start, last_seed = last_reset[row]
                lengths.setdefault(last_seed, []).append(step - start)
            last_reset[row] = (step, seed)
    for planned, result in zip(MIXED, outcome.results, strict=True):
        if isinstance(planned, PlannedAttempt) and planned.condition == BLANK:
            # the next attempt in the row begins as soon as this one has ended
            assert result.steps == MAX_STEPS in lengths[planned.policy_seed]


def test_the_policy_forgets_before_each_step_of_a_forgetful_attempt_alone(scripted_actor):
    plan = [*attempts(1, BLANK_HISTORY), *attempts(1)]
    results = run_plan(scripted_actor, plan).results
    steps = sum(result.steps for result in results if result.condition == BLANK_HISTORY)
    assert 0 < sum(map(len, scripted_actor.forgotten)) == steps
    assert all(len(rows) <= 2 for rows in scripted_actor.forgotten)


def test_a_free_row_begins_the_next_attempt_before_the_next_step(scripted_actor):
    """With one row, every policy step serves an attempt, whatever ended the one before."""
    outcome = run_plan(scripted_actor, MIXED, Fault("crash", seed=FIRST_SEED + 1), num_rows=1)
    # each environment that died has cost one policy step
    failures = sum(result.failure is not None for result in outcome.results)
    steps = sum(result.steps for result in outcome.results)
    assert len(scripted_actor.batch_sizes) == steps + failures
    assert (failures, outcome.busy(1)) == (3, 1)


def test_the_assignment_of_rollouts_to_rows_is_repeatable(scripted_actor):
    outcome, second_actor = run_plan(scripted_actor, MIXED), ScriptedActor()
    repeated = run_plan(second_actor, MIXED)
    assert scripted_actor.resets == second_actor.resets
    assert outcome.finished == repeated.finished


def test_the_batch_size_is_constant_with_fewer_attempts_than_rows(scripted_actor):
    results = run_plan(scripted_actor, ATTEMPTS[:3]).results
    assert set(scripted_actor.batch_sizes) == {NUM_ROWS}
    assert len(scripted_actor.batch_sizes) == max(result.steps for result in results)


# ---------------------------------------------------------------------- environments that fail


@pytest.mark.parametrize("kind", ["crash", "raise", "hang"])
def test_an_environment_that_fails_once_changes_no_result(scripted_actor, tmp_path, kind):
    expected = run_plan(scripted_actor).results
    fault = Fault(kind, seed=FIRST_SEED + 1, step=2, marker=str(tmp_path / "once"))
    results = run_plan(scripted_actor, ATTEMPTS, fault, timeout=SHORT_TIMEOUT).results
    assert (tmp_path / "once").exists()
    assert results == expected


@pytest.mark.parametrize(
    ("kind", "step", "reason"),
    [
        ("crash", 1, "died (exit code 3)"),
        ("raise", 0, "raised (RuntimeError: the toy broke"),
        ("hang", 1, "hung (5 s)"),
    ],
)
def test_an_environment_that_fails_again_fails_its_attempt_and_no_other(
    scripted_actor, kind, step, reason
):
    """The next attempt in its row begins in a fresh environment."""
    plan = [ATTEMPTS[0], ATTEMPTS[3], *attempts(4)[4:]]
    expected = run_plan(scripted_actor, plan).results
    fault = Fault(kind, seed=FIRST_SEED, step=step)
    outcome = run_plan(scripted_actor, plan, fault, num_rows=1, timeout=SHORT_TIMEOUT)
    failed, *others = outcome.results
    assert (failed.success, failed.steps) == (False, step)
    assert failed.failure.startswith(reason)
    assert others == expected[1:]


def test_environments_that_cannot_be_built_cause_no_policy_step(scripted_actor):
    """Whatever ends an attempt before it has begun, the next one begins at once."""
    outcome = run_plan(scripted_actor, num_rows=2, cameras="none")
    assert all(result.failure.startswith("raised (TypeError") for result in outcome.results)
    assert scripted_actor.batch_sizes == scripted_actor.resets == []


def test_a_robot_whose_process_dies_once_fails_that_attempt_and_no_other(scripted_actor, tmp_path):
    expected = run_plan(scripted_actor).results
    fault = Fault("crash", seed=FIRST_SEED + 1, step=2, marker=str(tmp_path / "once"))
    results = run_plan(scripted_actor, ATTEMPTS, fault, replayable=False).results
    (failed,) = [i for i, result in enumerate(results) if result != expected[i]]
    assert (results[failed].success, results[failed].steps) == (False, 2)
    assert results[failed].failure == (
        "died (exit code 3); the environment is not replayable, so its actions were not repeated"
    )


def test_an_observation_that_does_not_fit_fails_its_attempt_and_no_other(
    scripted_actor, monkeypatch
):
    expected = run_plan(scripted_actor).results
    monkeypatch.setattr(factories, "ToyEnvironment", Blinded)
    *others, failed = run_plan(scripted_actor).results
    assert others == expected[:-1]
    assert (failed.success, failed.steps) == (False, 2)
    assert "Blinded.observe returned what does not fit: camera 'front' shows float64" in (
        failed.failure
    )


class Blinded(ToyEnvironment):
    """Shows another picture after the second step towards the last attempt's disc."""

    def observe(self):
        observation = super().observe()
        if (self._seed, self._goal, self._step) != (FIRST_SEED + 1, "blue", 3):
            return observation
        return replace(observation, images={"front": observation.images["front"] / 255})
