"""Batches for training: frames are decoded by threads of this process, straight into batch buffers used in turn."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, pairwise
from threading import Lock
from time import perf_counter

import numpy as np
import torch

from core.contracts import Batch
from core.data.buffers import BatchBuffer
from core.data.mixture import Mixture

Draw = Callable[[int], tuple[int, int]]  # position -> which member of the mixture, and which of its windows


@dataclass(frozen=True)
class _Job:
    """A batch on its way: its number of windows, where they are decoded to, and what each thread still owes."""

    size: int
    buffer: BatchBuffer
    shares: Sequence[Future[None]]


class Loader:
    """Reads windows of a mixture of stores into normalised, tokenised batches.

    A batch on the CPU is a view of a buffer that is used again: be done with it before asking for the next one, or
    clone what you keep. On CUDA the buffers are pinned and the batch is a copy on the device.

    tokenize is called once per distinct instruction, in a decoding thread. `waited` sums the seconds in which the
    consumer waited for a batch.
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

    def batches(self, seed: int, first: int = 0, rank: int = 0, world: int = 1) -> Generator[Batch, None, None]:
        """Yield shuffled batches without end, from global step `first`; `world` processes share each step's windows."""
        size = self.batch_size
        begins = count((first * world + rank) * size, size * world)
        spans = (range(begin, begin + size) for begin in begins)
        return self._run(spans, lambda position: self.mixture.draw(position, seed))

    def once(self, rank: int = 0, world: int = 1) -> Generator[Batch, None, None]:
        """Yield every window once, in order; the last batch may be smaller, `world` processes take turns."""
        size, total = self.batch_size, self.mixture.window_count
        spans = (range(begin, min(begin + size, total)) for begin in range(rank * size, total, size * world))
        return self._run(spans, self.mixture.at)

    def _run(self, spans: Iterator[range], drawn: Draw) -> Generator[Batch, None, None]:
        """Keep `prefetch` batches in flight, submitted by the consumer itself whenever it asks for the next."""
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
            masks_cameras=self.mixture.lacks_cameras,
            pinned=self._device.type == "cuda",
        )

    def _submit(self, pool: ThreadPoolExecutor, span: range, drawn: Draw, buffer: BatchBuffer) -> _Job:
        """Give each thread an equal share of the batch's rows: one future per thread, not per sample."""
        buffer.wait_until_copied()
        for number, member in enumerate(self.mixture.members):
            member.prepare(index for of, index in map(drawn, span) if of == number)
        bounds = [len(span) * share // self._threads for share in range(self._threads + 1)]
        shares = [range(low, high) for low, high in pairwise(bounds) if low < high]
        return _Job(len(span), buffer, [pool.submit(self._fill, buffer, rows, span, drawn) for rows in shares])

    def _wait(self, job: _Job) -> None:
        began = perf_counter()
        try:
            for share in job.shares:
                share.result()
        finally:
            self.waited += perf_counter() - began

    def _batch(self, job: _Job) -> Batch:
        rows = zip(job.buffer.members[: job.size].tolist(), job.buffer.episodes[: job.size].tolist(), strict=True)
        sources = [(self.mixture.members[number], episode) for number, episode in rows]
        instructions = [member.view.store.instruction(episode) for member, episode in sources]
        text = [self._ids[instruction] for instruction in instructions]
        batch = job.buffer.batch(instructions, text, [member.episode_id(episode) for member, episode in sources])
        return job.buffer.copy(batch, self._device) if self._device.type == "cuda" else batch

    # ------------------------------------------------------------------------------ in the decoding threads

    def _fill(self, buffer: BatchBuffer, rows: range, span: range, drawn: Draw) -> None:
        """Fill some rows, those of one member after those of another."""
        draws = np.array([drawn(span[row]) for row in rows])  # (rows 2)
        for number, member in enumerate(self.mixture.members):
            chosen = np.flatnonzero(draws[:, 0] == number)
            if not len(chosen):
                continue
            places = [member.windows.locate(index) for index in draws[chosen, 1].tolist()]
            mine = rows.start + chosen
            buffer.members[mine], buffer.episodes[mine] = number, [episode for episode, _ in places]
            for episode, _ in places:
                self._learn(member.view.store.instruction(episode))
            member.fill(buffer, mine, places)

    def _learn(self, instruction: str) -> None:
        """Tokenise an instruction the first time that it is seen."""
        if instruction not in self._ids:
            with self._tokenizing:
                if instruction not in self._ids:
                    self._ids[instruction] = np.asarray(self._tokenize(instruction), np.int64)
