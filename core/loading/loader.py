"""Batches for training: threads of this process decode frames straight into reused buffers."""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from time import perf_counter

import numpy as np
import torch

from core.contracts.batch import Batch
from core.loading.buffers import BatchBuffer
from core.loading.mixture import Mixture, Places
from core.loading.order import Order, ShuffledWindows, with_shares


@dataclass(frozen=True)
class _Job:
    """A batch that the loader's threads are filling.

    episodes: ids of the episodes.
    share: the batch's share of the actions that count, as in Batch.
    buffer: the memory of the batch.
    tasks: the tasks by which the loader's threads fill the buffer.
    """

    episodes: Sequence[str]
    instructions: Sequence[str]
    share: float
    buffer: BatchBuffer
    tasks: Sequence[Future[None]]


class Loader:
    """Reads windows of a mixture into normalised, tokenised batches.

    A batch on the CPU is a view of a buffer that later batches overwrite: finish with the batch
    before you ask for the next batch, or clone what you keep. On CUDA the buffers are pinned, and
    the batch is a copy on the device.

    order: which windows each batch holds; default: shuffled windows of the mixture.
    tokenize: called once per distinct instruction, in a decoding thread.
    threads: number of decoding threads.
    prefetch: number of batches that are prepared ahead.
    waited: seconds for which the consumer has waited for batches so far.
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
        order: Order | None = None,
    ) -> None:
        self.mixture = mixture
        self.order: Order = order or ShuffledWindows(mixture)
        self.batch_size = batch_size
        self.waited = 0.0
        self._tokenize = tokenize
        self._threads = threads
        self._prefetch = prefetch
        self._device = device
        self._ids: dict[str, np.ndarray] = {}
        self._tokenizing = Lock()

    def batches(
        self, seed: int, first: int = 0, rank: int = 0, world: int = 1, micro_batches: int = 1
    ) -> Generator[Batch, None, None]:
        """Yield batches for training without end, in the loader's order.

        `world` processes take the batches in turn; `rank` is the index of this process. `first` is
        the number of batches that each process skips at the beginning. An optimiser step has
        `micro_batches` batches of each process.
        """
        return self._run(
            with_shares(self.order, self.batch_size, seed, first, rank, world, micro_batches)
        )

    def once(self, rank: int = 0, world: int = 1) -> Generator[Batch, None, None]:
        """Yield every window once, in the loader's order; batches may be smaller.

        `world` processes take the batches in turn; `rank` is the index of this process.
        """
        return self._run((places, 1.0) for places in self.order.once(self.batch_size, rank, world))

    def _run(self, batches: Iterator[tuple[Places, float]]) -> Generator[Batch, None, None]:
        """Yield a batch of windows at these places, while `prefetch` further ones are prepared.

        batches: the places of each batch, and its share of the actions that count.

        When the consumer asks for a batch, the consumer's thread submits the tasks that fill later
        batches.
        """
        free = deque(self._make_buffer() for _ in range(self._prefetch + 1))
        jobs: deque[_Job] = deque()
        pool = ThreadPoolExecutor(self._threads, "loader")
        try:
            while True:
                while free and (batch := next(batches, None)) is not None:
                    jobs.append(self._submit(pool, *batch, free.popleft()))
                if not jobs:
                    return
                job = jobs.popleft()
                yield self._finish(job)
                free.append(job.buffer)
        finally:
            pool.shutdown(cancel_futures=True)

    def _make_buffer(self) -> BatchBuffer:
        member = self.mixture.members[0]  # all members have windows of the same sizes
        return BatchBuffer(
            self.batch_size,
            member.dataset.view.info,
            window=member.windows.window,
            horizon=member.windows.horizon,
            lacking=self.mixture.lacking,
            pinned=self._device.type == "cuda",
        )

    def _submit(
        self, pool: ThreadPoolExecutor, places: Places, share: float, buffer: BatchBuffer
    ) -> _Job:
        """Submit a batch's tasks: one for numbers and text, others for images and features."""
        buffer.wait_until_copied()
        self.mixture.prepare(places)
        episodes, instructions = self.mixture.episodes_and_instructions(places)
        tasks = [pool.submit(self._fill_numbers_and_text, buffer, places, set(instructions))]
        for first in range(self._threads):
            rows = slice(first, None, self._threads)
            tasks.append(pool.submit(self.mixture.fill_images, buffer, places, rows))
        return _Job(episodes, instructions, share, buffer, tasks)

    def _finish(self, job: _Job) -> Batch:
        """Wait until the threads have filled a batch, and return the batch on the device."""
        start = perf_counter()
        try:
            for task in job.tasks:
                task.result()
        finally:
            self.waited += perf_counter() - start
        text = [self._ids[instruction] for instruction in job.instructions]
        batch = job.buffer.batch(job.instructions, text, job.episodes, job.share)
        return job.buffer.copy(batch, self._device) if self._device.type == "cuda" else batch

    def _fill_numbers_and_text(
        self, buffer: BatchBuffer, places: Places, instructions: Collection[str]
    ) -> None:
        """Fill all but images and features, and tokenise new instructions; runs in a thread."""
        self.mixture.fill_numbers(buffer, places)
        for instruction in instructions:
            if instruction in self._ids:
                continue
            with self._tokenizing:
                if instruction not in self._ids:  # another thread may have tokenised it meanwhile
                    self._ids[instruction] = np.asarray(self._tokenize(instruction), np.int64)
