"""Whatever an environment or a policy does: no false success, no traceback, no NaN to a robot.

300 examples each of collecting, evaluating and acting, in this process; and a few in real ones.
"""

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from core.demonstrations import collect as collecting, recording
from core.demonstrations.collect import collect
from core.environments.environment import EVALUATION_SEEDS, Observation
from core.environments.workers import (
    Description,
    EnvironmentFailed,
    EnvironmentSpec,
    Worker,
    describe,
)
from core.episodes.normalization import Affine, Normalizer, ProprioNormalizer
from core.episodes.renaming import NewNames
from core.errors import DataError, JoineryError
from core.evaluation.evaluation import raise_if_all_broke
from core.rollout.actor import Actor
from core.rollout.attempt import start_rollout
from core.rollout.loaded_policy import LoadedPolicy
from core.rollout.plan import PlannedAttempt, PlannedChain
from core.rollout.queue import Queue
from core.rollout.results import STANDARD, ChainResult, EpisodeResult, Evaluation, Result
from core.rollout.runner import run_rollouts
from core.store.store import EpisodeStore
from tests.strange import (
    ANYTHING,
    HISTORY,
    MOMENTS,
    OBSERVATIONS,
    SUCCESS_STEP,
    InProcessWorker,
    Moment,
    Strange,
    StrangeConfig,
    StrangePolicy,
    encode,
)
from tests.toy_environment import SIZE, toy_info

EXAMPLES = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
SEEDS = range(EVALUATION_SEEDS, EVALUATION_SEEDS + 2)
SCRIPTS = st.dictionaries(
    st.tuples(st.integers(0, 1), st.integers(0, 6)),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e38, 1.0]),
    max_size=2,
)
# the scale makes 1e38 too large for the units of the robot, although it is finite
NORMALIZER = Normalizer("none", Affine((0.0,) * 3, (0.01,) * 3))


def actor_of(policy: StrangePolicy) -> Actor:
    return Actor(
        policy,  # type: ignore[arg-type]
        toy_info(),
        policy.horizon,
        NORMALIZER,
        ProprioNormalizer(Affine((0.0,) * 2, (1.0,) * 2)),
        encode,
        checkpoint=Checkpointless(),  # type: ignore[arg-type]
        device=torch.device("cpu"),
    )


class Checkpointless:
    """Names a folder in messages."""

    folder = Path("checkpoints/step_1")


@contextmanager
def open_strange(spec: EnvironmentSpec, count: int, timeout: float) -> Iterator[list[Worker]]:
    workers = [InProcessWorker(spec, timeout) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()


def spec_of(moments: Sequence[Moment]) -> EnvironmentSpec:
    return EnvironmentSpec("strange", Strange, StrangeConfig(pickle.dumps(tuple(moments))))


def expect_one_line(error: JoineryError) -> None:
    assert str(error).strip()
    assert "\n" not in str(error)


def expect_sound_actions() -> None:
    """No environment was given an action that is not finite, or of another shape."""
    for episode in HISTORY.values():
        for action in episode.actions:
            assert (action.shape, action.dtype) == ((3,), np.float32)
            assert np.isfinite(action).all()


# ------------------------------------------------------------------------------------- evaluating


def evaluate(moments: Sequence[Moment], script: dict[tuple[int, int], float]) -> list[Result]:
    """Make two attempts at each task and a chain, in two rows; return their results."""
    HISTORY.clear()
    with open_strange(spec_of(moments), 2, 60.0) as workers:
        workers[0].submit(describe)
        described: Description = workers[0].result()
        pairs = [(task, seed) for seed in SEEDS for task in described.tasks]
        attempts = [PlannedAttempt(STANDARD, task, seed, f"go {task}") for task, seed in pairs]
        start = partial(
            start_rollout,
            tasks=described.tasks,
            replan_steps=2,
            record=lambda _: None,
            visual=(),
            names=NewNames(),
            jerk=len,
        )
        queue = Queue([PlannedChain(EVALUATION_SEEDS + 9), *attempts], described.tasks)
        rollouts = run_rollouts(
            actor_of(StrangePolicy(script)), workers, 2, queue, start, described.replayable
        )
        results = [result for result, _ in rollouts]
    assert len(results) == 1 + len(attempts)
    return results


@EXAMPLES
@given(MOMENTS, SCRIPTS)
def test_an_evaluation_believes_nothing_and_always_ends(moments, script) -> None:
    try:
        results = evaluate(moments, script)
    except (DataError, EnvironmentFailed) as error:  # it could not be built
        expect_one_line(error)
        return
    finally:
        expect_sound_actions()
    for result in results:
        assert result.failure is None or (result.failure and "\n" not in result.failure)
        if isinstance(result, EpisodeResult):
            episode = HISTORY.get((result.task, result.seed))
            assert not (result.success and result.failure)
            if result.success:
                assert episode is not None
                assert (episode.succeeded, len(episode.returned)) == (True, result.steps)
            elif result.failure is None:
                assert episode is not None
                assert not episode.succeeded
        else:
            done = [HISTORY[name, result.seed].succeeded for name in result.tasks[: result.done]]
            assert all(done)
    json.dumps(evaluation_of(results).to_json(), allow_nan=False)
    if all(result.failure for result in results):
        with pytest.raises(EnvironmentFailed) as caught:
            raise_if_all_broke(evaluation_of(results))
        expect_one_line(caught.value)
    else:
        raise_if_all_broke(evaluation_of(results))


def evaluation_of(results: Sequence[Result]) -> Evaluation:
    episodes = [result for result in results if isinstance(result, EpisodeResult)]
    chains = [result for result in results if isinstance(result, ChainResult)]
    return Evaluation({}, {}, {}, {}, episodes, chains, {})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_a_number_that_is_not_finite_fails_its_attempt_and_no_other(value: float) -> None:
    """1e38 is finite, and too large in the units of the robot."""
    sound = evaluate((), {})
    assert [result.failure for result in sound] == [None] * 5
    received = evaluate((), {(1, 1): value})
    (failed,) = [result for result in received if result.failure]
    assert isinstance(failed, EpisodeResult)
    assert "NaN or infinity, in 1 of 6 numbers" in failed.failure
    assert (failed.success, failed.steps) == (False, 2)
    others = {(r.task, r.seed): r for r in received if isinstance(r, EpisodeResult)}
    del others[failed.task, failed.seed]
    expected = {(r.task, r.seed): r for r in sound if isinstance(r, EpisodeResult)}
    assert all(expected[key] == result for key, result in others.items())


# ------------------------------------------------------------------------------------- collecting


@contextmanager
def in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "open_workers", open_strange)
        patch.setattr(recording, "wait_for_any", list)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for stores."""
    return tmp_path_factory.mktemp("strange")


@EXAMPLES
@given(MOMENTS)
def test_a_collection_keeps_nothing_but_successes(place: Path, moments) -> None:
    out = place / "a.zarr"
    shutil.rmtree(out, ignore_errors=True)
    HISTORY.clear()
    try:
        with in_this_process():
            summary = collect(spec_of(moments), out, [], episodes=2, noise=0.3, workers=1)
    except (DataError, EnvironmentFailed) as error:
        expect_one_line(error)
    else:
        assert all(task.kept == 2 for task in summary.tasks.values())
        assert not any("\n" in line for line in (*summary.broken, *summary.warnings))
    expect_sound_actions()
    if not (out / "zarr.json").exists():
        return
    store = EpisodeStore(out)
    for number in range(len(store)):
        task, _, seed = store.episode_id(number).rpartition("/")
        episode = HISTORY[task, int(seed)]
        assert (episode.succeeded, len(episode.returned)) == (True, store.length[number])
        assert np.isfinite(store.actions(number, 0, int(store.length[number]))).all()


# ----------------------------------------------------------------------------------------- acting

SOUND = Observation({"front": np.zeros((SIZE, SIZE, 3), np.uint8)}, np.zeros(2, np.float32))


@EXAMPLES
@given(st.one_of(OBSERVATIONS, ANYTHING, st.just(SOUND)), st.just("go") | ANYTHING, SCRIPTS)
def test_acting_gives_finite_actions_or_one_reason_and_goes_on(shown, instruction, script) -> None:
    policy = StrangePolicy(script)
    loaded = LoadedPolicy(actor_of(policy))
    for observation, words in ((SOUND, "go"), (shown, instruction), (SOUND, "go")):
        before = policy.steps
        try:
            chunk = loaded.act(observation, words)
        except JoineryError:
            is_sound = observation is SOUND and isinstance(words, str)
            assert not is_sound or (0, before) in script
            continue
        assert (chunk.shape, chunk.dtype) == ((2, 3), np.float32)
        assert np.isfinite(chunk).all()


# ------------------------------------------------------------------------------- in real processes


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        (Moment("step", 0, (None, 0.0, True, False, {})), "Strange.step returned a tuple; Gymnas"),
        (Moment("is_done", 0, True), "the task was done before the first step"),
    ],
)
def test_a_world_that_always_fails_is_one_line(moment: Moment, message: str, tmp_path, capfd):
    moments = [Moment(moment.method, call, moment.value) for call in range(20)]
    with pytest.raises(DataError) as caught:
        collect(spec_of(moments), tmp_path / "a.zarr", ["near"], 2, noise=0.0, workers=1)
    expect_one_line(caught.value)
    assert "the environment broke in each of 3 attempts, the last one near/2: " in str(caught.value)
    assert message in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def test_a_world_that_is_done_at_once_is_doubted(place: Path) -> None:
    """It cannot be refused: a task may take one step; and nothing is said of one that must."""
    moments = [Moment("step", call, True) for call in range(9)]
    with in_this_process():
        summary = collect(spec_of(moments), place / "b.zarr", ["near"], 2, noise=0.0, workers=1)
    assert summary.warnings == (
        "task 'near': all 2 attempts were done after their first step; see that the environment's "
        "`step` and `is_done` mean this task",
    )


def test_closing_may_fail_quietly(tmp_path, capfd) -> None:
    moments = (Moment("close", 0, RuntimeError("no renderer")),)
    summary = collect(spec_of(moments), tmp_path / "a.zarr", ["near"], 1, noise=0.0, workers=1)
    assert (summary.added, summary.broken) == (1, ())
    assert "Traceback" not in capfd.readouterr().err
    episode = EpisodeStore(tmp_path / "a.zarr")
    assert episode.length[0] == SUCCESS_STEP
