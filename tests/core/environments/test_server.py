import pickle
from collections.abc import Callable
from typing import Any

import pytest

from core.environments.server import Server
from core.environments.workers import EnvironmentSpec
from core.errors import DataError
from tests.strange import SilentError
from tests.toy_environment import ToyConfig, ToyEnvironment


def server_of(build: Callable[..., Any] = ToyEnvironment) -> Server:
    return Server(pickle.dumps(EnvironmentSpec("toy", build, ToyConfig())))


def reply(server: Server, function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    kind, value = pickle.loads(server.reply(pickle.dumps((function, arguments))))
    return kind, value


def raise_error(environment: ToyEnvironment, error: BaseException) -> None:
    raise error


def count_tasks(environment: ToyEnvironment) -> int:
    return len(environment.tasks)


def return_a_function(environment: ToyEnvironment) -> Callable[[], None]:
    return lambda: None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError("two\nlines"), ("data error", "two lines")),
        (DataError(), ("data error", "DataError")),
        (RuntimeError("broke\nin two"), ("raised", "RuntimeError: broke in two, at ")),
        (SystemExit(3), ("raised", "SystemExit: 3, at ")),
        (GeneratorExit(), ("raised", "GeneratorExit, at ")),
        (
            SilentError(),
            ("raised", "SilentError: its message cannot be shown (ValueError), at "),
        ),
    ],
)
def test_whatever_is_raised_is_a_reply_of_one_line(
    error: BaseException, expected: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = server_of()
    kind, text = reply(server, raise_error, error)
    assert (kind, text[: len(expected[1])]) == expected
    assert "\n" not in text
    assert reply(server, count_tasks) == ("returned", 2)  # it goes on
    assert not capsys.readouterr().err


def test_a_result_that_cannot_be_pickled_is_a_reply() -> None:
    kind, text = reply(server_of(), return_a_function)
    assert kind == "raised"
    assert "pickle" in text.lower()


class Unclosable(ToyEnvironment):
    def close(self) -> None:
        raise SystemExit("no renderer")


def test_closing_is_quiet_whatever_it_raises(capsys: pytest.CaptureFixture[str]) -> None:
    server = server_of(Unclosable)
    server.close()  # nothing was built
    reply(server, count_tasks)
    server.close()
    assert not capsys.readouterr().err
