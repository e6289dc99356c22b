from collections.abc import Sequence

import numpy as np
import pytest

from core.rollout.contracts import EVALUATION_SEEDS
from core.rollout.protocol import BLANK, SWAPPED, Attempt
from core.rollout.results import STANDARD
from core.rollout.waves import Stage, try_chains, try_tasks
from core.rollout.workers import EnvironmentSpec, open_workers
from tests.toy_environment import CHAIN, LONGEST, Fault, ToyConfig, ToyEnvironment, toy_tasks

LANES = 4
PATIENCE, IMPATIENCE = 60.0, 5.0  # seconds: longer than any machine needs, and what a hang is given
FIRST = EVALUATION_SEEDS
ATTEMPTS = [
    Attempt(STANDARD, task.name, FIRST + i, task.instruction("evaluation", FIRST + i))
    for i in range(2)
    for task in toy_tasks().values()
]


def attempt_all(
    seer, attempts: Sequence[Attempt] = ATTEMPTS, *faults: Fault, execute=1, records=lambda _: False, timeout=PATIENCE
):
    """Roll the attempts out in one wave; return its results and trials."""
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig(faults=faults))
    with open_workers(spec, len(attempts), timeout) as workers:
        wave, trials = try_tasks(Stage(seer, workers, toy_tasks(), execute, LANES), attempts, records)
    return wave.episodes, trials


def chain_all(seer, count: int, *faults: Fault):
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig(faults=faults))
    with open_workers(spec, count, PATIENCE) as workers:
        return try_chains(Stage(seer, workers, toy_tasks(), 1, LANES), range(FIRST, FIRST + count)).chains


def test_a_policy_that_sees_does_every_task(seer):
    episodes, _ = attempt_all(seer)
    assert [(e.task, e.seed) for e in episodes] == [(a.task, a.seed) for a in ATTEMPTS]
    assert all(episode.success and 0 < episode.steps < LONGEST and episode.failure is None for episode in episodes)


def test_the_batch_is_constant_whatever_the_lanes_do(seer):
    episodes, _ = attempt_all(seer, ATTEMPTS[:3])
    assert set(seer.batches) == {LANES}
    assert len(seer.batches) == max(episode.steps for episode in episodes)


def test_two_actions_of_a_chunk_are_executed_before_the_next_look(seer):
    episodes, _ = attempt_all(seer, execute=2)
    assert all(episode.success for episode in episodes)
    assert len(seer.batches) == max(-(-episode.steps // 2) for episode in episodes)


def test_an_attempt_ends_at_its_last_step(seer):
    """Told of the other disc, the policy waits there until the time is up: at exactly that step, also with chunks."""
    attempts = [Attempt(STANDARD, "reach_red", FIRST, "touch the blue disc")]
    assert [(e.success, e.steps) for e in attempt_all(seer, attempts, execute=2)[0]] == [(False, LONGEST)]


def test_blank_images_are_all_black_and_nothing_else_changes(seer):
    attempts = [Attempt(BLANK, a.task, a.seed, a.instruction) for a in ATTEMPTS[:2]] + ATTEMPTS[2:]
    episodes, trials = attempt_all(seer, attempts)
    assert [episode.success for episode in episodes] == [False, False, True, True]
    assert all(not trial.seen.images["front"].any() for trial in trials[:2])
    assert all(trial.seen.proprio.any() for trial in trials)


def test_swapped_words_are_judged_on_the_original_task(seer):
    other = {"touch the red disc": "touch the blue disc", "touch the blue disc": "touch the red disc"}
    swapped = [Attempt(SWAPPED, a.task, a.seed, other.get(a.instruction, a.instruction)) for a in ATTEMPTS[:2]]
    assert [episode.success for episode in attempt_all(seer, swapped)[0]] == [False, False]


@pytest.mark.parametrize("kind", ["crash", "raise", "hang"])
def test_an_environment_that_fails_once_changes_no_number(seer, tmp_path, kind):
    undisturbed, _ = attempt_all(seer)
    fault = Fault(kind, seed=FIRST + 1, step=2, marker=str(tmp_path / "once"))
    disturbed, _ = attempt_all(seer, ATTEMPTS, fault, timeout=IMPATIENCE)
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
    one_of_two = [ATTEMPTS[0], ATTEMPTS[3]]
    undisturbed, _ = attempt_all(seer, one_of_two)
    (failed, other), _ = attempt_all(seer, one_of_two, Fault(kind, seed=FIRST, step=step), timeout=IMPATIENCE)
    assert (failed.success, failed.steps) == (False, step)
    assert failed.failure.startswith(reason)
    assert other == undisturbed[1]


def test_workers_are_usable_after_a_failed_attempt(seer):
    spec = EnvironmentSpec("toy", ToyEnvironment, ToyConfig(faults=(Fault("crash", seed=FIRST),)))
    with open_workers(spec, 2, PATIENCE) as workers:
        stage = Stage(seer, workers, toy_tasks(), 1, LANES)
        assert not any(e.success for e in try_tasks(stage, ATTEMPTS[:2], lambda _: False)[0].episodes)
        assert all(e.success for e in try_tasks(stage, ATTEMPTS[2:], lambda _: False)[0].episodes)


def test_what_is_recorded_is_all_that_the_policy_saw_and_the_end(seer):
    episodes, trials = attempt_all(seer, records=lambda attempt: attempt.task == "reach_red")
    for episode, trial in zip(episodes, trials, strict=True):
        expected = episode.steps + 1 if episode.task == "reach_red" else 0
        assert len(trial.frames) == len(trial.commands) == expected
    seen = np.stack([frame.images["front"] for frame in trials[0].frames])
    assert (seen[1:] != seen[:-1]).any(axis=(1, 2, 3)).all()  # every frame is another moment


def test_chains_go_on_until_a_task_fails(seer):
    chains = chain_all(seer, 3)
    assert [chain.seed for chain in chains] == [FIRST, FIRST + 1, FIRST + 2]
    for chain in chains:
        assert len(chain.tasks) == chain.done == len(chain.instructions) == CHAIN
        assert chain.instructions == tuple(toy_tasks()[t].instruction("evaluation", chain.seed) for t in chain.tasks)
        assert chain.failure is None
    assert set(seer.batches) == {LANES}


def test_a_chain_ends_where_a_task_fails(seer, monkeypatch):
    chunk = seer._chunk
    monkeypatch.setattr(seer, "_chunk", lambda seen, told: chunk(seen, told) if "red" in told else chunk(seen, "red"))
    chains = chain_all(seer, 2)  # even seeds begin with red, and odd ones with blue
    assert [(chain.done, chain.steps >= LONGEST) for chain in chains] == [(1, True), (0, True)]
    assert [len(chain.instructions) for chain in chains] == [2, 1]


def test_the_policy_forgets_between_the_tasks_of_a_chain(seer, monkeypatch):
    states, step = [], seer.step
    monkeypatch.setattr(seer, "step", lambda seen, told, state: (states.append(state), step(seen, told, state))[1])
    (chain,) = chain_all(seer, 1)
    assert states.count(None) == chain.done == CHAIN


def test_a_chain_survives_an_environment_that_dies_once(seer, tmp_path):
    undisturbed = chain_all(seer, 3)
    fault = Fault("crash", seed=FIRST + 1, step=6, marker=str(tmp_path / "once"))
    assert chain_all(seer, 3, fault) == undisturbed
    assert (tmp_path / "once").exists()


def test_a_chain_whose_environment_fails_again_keeps_what_it_did(seer):
    chains = chain_all(seer, 2, Fault("crash", seed=FIRST, step=6))
    assert chains[0].failure == "died (exit code 3)"
    assert 0 < chains[0].done < CHAIN
    assert chains[1].done == CHAIN
