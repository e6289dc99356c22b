from io import StringIO

from rich.console import Console

from core.rollout.display import show
from core.rollout.results import STANDARD, EpisodeResult, Evaluation


def test_names_and_reasons_are_shown_as_they_are():
    """Square brackets are markup to the console, and an unpaired one an exception."""
    task, tier, reason = "lift[red]", "[/easy]", "raised (KeyError: [/left])"
    failed = EpisodeResult(STANDARD, task, 7, "lift it", False, 3, reason)
    time = {"inference_ms": 1.0, "steps_per_second": 1.0, "seconds": 3.0}
    console = Console(file=StringIO(), width=100)
    show(Evaluation({}, {}, {"lanes": 1}, {task: tier}, [failed], [], time), console)
    shown = console.file.getvalue().splitlines()
    assert shown[1].split()[0] == task
    assert any(line.startswith(f"mean of {tier} ") for line in shown)
    assert shown[-1] == f"standard {task}/7: {reason}; counted as failed"
