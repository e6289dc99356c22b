from io import StringIO

from rich.console import Console

from core.demonstrations.progress import live_progress
from core.demonstrations.schedule import TaskProgress


def test_progress_counts_episodes_success_rate_and_frames() -> None:
    console = Console(file=StringIO(), width=100)
    with live_progress(4, console) as report:
        report({"push": TaskProgress("push", stored=3, tried=6, started=6, frames=30)})
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert line.startswith("collecting 3/4 demonstrations  50.0% successful  ")
    assert "frames/s" in line


def test_a_task_with_more_episodes_than_asked_for_does_not_hide_one_with_fewer() -> None:
    console = Console(file=StringIO(), width=100)
    with live_progress(4, console) as report:
        report({"push": TaskProgress("push", stored=9, tried=9), "lift": TaskProgress("lift")})
    assert "collecting 4/8 demonstrations" in console.file.getvalue()  # type: ignore[attr-defined]
