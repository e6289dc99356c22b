from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.environments.environment import StepResult
from core.environments.recovery import EnvironmentCall, apply_actions, reset
from core.environments.workers import EnvironmentFailed
from core.episodes.renaming import NewNames
from core.rollout.attempt import Attempt, start_rollout
from core.rollout.plan import BLANK, BLANK_HISTORY, SWAPPED, PlannedAttempt, PlannedChain
from core.rollout.results import STANDARD
from tests.core.rollout.factories import (
    ATTEMPTS,
    CHAINS,
    FIRST_SEED,
    NUM_ROWS,
    Notes,
    attempts,
    run_plan,
)
from tests.toy_environment import (
    CHAIN_LENGTH,
    MAX_STEPS,
    RADIUS,
    Fault,
    ToyConfig,
    ToyEnvironment,
    toy_tasks,
)
from tests.toy_policy import ScriptedActor

# ------------------------------------------------------------------------ the generator by itself


def start_first_attempt():
    return start_rollout(ATTEMPTS[0], toy_tasks(), 2, lambda planned: None, (), NewNames(), len)


def test_a_rollout_asks_the_environment_and_the_policy_in_turn():
    rollout, environment = start_first_attempt(), ToyEnvironment(ToyConfig())
    assert next(rollout) == EnvironmentCall(reset, ("reach_red", FIRST_SEED))
    environment.reset("reach_red", FIRST_SEED)
    attempt = rollout.send((None, environment.observe()))
    assert isinstance(attempt, Attempt)
    assert (attempt.instruction, attempt.steps) == (ATTEMPTS[0].instruction, 0)
    call = rollout.send(np.zeros((3, 3), np.float32))
    assert call.function is apply_actions
    assert call.arguments[0].shape == (2, 3)  # replan_steps of the chunk's three actions
    with pytest.raises(StopIteration) as end:
        rollout.send(([StepResult(success=True)], environment.observe()))
    result = end.value.value
    assert (result.success, result.steps, result.failure) == (True, 1, None)
    assert result.jerk == 1  # the stand-in for a measure counts the actions that were executed


def test_a_recording_is_told_which_actions_were_applied():
    notes = Notes()
    rollout = start_rollout(ATTEMPTS[0], toy_tasks(), 2, lambda planned: notes, (), NewNames(), len)
    environment = ToyEnvironment(ToyConfig())
    environment.reset("reach_red", FIRST_SEED)
    next(rollout)
    rollout.send((None, environment.observe()))
    chunks = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    rollout.send(chunks[0])
    rollout.send(([StepResult(), StepResult()], environment.observe()))
    rollout.send(chunks[1])
    with pytest.raises(StopIteration):
        # done after one of two actions
        rollout.send(([StepResult(success=True)], environment.observe()))
    np.testing.assert_array_equal(np.concatenate(notes.actions), [*chunks[0][:2], chunks[1][0]])
    assert [len(actions) for actions in notes.actions] == [2, 1]


@pytest.mark.parametrize("condition", [STANDARD, BLANK, BLANK_HISTORY])
def test_the_policy_is_told_the_last_action_that_was_applied(condition):
    planned = replace(ATTEMPTS[0], condition=condition)
    rollout = start_rollout(planned, toy_tasks(), 2, lambda planned: None, (), NewNames(), len)
    environment = ToyEnvironment(ToyConfig())
    environment.reset("reach_red", FIRST_SEED)
    next(rollout)
    attempt = rollout.send((None, environment.observe()))
    assert attempt.observation.past_action is None
    chunk = np.arange(9, dtype=np.float32).reshape(3, 3)
    rollout.send(chunk)
    attempt = rollout.send(([StepResult(), StepResult()], environment.observe()))
    if condition == BLANK_HISTORY:
        assert attempt.observation.past_action is None
    else:
        np.testing.assert_array_equal(attempt.observation.past_action, chunk[1])


def test_a_failed_environment_ends_the_rollout_with_the_reason():
    rollout = start_first_attempt()
    next(rollout)
    with pytest.raises(StopIteration) as end:
        rollout.throw(EnvironmentFailed("died (SIGKILL)"))
    result = end.value.value
    assert (result.success, result.steps, result.failure) == (False, 0, "died (SIGKILL)")


# ----------------------------------------------------------------------------------------- attempts


def test_a_policy_that_sees_the_discs_does_every_task(scripted_actor):
    results = run_plan(scripted_actor).results
    assert [(result.task, result.seed) for result in results] == [
        (planned.task, planned.seed) for planned in ATTEMPTS
    ]
    assert all(
        result.success and 0 < result.steps < MAX_STEPS and result.failure is None
        for result in results
    )


def test_two_actions_of_a_chunk_are_executed_before_the_policy_acts_again(scripted_actor):
    results = run_plan(scripted_actor, replan_steps=2).results
    assert all(result.success for result in results)
    assert len(scripted_actor.batch_sizes) == max(-(-result.steps // 2) for result in results)


def test_an_attempt_ends_after_the_tasks_largest_number_of_steps(scripted_actor):
    """The policy waits on the other disc; the last chunk is cut where the attempt ends."""
    plan = [PlannedAttempt(STANDARD, "reach_red", FIRST_SEED, "touch the blue disc")]
    (result,) = run_plan(scripted_actor, plan, replan_steps=2).results
    assert (result.success, result.steps) == (False, MAX_STEPS)


def test_an_end_that_is_no_success_ends_the_attempt_and_no_step_follows(scripted_actor):
    """Also within a chunk: the environment would be asked for more steps than it has."""
    plan = [PlannedAttempt(STANDARD, "reach_red", FIRST_SEED, "touch the blue disc")]
    for replan_steps in (1, 2):
        outcome = run_plan(scripted_actor, plan, replan_steps=replan_steps, ends_after=3)
        (result,) = outcome.results
        assert (result.end, result.success, result.steps) == ("ended", False, 3)


def test_an_end_in_the_last_step_is_the_tasks_own(scripted_actor):
    plan = [PlannedAttempt(STANDARD, "reach_red", FIRST_SEED, "touch the blue disc")]
    (result,) = run_plan(scripted_actor, plan, ends_after=MAX_STEPS).results
    assert (result.end, result.steps) == ("max_steps", MAX_STEPS)


def test_a_chain_goes_on_after_no_end(scripted_actor):
    (result,) = run_plan(scripted_actor, [PlannedChain(FIRST_SEED)], ends_after=1).results
    assert (result.done, result.steps) == (0, 1)


def test_the_scores_of_all_steps_are_kept_as_best_mean_and_sum(scripted_actor):
    (result,) = run_plan(scripted_actor, ATTEMPTS[:1], scored=True, replan_steps=2).results
    assert result.success
    assert -RADIUS < result.score_best < 0  # the score is minus the distance to the disc
    assert result.score_sum < result.score_mean < result.score_best
    assert result.score_sum == pytest.approx(result.steps * result.score_mean)
    (result,) = run_plan(scripted_actor, ATTEMPTS[:1]).results
    assert (result.score_best, result.score_mean, result.score_sum) == (None, None, None)


def test_an_environment_that_dies_at_last_keeps_the_scores_until_then(scripted_actor):
    fault = Fault("crash", seed=FIRST_SEED, step=1)
    (result,) = run_plan(scripted_actor, ATTEMPTS[:1], fault, scored=True).results
    assert (result.end, result.steps) == ("failure", 1)
    assert result.score_best == result.score_mean == result.score_sum < 0


def test_the_policy_sees_cameras_under_its_own_names(scripted_actor):
    plan, names = [*ATTEMPTS[:1], *CHAINS[:1]], NewNames(cameras={"top": "front"})
    scripted_actor.camera = "top"
    scripted_actor.info = names.rename(scripted_actor.info)
    renamed = run_plan(scripted_actor, plan, names=names, should_record=lambda _: True)
    assert set(renamed.recordings[0].observations[0].images) == {"top"}
    assert renamed.results == run_plan(ScriptedActor(), plan).results
    assert renamed.results[1].done > 0


def test_blank_images_are_black_and_nothing_else_changes(scripted_actor):
    plan = [*attempts(1, BLANK), *ATTEMPTS[2:]]
    outcome = run_plan(scripted_actor, plan, should_record=lambda _: True)
    assert [result.success for result in outcome.results] == [False, False, True, True]
    observations = [recording.observations[-1] for recording in outcome.recordings]
    assert all(not observation.images["front"].any() for observation in observations[:2])
    assert all(observation.proprio.any() for observation in observations)


def test_swapped_words_are_judged_on_the_original_task(scripted_actor):
    swap = {
        "touch the red disc": "touch the blue disc",
        "touch the blue disc": "touch the red disc",
    }
    plan = [
        PlannedAttempt(SWAPPED, planned.task, planned.seed, swap[planned.instruction])
        for planned in ATTEMPTS[:2]
    ]
    assert [result.success for result in run_plan(scripted_actor, plan).results] == [False, False]


def test_a_recording_holds_all_that_the_policy_saw_and_the_last_frame(scripted_actor):
    outcome = run_plan(scripted_actor, should_record=lambda planned: planned.task == "reach_red")
    for result, recording in zip(outcome.results, outcome.recordings, strict=True):
        if result.task == "reach_red":
            assert len(recording.observations) == len(recording.actions) + 1 == result.steps + 1
        else:
            assert recording is None
    frames = np.stack([frame.images["front"] for frame in outcome.recordings[0].observations])
    assert (frames[1:] != frames[:-1]).any(axis=(1, 2, 3)).all()  # every frame is another moment


# ------------------------------------------------------------------------------------------- chains


def run_chains(actor, count, *faults):
    return run_plan(actor, [PlannedChain(FIRST_SEED + i) for i in range(count)], *faults).results


def test_chains_go_on_until_a_task_fails(scripted_actor):
    chains = run_chains(scripted_actor, 6)
    assert [chain.seed for chain in chains] == [FIRST_SEED + i for i in range(6)]
    for chain in chains:
        assert len(chain.tasks) == chain.done == len(chain.instructions) == CHAIN_LENGTH
        assert chain.instructions == tuple(
            toy_tasks()[task].instruction("evaluation", chain.seed) for task in chain.tasks
        )
        assert chain.failure is None
    assert set(scripted_actor.batch_sizes) == {NUM_ROWS}


def test_a_chain_ends_when_a_task_fails(scripted_actor, monkeypatch):
    plan_chunk = scripted_actor.plan_chunk
    monkeypatch.setattr(
        scripted_actor, "plan_chunk", lambda observation, _: plan_chunk(observation, "red")
    )
    chains = run_chains(scripted_actor, 2)  # even seeds begin with red, and odd ones with blue
    assert [(chain.done, chain.steps >= MAX_STEPS) for chain in chains] == [(1, True), (0, True)]
    assert [len(chain.instructions) for chain in chains] == [2, 1]


def test_a_chain_survives_an_environment_that_dies_once(scripted_actor, tmp_path):
    expected = run_chains(scripted_actor, 3)
    fault = Fault("crash", seed=FIRST_SEED + 1, step=6, marker=str(tmp_path / "once"))
    assert run_chains(scripted_actor, 3, fault) == expected
    assert Path(fault.marker).exists()


def test_a_chain_whose_environment_fails_again_keeps_the_tasks_done(scripted_actor):
    chains = run_chains(scripted_actor, 2, Fault("crash", seed=FIRST_SEED, step=6))
    assert chains[0].failure == "died (exit code 3)"
    assert 0 < chains[0].done < CHAIN_LENGTH
    assert chains[1].done == CHAIN_LENGTH
