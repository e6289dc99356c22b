"""How errors end a command."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from core import ConfigError, JoineryError, command
from core.commands.command import local_path, positive


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (ConfigError(["one", "two"]), 2, "error: one\nerror: two\n"),
        (JoineryError("a damaged store"), 1, "error: a damaged store\n"),
        (FileExistsError(17, "File exists", "runs/a"), 1, "error: runs/a: File exists\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_mistake_is_a_line_and_an_exit_code(capsys, error, code, shown):
    @command
    def main(argv=None):
        raise error

    assert main([]) == code
    assert capsys.readouterr().err == shown


def test_an_error_of_our_own_keeps_its_traceback():
    @command
    def main(argv=None):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


def test_a_closed_pipe_is_no_mistake(capsys):
    @command
    def main(argv=None):
        raise BrokenPipeError

    assert main([]) == 0
    assert capsys.readouterr().err == ""


def test_arguments_are_parsed_or_refused():
    assert positive("12") == 12
    for text in ("0", "-1", "1.5", "x"):
        with pytest.raises(ArgumentTypeError, match="expected a whole number above zero"):
            positive(text)
    assert local_path("a.zarr") == Path("a.zarr")
    with pytest.raises(ArgumentTypeError, match="episodes are written to a folder"):
        local_path("s3://bucket/a.zarr")
