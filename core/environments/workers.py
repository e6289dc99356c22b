"""Environments in worker processes. A worker that died, hung or raised can be restarted.

A worker imports only what its environment needs: neither torch nor the modules that read recipes.
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
from typing import TYPE_CHECKING, Any, TypeVarTuple

from core.environments.server import Server
from core.errors import DataError, JoineryError
from core.system.processes import set_up_worker_process
from core.system.tracebacks import error_in_one_line, place_of

if TYPE_CHECKING:  # a worker must limit the threads of libraries before it imports numpy
    from core.environments.environment import Environment, Task
    from core.episodes.episode import StoreInfo
    from core.registry.hookspecs import Build

Arguments = TypeVarTuple("Arguments")

# seconds that an idle process may take to close its environment
GRACE = 5.0
LIBRARIES = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
ENVIRONMENT_ATTRIBUTES = ("info", "tasks", "versions")
ONE_THREAD = {f"{library}_THREADS": "1" for library in LIBRARIES}


@dataclass(frozen=True)
class EnvironmentSpec:
    """How to build an environment in another process.

    name: the environment's name in recipes.
    build, config: the plugin's `build` function or class, and its configuration; both are pickled.
    plugin: the plugin that registered it, with package and version, for messages.
    """

    name: str
    build: "Build"
    config: Any
    plugin: str = ""

    def __str__(self) -> str:
        return f"environment '{self.name}'" + (f" of plugin {self.plugin}" if self.plugin else "")

    @property
    def package(self) -> str:
        """The package whose code is the environment's own; a built-in one is a package itself."""
        words = self.build.__module__.split(".")
        return ".".join(words[:3] if words[0] == "plugins" else words[:1])

    def make(self) -> "Environment":
        """Build the environment; every error of the plugin's `build` is passed on.

        Raises DataError if what it built is no environment, or if an attribute is missing or is not
        what it must be.
        """
        from core.environments.attributes import attribute_mistakes
        from core.environments.environment import Environment

        environment: Any = self.build(self.config)
        if not isinstance(environment, Environment):
            raise DataError(
                f"{self}: its build made a {type(environment).__name__}, which is not derived from "
                f"core.environments.Environment{place_of(self.build)}"
            )
        if unset := [name for name in ENVIRONMENT_ATTRIBUTES if not hasattr(environment, name)]:
            raise DataError(
                f"{self}: it must set self.{' and self.'.join(unset)}{place_of(self.build)}"
            )
        if (mistake := next(attribute_mistakes(environment), None)) is not None:
            raise DataError(f"{self}: {' '.join(mistake.split())}{place_of(self.build)}")
        return environment


@dataclass(frozen=True)
class Description:
    """An environment's attributes; see `Environment` for their meaning.

    has_expert: whether the environment overrides `expert`.
    scene_differences: what `core.environments.repeatability` found; None if nobody looked.
    """

    info: "StoreInfo"
    tasks: Mapping[str, "Task"]
    versions: Mapping[str, str]
    replayable: bool = True
    has_expert: bool = True
    scene_differences: Mapping[str, float] | None = None


def describe(environment: "Environment") -> Description:
    """Return an environment's attributes; `Worker.submit` can run this function."""
    from core.environments.environment import Environment

    return Description(
        environment.info,
        dict(environment.tasks),
        dict(environment.versions),
        bool(environment.replayable),
        type(environment).expert is not Environment.expert,
    )


class EnvironmentFailed(JoineryError):  # noqa: N818 (results name it as the reason of a failure)
    """An environment's process died, hung or raised; the message is the reason, in one line."""


class Worker:
    """One environment in a separate process, which ends at the latest when this process ends.

    The process builds the environment when the first function is submitted.

    timeout: seconds that a submitted function may take, including the time to build the
        environment.
    connection: becomes readable when a result has arrived; `multiprocessing.connection.wait` can
        wait for it.
    """

    connection: "Connection[Any, Any]"
    _deadline: float | None  # of the submitted function; None if no function runs

    def __init__(self, spec: EnvironmentSpec, timeout: float) -> None:
        """Start the process; raises DataError if the spec cannot be pickled."""
        self.spec, self.timeout = spec, timeout
        try:
            self._pickled_spec = pickle.dumps(spec)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise DataError(
                f"{spec} cannot be built in another process ({error}); "
                "register a class or a function of a module, with a config of plain data"
            ) from error
        self._start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid or 0

    @property
    def time_left(self) -> float:
        """Seconds until the submitted function counts as hung."""
        if self._deadline is None:
            return self.timeout
        return max(0.0, self._deadline - time.monotonic())

    def submit(
        self, function: "Callable[[Environment, *Arguments], Any]", *arguments: *Arguments
    ) -> None:
        """Start `function(environment, *arguments)` in the process.

        The function must be defined at the top level of a module. Call `result` before the next
        `submit`.
        """
        assert self._deadline is None, "a worker runs one function at a time: take its result first"
        job = pickle.dumps((function, arguments))
        self._deadline = time.monotonic() + self.timeout
        with suppress(BrokenPipeError, ConnectionResetError):  # `result` reports the death
            self.connection.send_bytes(job)

    def result(self) -> Any:
        """Wait for the submitted function and return what it returned.

        Raises EnvironmentFailed if the process died, hung or raised; a process that hung is killed.
        Afterwards, `restart` starts a fresh environment.

        Raises DataError if the environment raised DataError.
        """
        assert self._deadline is not None, "nothing was submitted"
        arrived = self.connection.poll(self.time_left)
        self._deadline = None
        if not arrived:
            self._kill()
            raise EnvironmentFailed(f"hung ({self.timeout:g} s)")
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):  # OSError: the process died while it was sending
            raise EnvironmentFailed(f"died ({self._cause_of_death()})") from None
        except Exception as error:  # noqa: BLE001 - what a plugin returned raises when it is read
            raise EnvironmentFailed(f"raised ({error_in_one_line(error)})") from None
        if kind == "raised":
            raise EnvironmentFailed(f"raised ({value})")
        if kind == "data error":
            raise DataError(value)
        return value

    def restart(self) -> None:
        """Kill the process and start a fresh one."""
        self._kill()
        self._start()

    def close(self) -> None:
        """End the process: at once if it is busy, otherwise GRACE seconds from now at the latest.

        An idle process closes its environment first.
        """
        self.connection.close()
        if self._deadline is None:
            self._process.join(GRACE)
        self._kill()

    def _start(self) -> None:
        context = _process_context()
        self.connection, child_connection = context.Pipe()
        self._deadline = None
        self._process = context.Process(
            target=_serve, args=(child_connection,), name=f"joinery {self.spec.name}", daemon=True
        )
        self._process.start()
        # After this, only the child holds the child's end of the pipe. So the pipe closes when the
        # child dies.
        child_connection.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(self._pickled_spec)

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
    """Start `count` workers of one environment, and close them at the end of the block."""
    workers: list[Worker] = []
    try:
        workers.extend(Worker(spec, timeout) for _ in range(count))
        yield workers
    finally:
        for worker in workers:
            # All connections are closed first, so that the idle processes end at the same time.
            worker.connection.close()
        for worker in workers:
            worker.close()


def wait_for_any(workers: Sequence[Worker]) -> list[Worker]:
    """Wait until a worker has a result or has taken too long; return all such workers."""
    time_left = min(worker.time_left for worker in workers)
    ready = set(wait([worker.connection for worker in workers], time_left))
    return [worker for worker in workers if worker.connection in ready or worker.time_left == 0]


def _process_context() -> Any:
    """Return the context that starts processes: as forks of a fork server, or else from scratch.

    This process has threads that may hold locks, so a fork of it could hang. The fork server has
    neither threads nor locks, but not every operating system offers it.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


# --------------------------------------------------------------------- in the environment's process


def _serve(connection: "Connection[Any, Any]") -> None:
    """Run submitted functions until the other side closes the connection."""
    # Several workers share the cores, so each worker uses one thread.
    os.environ.update(ONE_THREAD)
    set_up_worker_process()
    with connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        server = Server(connection.recv_bytes())
        try:
            while True:
                connection.send_bytes(server.reply(connection.recv_bytes()))
        finally:
            server.close()
