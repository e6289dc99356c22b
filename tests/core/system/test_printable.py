"""What a stranger wrote is shown on a terminal, and not obeyed by it."""

import unicodedata

import pytest
from hypothesis import given, strategies as st
from rich.table import Table
from rich.text import Text

from core.commands.command import command
from core.errors import ConfigError, DataError
from core.system.console import MISLEADING, errors, output, printable
from core.system.tracebacks import show_traceback

HOSTILE = "lift\x1b[2J\x1b]0;title\x07 \u202egnp.exe\x9b31m\r\x00\u2028"


def codes(text: str) -> list[str]:
    """The characters of a text that a terminal obeys, apart from the ends of lines and tabs."""
    controls = [c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    return controls + [c for c in text if c in MISLEADING]


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Lu"])))
def test_no_code_is_left_and_all_else_stays(text: str) -> None:
    shown = printable(text)
    assert not codes(shown)
    assert printable(shown) == shown
    if not codes(text):
        assert shown == text


def test_words_of_all_languages_stay() -> None:
    words = "öffne die Schublade\nшагай\t抽屉を開ける \N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET} שלום"  # noqa: RUF001
    assert printable(words) == words


def test_codes_are_written_out() -> None:
    assert printable("a\x1b[31mb\r\u202e") == r"a\x1b[31mb\r\u202e"


def test_no_way_of_printing_lets_a_code_through(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    for console in (output(), errors()):
        for renderable in (HOSTILE, Text(HOSTILE), table, {"task": HOSTILE}):
            console.print(renderable)
    captured = capsys.readouterr()
    assert r"\x1b[2J" in captured.out
    assert not codes(captured.out + captured.err)


def test_a_traceback_lets_no_code_through(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOINERY_TRACEBACK", "1")
    show_traceback(DataError(HOSTILE))
    shown = capsys.readouterr().err
    assert r"DataError: lift\x1b[2J" in shown
    assert not codes(shown)


def test_a_table_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("task", "success")
    table.add_row("lift\x1b[2J", "1")
    table.add_row("push", "2")
    output().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1


def test_colours_of_our_own_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    output().print(Text("red\x1b[2J", style="red"))
    shown = capsys.readouterr().out
    assert "\x1b[31m" in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize("kind", [DataError, ConfigError])
def test_messages_that_quote_a_stranger_hold_no_codes(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main(_: list[str] | None = None) -> int:
        raise kind(f"task '{HOSTILE}': unknown")

    assert main([]) != 0
    captured = capsys.readouterr()
    assert "error: task 'lift" in captured.err
    assert not codes(captured.err)


def test_too_little_memory_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def main(_: list[str] | None = None) -> int:
        raise MemoryError("Unable to allocate 9. EiB")

    assert main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: not enough memory")
