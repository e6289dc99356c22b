"""The list of commands, and how the first word chooses one."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from core import DataError, cli


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


class Entries(list):
    """The entry points of the group `joinery.commands`."""

    names = ("hello",)

    def __getitem__(self, name):
        return next(entry for entry in self if entry.name == name)


class Entry:
    """An entry point."""

    def __init__(self, name, load):
        self.name, self.module, self.value, self.load = name, "stranger", f"stranger:{name}", load
        self.dist = SimpleNamespace(name="joinery-stranger", version="1.2")


def raise_mistake(arguments):
    raise DataError(f"no such file: {arguments[0]}")


def raise_key_error(arguments):
    return {}[arguments[0]]


def raise_import_error():
    raise ImportError("no module named stranger")


@pytest.mark.parametrize(
    ("entry", "code", "error"),
    [
        (Entry("hello", lambda: lambda arguments: None), 0, ""),
        (Entry("hello", lambda: lambda arguments: 3), 3, ""),
        (Entry("hello", lambda: raise_mistake), 1, "error: no such file: a\n"),
        (
            Entry("hello", lambda: raise_key_error),
            1,
            "error: command 'hello' of joinery-stranger 1.2: KeyError: 'a', at ",
        ),
        (
            Entry("hello", raise_import_error),
            1,
            "error: command 'hello' of joinery-stranger 1.2: ImportError: no module named stranger",
        ),
    ],
)
def test_a_command_of_a_plugin_is_run_as_ours_are(monkeypatch, capsys, entry, code, error):
    monkeypatch.setattr(cli, "entry_points", lambda group: Entries([entry]))
    assert cli.main(["hello", "a"]) == code
    assert capsys.readouterr().err.startswith(error)
    assert cli.main(["--help"]) == 0
    assert "  hello      by stranger" in capsys.readouterr().out
