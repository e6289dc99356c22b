"""How errors end a command."""

import os
import signal
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from core import ConfigError, JoineryError, command
from core.commands.command import CommandParser, local_path, path, positive


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


@pytest.mark.parametrize(("reads", "code"), [(False, 0), (True, 1)])
def test_a_closed_pipe_is_no_mistake_unless_it_is_another_one(monkeypatch, capsys, reads, code):
    @command
    def main(argv=None):
        raise BrokenPipeError(32, "Broken pipe")

    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        if not reads:
            os.close(reader)
        monkeypatch.setattr(sys, "stdout", stream)
        assert main([]) == code
    assert capsys.readouterr().err == ("error: a file: Broken pipe\n" if reads else "")
    if reads:
        os.close(reader)


def test_what_cannot_be_written_is_a_mistake(monkeypatch, capsys):
    @command
    def main(argv=None):
        print("a line")
        return 0

    with open("/dev/full", "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main([]) == 1
    assert capsys.readouterr().err == "error: standard output: No space left on device\n"


@pytest.mark.parametrize("ending", ["return", "raise"])
def test_ctrl_c_that_a_library_loses_still_ends_the_command(capsys, ending):
    """Compiled code that is being imported makes an ImportError of it."""

    @command
    def main(argv=None):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            if ending == "raise":
                raise JoineryError("plugin 'a' failed") from None
        return 0

    # tests that were started in the background ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main([]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted\n"


@pytest.fixture
def parser():
    parser = CommandParser("train", "Train it.", writes="RUN")
    parser.add_argument("run", type=path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--episodes", type=positive)
    parser.add_argument("--with-changes", action="store_true")
    return parser


def test_options_stand_anywhere_among_the_arguments(parser):
    arguments = parser.parse(["--ep", "3", "run", "--with-changes", "a.b=1", "c=2"])
    assert (arguments.run, arguments.settings) == (Path("run"), ["a.b=1", "c=2"])
    assert (arguments.episodes, arguments.with_changes) == (3, True)
    assert parser.parse(["--ep", "3", "--", "-run", "a=1"]).run == Path("-run")
    assert parser.parse(["a run – ü", "a=-3", "b=--x"]).settings == ["a=-3", "b=--x"]  # noqa: RUF001
    assert parser.format_help().endswith("Writes RUN.\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["run", "--epsiodes", "3"],
            "no option is called '--epsiodes'; did you mean '--episodes'?",
        ),
        (["--epsiodes=3", "run"], "no option is called '--epsiodes'; did you mean '--episodes'?"),
        (["-run"], "no option is called '-run'; if the file or folder is meant, write ./-run"),
        (["-x"], "no option is called '-x'; known: --episodes, --help, --with-changes, -h"),
        (["a.b=1", "run"], "argument run: 'a.b=1' is a setting; names and paths come before the"),
        ([""], "argument run: expected a name or a path, got an empty text"),
        (["run", "--episodes", "0"], "argument --episodes: expected a whole number above zero"),
        ([], "the following arguments are required: run"),
    ],
)
def test_a_mistyped_argument_is_a_line_with_a_way_out(
    tmp_path, monkeypatch, capsys, parser, words, line
):
    monkeypatch.chdir(tmp_path)
    Path("-run").mkdir()
    with pytest.raises(SystemExit) as ended:
        parser.parse(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"joinery train: error: {line}")


def test_a_folder_may_be_called_like_a_setting(tmp_path, monkeypatch, parser):
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").mkdir()
    assert parser.parse(["lr=0.1"]).run == Path("lr=0.1")


def test_arguments_are_parsed_or_refused():
    assert positive("12") == 12
    for text in ("0", "-1", "1.5", "x"):
        with pytest.raises(ArgumentTypeError, match="expected a whole number above zero"):
            positive(text)
    assert local_path("a.zarr") == Path("a.zarr")
    with pytest.raises(ArgumentTypeError, match="episodes are written to a folder"):
        local_path("s3://bucket/a.zarr")
