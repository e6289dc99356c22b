import io
import re

import pytest
from rich.console import Console

from core.system.progress import LINES, Progress


def console(terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=100), text


@pytest.mark.parametrize("total", [5, LINES, 1000])
def test_elsewhere_than_on_a_terminal_some_lines_are_printed(total: int) -> None:
    output, text = console()
    with Progress("importing", "episodes", total, output) as progress:
        for completed in range(1, total + 1):
            progress.update(completed)
    lines = text.getvalue().splitlines()
    assert len(lines) == min(total, LINES)
    assert lines[-1] == f"importing {total}/{total} episodes  0 s left"


def test_the_first_update_may_give_the_total_and_text_follows() -> None:
    output, text = console()
    with Progress("step", "", None, output) as progress:
        progress.update(5, total=10, text="loss 0.5")
        progress.update(6)
    assert text.getvalue().splitlines() == ["step 5/10  loss 0.5", "step 6/10  0 s left"]


def test_time_left_is_measured_from_the_first_update_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done before, 900 of 1,000 for example, took none of this process's time."""
    seconds = iter([0.0, 10.0, 10.0, 15.0])
    monkeypatch.setattr("core.system.progress.time.perf_counter", lambda: next(seconds))
    output, text = console()
    with Progress("importing", "episodes", None, output) as progress:
        progress.update(900, total=1000)
        progress.update(950)
    assert text.getvalue().splitlines()[-1] == "importing 950/1000 episodes  5 s left"


def test_earlier_work_is_not_printed_again() -> None:
    output, text = console()
    with Progress("step", "", 100, output, completed=50) as progress:
        progress.update(51)
        progress.update(55)
    assert [line.split()[1] for line in text.getvalue().splitlines()] == ["55/100"]


def test_the_last_line_is_printed_once() -> None:
    output, text = console()
    with Progress("step", "", 100, output) as progress:
        progress.update(98)
        progress.update(100)
        progress.update(100)
    assert [line.split()[1] for line in text.getvalue().splitlines()] == ["98/100", "100/100"]


def test_a_terminal_shows_a_bar_and_no_lines() -> None:
    output, text = console(terminal=True)
    with Progress("importing", "episodes", 10, output) as progress:
        progress.update(10)
    assert "importing" in text.getvalue()
    assert "s left" not in text.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_in_a_narrow_window_counts_and_times_stay_whole(width: int) -> None:
    text = io.StringIO()
    output = Console(file=text, force_terminal=True, width=width, color_system=None)
    entries = [f"loss_{number} 0.12{number}" for number in range(8)]
    with Progress("step", "attempts", 1000, output, transient=False) as progress:
        progress.update(345, text="  ".join(entries))
    (line,) = [
        line for line in re.split(r"[\r\n]|\x1b\[\S*", text.getvalue())[-6:] if "345" in line
    ]
    assert "345/1000" in line
    assert line.rstrip().endswith("-:--:-- left")
    assert len(line.rstrip()) <= width
    shown = re.findall(r"loss\S* \S+", line)
    assert shown == entries[: len(shown)], "an entry is shown as a whole or not at all"
    assert (len(shown) == 8) == (width == 200)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    output, text = console(terminal=True)
    with Progress("importing", "episodes", 10, output) as progress:
        progress.update(10)
    assert text.getvalue() == "importing 10/10 episodes  0 s left\n"
