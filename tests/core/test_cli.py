import subprocess
import sys

import pytest

from core import cli
from core.errors import JoineryError, RecipeError


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (RecipeError(["one", "two"]), 2, "error: one\nerror: two\n"),
        (JoineryError("a damaged store"), 1, "error: a damaged store\n"),
        (FileExistsError(17, "File exists", "runs/a"), 1, "error: runs/a: File exists\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_mistake_is_a_line_and_an_exit_code(capsys, error, code, shown):
    @cli.command
    def main(argv=None):
        raise error

    assert main([]) == code
    assert capsys.readouterr().err == shown


def test_an_error_of_our_own_keeps_its_traceback():
    @cli.command
    def main(argv=None):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


def test_an_unknown_command_lists_the_known(capsys):
    assert cli.main(["trian"]) == 2
    shown = capsys.readouterr().err
    assert [name for name in cli.COMMANDS if name not in shown] == []
    assert cli.main(["--help"]) == 0


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "core.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: joinery COMMAND")
