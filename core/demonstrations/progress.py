"""Shows the progress of a collection of demonstrations."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console

from core.demonstrations.schedule import ProgressCallback, TaskProgress
from core.system.progress import Progress


@contextmanager
def live_progress(episodes: int, console: Console) -> Iterator[ProgressCallback]:
    """Show progress while the block runs; yields the callback for `collect`.

    episodes: number of demonstrations that each task should have.
    """
    with Progress("collecting", "demonstrations", None, console) as progress:
        started = time.perf_counter()

        def report(tasks: Mapping[str, TaskProgress]) -> None:
            kept = sum(task.kept for task in tasks.values())
            tried = sum(task.tried for task in tasks.values())
            frames = sum(task.frames for task in tasks.values())
            seconds = max(time.perf_counter() - started, 1e-9)
            progress.update(
                sum(min(task.kept, episodes) for task in tasks.values()),
                episodes * len(tasks),
                f"{kept / max(1, tried):.1%} successful  {frames / seconds:.0f} frames/s",
            )

        yield report
