"""The list of commands, and how the first word chooses one."""

import subprocess
import sys

from core import cli


def test_an_unknown_command_lists_the_known(capsys):
    assert cli.main(["trian"]) == 2
    shown = capsys.readouterr().err
    assert [name for name in cli.COMMANDS if name not in shown] == []
    assert cli.main(["--help"]) == 0


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "core.cli", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: joinery COMMAND")
