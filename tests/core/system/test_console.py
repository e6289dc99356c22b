import io
import os
import sys

import pytest

from core.system.console import errors, output


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets are no markup, colons no emoji, and a long line is not broken."""
    line = "reach[/red] :warning: " + "a" * 300
    output().print(line)
    errors().print(line)
    assert capsys.readouterr() == (f"{line}\n", f"{line}\n")


def test_a_quiet_console_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output(quiet=True).print("a line")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("columns", "width"), [("40", 40), ("", 1000), (None, 1000)])
def test_a_log_has_no_width_unless_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    assert output().width == width


def test_a_program_goes_on_after_its_reader_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        console = output()
        for number in range(3):
            console.print(f"line {number}")


def test_no_stream_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    output().print("a line")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    output().print("a line")
