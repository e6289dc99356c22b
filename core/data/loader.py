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
from core.data.normalization import Normalizer, ProprioNormalizer
from core.data.windows import Windows, window_at


@dataclass(frozen=True)
class _Job:
    """A batch on its way: its number of windows, where they are decoded to, and what each thread still owes."""

    size: int
    buffer: BatchBuffer
    shares: Sequence[Future[None]]


class Loader:
    """Reads windows of a store into normalised, tokenised batches.

    A batch on the CPU is a view of a buffer that is used again: be done with it before asking for the next one, or
    clone what you keep. On CUDA the buffers are pinned and the batch is a copy on the device.

    tokenize is called once per distinct instruction, in a decoding thread. `waited` sums the seconds in which the
    consumer waited for a batch.
    """

    def __init__(
        self,
        windows: Windows,
        *,
        batch_size: int,
        action_normalizer: Normalizer,
        proprio_normalizer: ProprioNormalizer,
        tokenize: Callable[[str], Sequence[int]],
        cameras: Sequence[str],
        threads: int,
        prefetch: int,
        device: torch.device,
    ) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.waited = 0.0
        self._action_normalizer = action_normalizer
        self._proprio_normalizer = proprio_normalizer
        self._tokenize = tokenize
        self._cameras = tuple(cameras)
        self._threads = threads
        self._prefetch = prefetch
        self._device = device
        self._ids: dict[str, np.ndarray] = {}
        self._tokenizing = Lock()
        # (K): the frames of all targets, counted from the window's first; (T H): which of them each target is
        self._steps = np.arange(windows.window + windows.horizon - 1)
        self._reach = np.arange(windows.window)[:, None] + np.arange(windows.horizon)

    def batches(self, seed: int, first: int = 0, rank: int = 0, world: int = 1) -> Generator[Batch, None, None]:
        """Yield shuffled batches without end, from global step `first`; `world` processes share each step's windows."""
        size, total = self.batch_size, len(self.windows)
        begins = count((first * world + rank) * size, size * world)
        spans = (range(begin, begin + size) for begin in begins)
        return self._run(spans, lambda position: window_at(position, total, seed))

    def once(self, rank: int = 0, world: int = 1) -> Generator[Batch, None, None]:
        """Yield every window once, in order; the last batch may be smaller, `world` processes take turns."""
        size, total = self.batch_size, len(self.windows)
        spans = (range(begin, min(begin + size, total)) for begin in range(rank * size, total, size * world))
        return self._run(spans, lambda position: position)

    def _run(self, spans: Iterator[range], window_of: Callable[[int], int]) -> Generator[Batch, None, None]:
        """Keep `prefetch` batches in flight, submitted by the consumer itself whenever it asks for the next."""
        free = deque(self._buffer() for _ in range(self._prefetch + 1))
        jobs: deque[_Job] = deque()
        pool = ThreadPoolExecutor(self._threads, "loader")
        try:
            while True:
                while free and (span := next(spans, None)) is not None:
                    jobs.append(self._submit(pool, span, window_of, free.popleft()))
                if not jobs:
                    return
                job = jobs.popleft()
                self._wait(job)
                yield self._batch(job)
                free.append(job.buffer)
        finally:
            pool.shutdown(cancel_futures=True)

    def _buffer(self) -> BatchBuffer:
        return BatchBuffer(self.batch_size, self.windows, self._cameras, pinned=self._device.type == "cuda")

    def _submit(
        self, pool: ThreadPoolExecutor, span: range, window_of: Callable[[int], int], buffer: BatchBuffer
    ) -> _Job:
        """Give each thread an equal share of the batch's rows: one future per thread, not per sample."""
        buffer.wait_until_copied()
        bounds = [len(span) * share // self._threads for share in range(self._threads + 1)]
        shares = [range(low, high) for low, high in pairwise(bounds) if low < high]
        return _Job(len(span), buffer, [pool.submit(self._fill, buffer, rows, span, window_of) for rows in shares])

    def _wait(self, job: _Job) -> None:
        began = perf_counter()
        try:
            for share in job.shares:
                share.result()
        finally:
            self.waited += perf_counter() - began

    def _batch(self, job: _Job) -> Batch:
        store = self.windows.store
        episodes = job.buffer.episodes[: job.size].tolist()
        instructions = [store.instruction(episode) for episode in episodes]
        text = [self._ids[instruction] for instruction in instructions]
        batch = job.buffer.batch(instructions, text, [store.episode_id(episode) for episode in episodes])
        return job.buffer.copy(batch, self._device) if self._device.type == "cuda" else batch

    # ------------------------------------------------------------------------------ in the decoding threads

    def _fill(self, buffer: BatchBuffer, rows: range, span: range, window_of: Callable[[int], int]) -> None:
        places = [self.windows.locate(window_of(span[row])) for row in rows]
        for row, (episode, start) in zip(rows, places, strict=True):
            buffer.episodes[row] = episode
            self._learn(self.windows.store.instruction(episode))
            self._fill_images(buffer, row, episode, start)
        self._fill_numbers(buffer, slice(rows.start, rows.stop), places)

    def _fill_images(self, buffer: BatchBuffer, row: int, episode: int, start: int) -> None:
        """Frames past the episode's end repeat the last one."""
        real = min(self.windows.window, int(self.windows.store.length[episode]) - start)
        for camera in self._cameras:
            frames = buffer.frames[camera][row]  # (T Y X C)
            self.windows.store.read_frames(camera, episode, start, start + real, frames[:real])
            frames[real:] = frames[real - 1]

    def _fill_numbers(self, buffer: BatchBuffer, rows: slice, places: Sequence[tuple[int, int]]) -> None:
        """Fill masks, actions and proprioception, all rows at once: what lies past an end repeats the last, masked."""
        store, (episodes, starts) = self.windows.store, np.array(places).T
        lengths, steps = store.length[episodes][:, None], starts[:, None] + self._steps  # (rows K)
        frames = np.minimum(steps, lengths - 1)
        within = (steps < lengths)[:, self._reach]  # (rows T H)
        buffer.action_mask[rows], buffer.frame_mask[rows] = within, within[..., 0]
        actions = self._action_normalizer.normalize(store.gather("action", episodes, frames))
        buffer.actions[rows] = actions[:, self._reach]
        proprio = store.gather("proprio", episodes, frames[:, : self.windows.window])
        buffer.proprio[rows] = self._proprio_normalizer.normalize(proprio)

    def _learn(self, instruction: str) -> None:
        """Tokenise an instruction the first time that it is seen."""
        if instruction not in self._ids:
            with self._tokenizing:
                if instruction not in self._ids:
                    self._ids[instruction] = np.asarray(self._tokenize(instruction), np.int64)
