"""Environments and policies that return or raise anything at any moment, and workers for them.

What an environment was really told and what it really returned is kept in `HISTORY`, so that a test
can judge what was made of it. The workers run in this process: the server that answers is that of
real processes, and requests and replies are pickled as for them.
"""

import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from core import DataError
from core.contracts.batch import Batch, TokenGroup
from core.environments import Environment, Observation, StepResult, Task
from core.environments.server import Server
from core.environments.workers import Worker
from core.episodes import StoreInfo
from core.policy.boundary import Boundary
from core.policy.encoded import EncodedText
from core.policy.state import PolicyState
from tests.toy_environment import SIZE, toy_info

MAX_STEPS, SUCCESS_STEP = 5, 3
TASKS = ("near", "far")


class Unfriendly:
    """Refuses whatever it is asked."""

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __repr__(self) -> str:
        return "several\nlines"

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("no array")


class SilentError(Exception):
    """An error whose message cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no message")


@dataclass(frozen=True)
class Moment:
    """What happens at one call of a method: the value is returned, or raised if it is an error.

    call: counts from 0 over the life of an environment. Attributes are set when it is built.
    """

    method: str
    call: int
    value: Any


@dataclass(frozen=True)
class StrangeConfig:
    """A store writes the configuration down, so the moments are hidden in bytes."""

    moments: bytes = pickle.dumps(())


@dataclass
class Episode:
    """One episode as the environment lived it: its actions, and what each step returned."""

    task: str
    actions: list[Any] = field(default_factory=list)
    returned: list[Any] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """Whether the last step said success, in one of the ways that the contract knows."""
        last = self.returned[-1] if self.returned else None
        if isinstance(last, StepResult):
            last = last.success
        return isinstance(last, bool | np.bool_) and bool(last)


# {(task, seed): the newest episode of it}
HISTORY: dict[tuple[str, int], Episode] = {}


class Strange(Environment):
    """A task is done at the third step, whatever the actions, unless something strange happens."""

    def __init__(self, config: StrangeConfig) -> None:
        moments: tuple[Moment, ...] = pickle.loads(config.moments)
        self._moments = {(moment.method, moment.call): moment.value for moment in moments}
        self._calls: Counter[str] = Counter()
        self._episode = Episode("")
        self.info: StoreInfo = self._or_strange("info", toy_info())
        self.tasks = self._or_strange(
            "tasks", {name: Task(name, (f"go {name}",), MAX_STEPS) for name in TASKS}
        )
        self.versions = self._or_strange("versions", {"strange": "1"})
        self.replayable = self._or_strange("replayable", True)

    def _or_strange(self, method: str, sound: Any) -> Any:
        value = self._moments.get((method, self._calls[method]), sound)
        self._calls[method] += 1
        if isinstance(value, BaseException):
            raise value
        return value

    def reset(self, task: str, seed: int) -> None:
        self._episode = HISTORY[task, seed] = Episode(task)
        return self._or_strange("reset", None)

    def begin_chain(self, seed: int) -> Sequence[str]:
        self._seed = seed
        return self._or_strange("begin_chain", list(TASKS))

    def proceed(self, task: str) -> None:
        self._episode = HISTORY[task, self._seed] = Episode(task)
        return self._or_strange("proceed", None)

    def is_done(self) -> bool | None:
        return self._or_strange("is_done", None)

    def step(self, action: np.ndarray) -> bool | StepResult:
        self._episode.actions.append(action)
        sound = len(self._episode.actions) >= SUCCESS_STEP
        self._episode.returned.append(self._or_strange("step", sound))
        return self._episode.returned[-1]

    def observe(self) -> Observation:
        image = np.full((SIZE, SIZE, 3), len(self._episode.actions), np.uint8)
        sound = Observation({"front": image}, np.zeros(2, np.float32))
        return self._or_strange("observe", sound)

    def expert(self) -> np.ndarray:
        return self._or_strange("expert", np.zeros(3, np.float32))

    def close(self) -> None:
        self._or_strange("close", None)


# ------------------------------------------------------------------------ strange values, by chance

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3)
)
NUMBERS = st.sampled_from([np.nan, np.inf, -np.inf, 1e39, -1e300, 0.0, 1.0])
ARRAYS = st.one_of(
    st.builds(np.full, st.sampled_from([(), (2,), (3,), (0,), (1, 3), (SIZE, SIZE, 3)]), NUMBERS),
    st.builds(np.zeros, st.sampled_from([(2,), (3,), (SIZE, SIZE, 3), (SIZE, SIZE, 4)]),
              st.sampled_from(["float32", "uint8", "int64", "bool", "U2", "object"])),
    st.sampled_from([np.True_, np.False_, np.float32("nan"), np.int64(1)]),
)  # fmt: skip
ANYTHING = st.one_of(
    PLAIN,
    ARRAYS,
    st.builds(Unfriendly),
    st.lists(PLAIN, max_size=3),
    st.tuples(ARRAYS, st.floats(), st.booleans(), st.booleans(), st.just({"is_success": True})),
    st.dictionaries(st.text(max_size=3), PLAIN, max_size=2),
)
STEP_RESULTS = st.builds(StepResult, ANYTHING, ANYTHING, ANYTHING) | st.builds(
    StepResult, st.booleans(), st.booleans(), st.none() | st.floats()
)
OBSERVATIONS = st.builds(
    Observation,
    st.dictionaries(st.sampled_from(["front", "frnt"]), ANYTHING, max_size=2) | ANYTHING,
    ANYTHING,
    st.just({}) | ANYTHING,
)
ERRORS = st.sampled_from(
    [
        DataError("the solver\ndiverged"),
        RuntimeError("broke"),
        SilentError(),
        StopIteration(),
        SystemExit(3),
        GeneratorExit(),
        MemoryError(),
        KeyError("x"),
        AssertionError(),
    ]
)
METHODS = ("reset", "begin_chain", "proceed", "is_done", "step", "observe", "expert", "close")
ATTRIBUTES = ("info", "tasks", "versions", "replayable")
TASK_MAPS = st.dictionaries(
    st.sampled_from(["near", "x"]),
    st.builds(Task, PLAIN, PLAIN | st.tuples(PLAIN), PLAIN) | ANYTHING,
    max_size=2,
)
MOMENTS = st.lists(
    st.builds(
        Moment,
        st.sampled_from(METHODS),
        st.integers(0, 9),
        st.one_of(ANYTHING, STEP_RESULTS, OBSERVATIONS, ERRORS, st.just(["near", "far", "near"])),
    )
    | st.builds(Moment, st.sampled_from(ATTRIBUTES), st.just(0), ANYTHING | ERRORS | TASK_MAPS),
    max_size=3,
).map(tuple)


# ---------------------------------------------------------------------- workers in the same process


class Loop:
    """Both ends of a pipe: what is sent is answered at once."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reply = b""

    def send_bytes(self, job: bytes) -> None:
        self._reply = self._server.reply(job)

    def poll(self, timeout: float) -> bool:
        return True

    def recv(self) -> Any:
        return pickle.loads(self._reply)

    def close(self) -> None:
        """Do nothing: there is no pipe."""


class InProcessWorker(Worker):
    """A worker without a process; its environment is built by the first call, as in a process."""

    def _start(self) -> None:
        self._deadline = None
        self._server = Server(self._pickled_spec)
        self.connection = Loop(self._server)  # type: ignore[assignment]

    def _kill(self) -> None:
        """Do nothing: there is no process."""

    def close(self) -> None:
        self._server.close()


# ------------------------------------------------------------------------------- a strange policy


class StrangePolicy:
    """Acts with zeros, except for a script {(row, policy step): a number of its last action}."""

    def __init__(self, script: dict[tuple[int, int], float], horizon: int = 2) -> None:
        self.script, self.horizon, self.steps = script, horizon, 0
        self.boundary = Boundary()
        self.action_tokens = SimpleNamespace(reads_past=False)

    def initial_state(self, seeds: torch.Tensor) -> PolicyState:
        return PolicyState(seeds, torch.zeros_like(seeds), {}, {}, {})

    def reset(self, state: PolicyState, rows: torch.Tensor, seeds: torch.Tensor) -> PolicyState:
        return state.reset(rows, self.initial_state(seeds))

    def act(
        self, batch: Batch, state: PolicyState, text: EncodedText
    ) -> tuple[torch.Tensor, PolicyState]:
        actions = torch.zeros(len(batch.instructions), self.horizon, 3)
        for (row, step), value in self.script.items():
            if step == self.steps and row < len(actions):
                actions[row, -1, row % 3] = value
        self.steps += 1
        return actions, PolicyState(state.seed, state.step + 1, {}, {}, {})


def encode(instruction: str) -> EncodedText:
    """Return one token for any instruction."""
    token = TokenGroup(torch.zeros(1, 1, 2))
    return EncodedText(token, token)
