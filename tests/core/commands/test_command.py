import pytest

from core import ConfigError, JoineryError, command


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
