"""Runs functions on one environment, in the environment's process.

It imports only what its environment needs: neither torch nor, before the environment itself, numpy.
"""

import pickle
from typing import TYPE_CHECKING

from core.errors import DataError
from core.system.tracebacks import error_in_one_line, message_of, show_traceback

if TYPE_CHECKING:  # a worker must limit the threads of libraries before it imports numpy
    from core.environments.environment import Environment
    from core.environments.workers import EnvironmentSpec


class Server:
    """Runs submitted functions on one environment, which it builds for the first of them.

    pickled_spec: the pickled EnvironmentSpec.
    """

    def __init__(self, pickled_spec: bytes) -> None:
        self._pickled_spec = pickled_spec
        self._environment: Environment | None = None
        self._package = ""

    def reply(self, job: bytes) -> bytes:
        """Run a pickled (function, arguments); return a pickled (kind, value).

        Whatever the plugin's code raises becomes a reply of one line, SystemExit included.
        """
        try:
            if self._environment is None:
                spec: EnvironmentSpec = pickle.loads(self._pickled_spec)
                self._package = spec.package
                self._environment = spec.make()
            function, arguments = pickle.loads(job)
            return pickle.dumps(("returned", function(self._environment, *arguments)))
        except DataError as error:
            message = " ".join(message_of(error).split()) or type(error).__name__
            return pickle.dumps(("data error", message))
        except BaseException as error:  # noqa: BLE001 - a plugin raises any type
            show_traceback(error)
            return pickle.dumps(("raised", error_in_one_line(error, self._package)))

    def close(self) -> None:
        """Close the environment; what it raises is of no use to anybody any more."""
        if self._environment is None:
            return
        try:
            self._environment.close()
        except BaseException as error:  # noqa: BLE001 - a plugin raises any type
            show_traceback(error)
