"""Environments in processes of their own: what dies, hangs or raises there is one line here, and
can be started again.

A worker's process imports what its environment needs and nothing else: neither torch nor a recipe.
"""

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, TypeVarTuple

from core.errors import DataError, JoineryError
from core.system.processes import set_up_worker_process

if TYPE_CHECKING:  # numpy is imported in the process once its threads are limited
    from core.environments.environment import Environment, Task
    from core.episodes.episode import StoreInfo
    from core.registry.hookspecs import Build

Arguments = TypeVarTuple("Arguments")

GRACE = 5.0  # seconds that an idle process may take to close its environment
LIBRARIES = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
ONE_THREAD = {f"{library}_THREADS": "1" for library in LIBRARIES}


@dataclass(frozen=True)
class EnvironmentSpec:
    """Which environment, for a process that builds it.

    name: what recipes call it.
    build, config: what the plugin registered, and its settings; both are pickled.
    """

    name: str
    build: "Build"
    config: Any

    def make(self) -> "Environment":
        """Build the environment; raises what its `build` raises."""
        environment: Environment = self.build(self.config)
        return environment


@dataclass(frozen=True)
class Description:
    """What an environment says about itself."""

    info: "StoreInfo"
    tasks: Mapping[str, "Task"]
    versions: Mapping[str, str]


def describe(environment: "Environment") -> Description:
    """Ask an environment about itself, in its worker."""
    return Description(environment.info, dict(environment.tasks), dict(environment.versions))


class EnvironmentFailed(JoineryError):  # noqa: N818 (it names what happened to an episode)
    """An environment's process died, hung, or its code raised; the message is the reason in one
    line.
    """


class Worker:
    """One environment in a process of its own, which makes it on first use and dies with this
    process.

    timeout: seconds that a submitted function may take, the making of the environment included.
    connection: for `multiprocessing.connection.wait`; ready when a result can be had without
    waiting.
    pid: of the process.
    """

    connection: "Connection[Any, Any]"
    _deadline: float | None  # of what was submitted; None: nothing is

    def __init__(self, spec: EnvironmentSpec, timeout: float) -> None:
        self.spec, self.timeout = spec, timeout
        self._spec = _dump(spec)
        self._start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid or 0

    @property
    def time_left(self) -> float:
        """Seconds until the submitted function counts as hung."""
        return (
            max(0.0, self._deadline - time.monotonic())
            if self._deadline is not None
            else self.timeout
        )

    def submit(
        self, function: "Callable[[Environment, *Arguments], Any]", *arguments: *Arguments
    ) -> None:
        """Let the process run a module-level function of its environment; `result` must be had
        before the next one.
        """
        assert self._deadline is None, "a worker does one thing at a time: take its result first"
        job = pickle.dumps((function, arguments))
        self._deadline = time.monotonic() + self.timeout
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead, as `result` will say
            self.connection.send_bytes(job)

    def result(self) -> Any:
        """Return what the submitted function returned.

        Raises EnvironmentFailed where the process died, hung (then it is killed) or raised, and
        DataError where the environment raised that. After an EnvironmentFailed, `restart` gives a
        fresh environment.
        """
        assert self._deadline is not None, "nothing was submitted"
        arrived = self.connection.poll(self.time_left)
        self._deadline = None
        if not arrived:
            self._kill()
            raise EnvironmentFailed(f"hung ({self.timeout:g} s)")
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):  # OSError: in the middle of its answer
            raise EnvironmentFailed(f"died ({self._cause_of_death()})") from None
        if kind == "raised":
            raise EnvironmentFailed(f"raised ({value})")
        if kind == "refused":
            raise DataError(value)
        return value

    def restart(self) -> None:
        """Kill the process and start a fresh one."""
        self._kill()
        self._start()

    def close(self) -> None:
        """End the process: at once if it is busy, else once its environment is closed."""
        self.connection.close()
        if self._deadline is None:
            self._process.join(GRACE)
        self._kill()

    def _start(self) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self._deadline = None
        self._process = context.Process(
            target=_serve, args=(theirs,), name=f"joinery {self.spec.name}", daemon=True
        )
        self._process.start()
        theirs.close()  # so that its death ends the connection
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(self._spec)

    def _kill(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()

    def _cause_of_death(self) -> str:
        self._process.join(GRACE)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


@contextmanager
def open_workers(spec: EnvironmentSpec, count: int, timeout: float) -> Iterator[list[Worker]]:
    """Start several workers of one environment, and end them with the block."""
    workers: list[Worker] = []
    try:
        workers.extend(Worker(spec, timeout) for _ in range(count))
        yield workers
    finally:
        for worker in workers:
            worker.connection.close()  # the idle ones leave together
        for worker in workers:
            worker.close()


def wait_for_any(workers: Sequence[Worker]) -> list[Worker]:
    """Wait until at least one of the busy workers has a result, or has taken too long; return
    those.
    """
    ready = set(
        wait([worker.connection for worker in workers], min(worker.time_left for worker in workers))
    )
    return [worker for worker in workers if worker.connection in ready or worker.time_left == 0]


def _context() -> Any:
    """A fork of a server that has no threads and holds no locks, where there is one; else a fresh
    interpreter.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _dump(spec: EnvironmentSpec) -> bytes:
    try:
        return pickle.dumps(spec)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise DataError(
            f"environment '{spec.name}' cannot be built in another process ({error}); register a class or a function "
            f"of a module, with a config of plain data"
        ) from error


# ----------------------------------------------------------------------------------- in the process


def _serve(connection: "Connection[Any, Any]") -> None:
    """Run what is submitted until the other side closes the connection."""
    os.environ.update(ONE_THREAD)  # there are as many processes as cores
    set_up_worker_process()
    environment: Environment | None = None
    with connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        spec = connection.recv_bytes()
        while True:
            job = connection.recv_bytes()
            try:
                if environment is None:
                    environment = pickle.loads(spec).make()
                function, arguments = pickle.loads(job)
                reply = pickle.dumps(("returned", function(environment, *arguments)))
            except DataError as error:
                reply = pickle.dumps(("refused", str(error)))
            except Exception as error:  # noqa: BLE001 - what cannot be pickled says so in any way
                reply = pickle.dumps(("raised", _one_line(error)))
            connection.send_bytes(reply)
    if environment is not None:
        environment.close()


def _one_line(error: Exception) -> str:
    """Name the error, its message, and where in the code it was raised."""
    message = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    frames = extract_tb(error.__traceback__)
    return (
        f"{message}, at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}"
        if frames
        else message
    )
