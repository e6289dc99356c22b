"""Batches for training: frames are decoded by threads of this process, straight into batch buffers
used in turn.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from threading import Lock
from time import perf_counter

import numpy as np
import torch

from core.contracts.batch import Batch
from core.loading.buffers import BatchBuffer
from core.loading.mixture import Mixture, Places

# positions (n) -> which members of the mixture (n), and which of their windows (n)
Draw = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Job:
    """A batch on its way: what its windows are called and told, where they are decoded to, and what
    threads owe.
    """

    episodes: Sequence[str]
    instructions: Sequence[str]
    buffer: BatchBuffer
    owed: Sequence[Future[None]]


class Loader:
    """Reads windows of a mixture of stores into normalised, tokenised batches.

    A batch on the CPU is a view of a buffer that is used again: be done with it before asking for
    the next one, or clone what you keep. On CUDA the buffers are pinned and the batch is a copy on
    the device.

    tokenize is called once per distinct instruction, in a decoding thread. `waited` sums the
    seconds in which the consumer waited for a batch.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        batch_size: int,
        tokenize: Callable[[str], Sequence[int]],
        threads: int,
        prefetch: int,
        device: torch.device,
    ) -> None:
        self.mixture = mixture
        self.batch_size = batch_size
        self.waited = 0.0
        self._tokenize = tokenize
        self._threads = threads
        self._prefetch = prefetch
        self._device = device
        self._ids: dict[str, np.ndarray] = {}
        self._tokenizing = Lock()

    def batches(
        self, seed: int, first: int = 0, rank: int = 0, world: int = 1
    ) -> Generator[Batch, None, None]:
        """Yield shuffled batches without end, from global step `first`; `world` processes share
        each step's windows.
        """
        size = self.batch_size
        begins = count((first * world + rank) * size, size * world)
        spans = (range(begin, begin + size) for begin in begins)
        return self._run(spans, lambda positions: self.mixture.draw(positions, seed))

    def once(self, rank: int = 0, world: int = 1) -> Generator[Batch, None, None]:
        """Yield every window once, in order; the last batch may be smaller, `world` processes take
        turns.
        """
        size, total = self.batch_size, self.mixture.window_count
        spans = (
            range(begin, min(begin + size, total))
            for begin in range(rank * size, total, size * world)
        )
        return self._run(spans, self.mixture.at)

    def _run(self, spans: Iterator[range], drawn: Draw) -> Generator[Batch, None, None]:
        """Keep `prefetch` batches in flight, submitted by the consumer itself whenever it asks for
        the next.
        """
        free = deque(self._buffer() for _ in range(self._prefetch + 1))
        jobs: deque[_Job] = deque()
        pool = ThreadPoolExecutor(self._threads, "loader")
        try:
            while True:
                while free and (span := next(spans, None)) is not None:
                    jobs.append(self._submit(pool, span, drawn, free.popleft()))
                if not jobs:
                    return
                job = jobs.popleft()
                self._wait(job)
                yield self._batch(job)
                free.append(job.buffer)
        finally:
            pool.shutdown(cancel_futures=True)

    def _buffer(self) -> BatchBuffer:
        member = self.mixture.members[0]
        return BatchBuffer(
            self.batch_size,
            member.view.info,
            window=member.windows.window,
            horizon=member.windows.horizon,
            lacking=self.mixture.lacking,
            pinned=self._device.type == "cuda",
        )

    def _submit(
        self, pool: ThreadPoolExecutor, span: range, drawn: Draw, buffer: BatchBuffer
    ) -> _Job:
        """Have a batch filled: numbers and text in one go, images in an equal share of the rows for
        each thread.
        """
        buffer.wait_until_copied()
        places = self.mixture.locate(*drawn(np.arange(span.start, span.stop)))
        self.mixture.prepare(places)
        episodes, instructions = self.mixture.describe(places)
        shares = [slice(first, None, self._threads) for first in range(self._threads)]
        owed = [pool.submit(self._fill_numbers, buffer, places, set(instructions))]
        owed += [pool.submit(self.mixture.fill_images, buffer, places, rows) for rows in shares]
        return _Job(episodes, instructions, buffer, owed)

    def _wait(self, job: _Job) -> None:
        began = perf_counter()
        try:
            for task in job.owed:
                task.result()
        finally:
            self.waited += perf_counter() - began

    def _batch(self, job: _Job) -> Batch:
        text = [self._ids[instruction] for instruction in job.instructions]
        batch = job.buffer.batch(job.instructions, text, job.episodes)
        return job.buffer.copy(batch, self._device) if self._device.type == "cuda" else batch

    # ---------------------------------------------------------------------- in the decoding threads

    def _fill_numbers(
        self, buffer: BatchBuffer, places: Places, instructions: Collection[str]
    ) -> None:
        self.mixture.fill_numbers(buffer, places)
        for instruction in instructions:
            self._learn(instruction)

    def _learn(self, instruction: str) -> None:
        """Tokenise an instruction the first time that it is seen."""
        if instruction not in self._ids:
            with self._tokenizing:
                if instruction not in self._ids:
                    self._ids[instruction] = np.asarray(self._tokenize(instruction), np.int64)
