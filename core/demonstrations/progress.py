"""How far the recording of demonstrations is."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console

from core.demonstrations.schedule import Report, TaskRecord
from core.system.progress import Progress


@contextmanager
def live_progress(episodes: int, console: Console) -> Iterator[Report]:
    """Show how far `collect` is; yields the function that it is to call.

    episodes: demonstrations of each task.
    """
    with Progress("collecting", "demonstrations", None, console) as progress:
        started = time.perf_counter()

        def report(records: Mapping[str, TaskRecord]) -> None:
            kept = sum(record.kept for record in records.values())
            tried = sum(record.tried for record in records.values())
            frames = sum(record.frames for record in records.values())
            seconds = max(time.perf_counter() - started, 1e-9)
            progress.update(
                sum(min(record.kept, episodes) for record in records.values()),
                episodes * len(records),
                f"{kept / max(1, tried):.1%} successful  {frames / seconds:.0f} frames/s",
            )

        yield report
