"""Clocks of readers: seconds and processor time of some batches in the middle of training."""

import os
from collections.abc import Callable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter, sleep

from torch.utils.data import DataLoader, Dataset, Sampler

from core.loading.loader import Loader
from core.loading.windows import Windows
from tests.benchmarks.reading import PREFETCH, BareLoop, order, places_of

BATCH = 64  # windows, as in most recipes
AHEAD = 2  # batches that each worker of torch's DataLoader prepares, its default
SEED = 0
TICKS = os.sysconf("SC_CLK_TCK")  # per second


@dataclass(frozen=True)
class Reading:
    """windows: per second. cpu: seconds of all processes and threads together, per window."""

    windows: float
    cpu: float


Clock = Callable[[int], Reading]  # reads that many batches


def clock_batches(batches: Iterator[object], ahead: int) -> Clock:
    """Clock a stream of batches that prepares `ahead` batches.

    The clock starts when the batches that are ready have been taken. Before it returns, it waits
    until as many are ready again.
    """

    def read(number: int) -> Reading:
        cpu = cpu_seconds()
        _take(batches, ahead)
        began = perf_counter()
        _take(batches, number)
        seconds = perf_counter() - began
        settle()  # or what is prepared ahead would slow whoever reads next
        return Reading(number * BATCH / seconds, (cpu_seconds() - cpu) / (number + ahead) / BATCH)

    return read


def _take(batches: Iterator[object], number: int) -> None:
    for _ in islice(batches, number):
        pass


def clock_loader(loader: Loader) -> Clock:
    """Clock our Loader."""
    return clock_batches(loader.batches(SEED), PREFETCH)


def clock_bare(windows: Windows, threads: int) -> Clock:
    """Clock the bare loop over the windows that the Loader reads."""
    loop, indices = BareLoop(windows, threads, slots=(PREFETCH + 1) * BATCH), order(windows, SEED)

    def read(number: int) -> Reading:
        places = places_of(windows, islice(indices, number * BATCH))
        cpu, began = cpu_seconds(), perf_counter()
        loop.run(places)
        seconds = perf_counter() - began
        return Reading(len(places) / seconds, (cpu_seconds() - cpu) / len(places))

    return read


def clock_dataset(dataset: Dataset[object], processes: int) -> Clock:
    """Clock torch's DataLoader as its users have it: in the process itself, or with workers."""
    workers = 0 if processes == 1 else processes
    loader = DataLoader(
        dataset,
        BATCH,
        sampler=Shuffled(dataset),  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        # workers are forked from a process that has read nothing yet
        multiprocessing_context="forkserver" if workers else None,
    )
    return clock_batches(iter(loader), AHEAD * workers)


class Shuffled(Sampler[int]):
    """The order in which the Loader reads, without end."""

    def __init__(self, windows: Sized) -> None:
        self.windows = windows

    def __iter__(self) -> Iterator[int]:
        return order(self.windows, SEED)


def settle() -> None:
    """Wait until nothing of this process or its descendants computes."""
    before = -1.0
    while (now := cpu_seconds()) - before > 0.03:
        before = now
        sleep(0.3)


def cpu_seconds() -> float:
    """Seconds of processor that this process and its descendants have used."""
    family = [os.getpid()]
    for process in family:  # grows meanwhile
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):  # a thread may have ended since it was listed
                family += map(int, (task / "children").read_text().split())
    return sum(map(_cpu_seconds, family))


def _cpu_seconds(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS
