"""Recordings of attempts that become films, encoded while the evaluation goes on."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore
from typing import IO, TypeVar

import numpy as np
from av.error import FFmpegError

from core.environments.environment import Observation
from core.episodes.episode import ActionConvention, StoreInfo
from core.errors import DataError
from core.evaluation.files import write_errors_as_data_errors
from core.evaluation.film_files import FilmEncoder, FilmFacts, place_cameras, save_film
from core.rollout.results import EpisodeResult
from core.system.strict import one_line

# At most this many observations wait to be encoded. While so many wait, the evaluation waits, too.
MOST_WAITING = 32

T = TypeVar("T")


class EncodingThread:
    """One thread that encodes all films, so that the evaluation need not wait for them.

    FFmpeg encodes without Python's lock.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="films")
        self._places = BoundedSemaphore(MOST_WAITING)

    def submit(self, function: Callable[..., T], *arguments: object) -> "Future[T]":
        """Let the thread call a function, after those that were submitted before."""
        self._places.acquire()
        future = self._pool.submit(function, *arguments)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def close(self) -> None:
        """Wait for all calls, and end the thread."""
        self._pool.shutdown()


class FilmRecording:
    """What an attempt's policy sees and does, on its way to a film.

    folder: where the film may be saved later.
    info: names the cameras and the gripper.
    is_dropped: whether the film is not wanted any more; frames are then forgotten at once.
    """

    def __init__(self, folder: Path, info: StoreInfo, thread: EncodingThread) -> None:
        self._action, self._thread = info.action, thread
        self._cameras = place_cameras(info.cameras)
        self._encoder = FilmEncoder(folder, self._cameras)
        self._frames = 0
        # for each frame the last action (A) before it; for the first frame, the first action
        self._commands: list[np.ndarray] = []
        self.is_dropped = False
        self._error: Exception | None = None

    def add_observation(self, observation: Observation) -> None:
        """Let the thread encode a frame."""
        if not self.is_dropped:
            self._frames += 1
            self._thread.submit(self._encode, observation.images)

    def add_actions(self, actions: np.ndarray) -> None:
        """Note the actions (n A) that were applied since the newest observation."""
        # copies, since the actions are a view of the chunks of all rows
        first = [] if self._commands else [actions[0].copy()]
        self._commands += [*first, actions[-1].copy()]

    def save(self, path: Path, result: EpisodeResult) -> None:
        """Wait for the last frames, write the film and forget it.

        Raises DataError if it cannot be encoded or written.
        """
        try:
            with write_errors_as_data_errors(path):
                save_film(path, self._thread.submit(self._finish).result(), self._facts(result))
        except FFmpegError as error:
            raise DataError(
                f"{path}: FFmpeg cannot encode it ({one_line(error)}); install it again: "
                "pip install --force-reinstall av"
            ) from error
        finally:
            self.drop()

    def drop(self) -> None:
        """Forget the film; the thread frees its memory and its file next."""
        self.is_dropped = True
        self._thread.submit(self._encoder.close)

    def _encode(self, images: Mapping[str, np.ndarray]) -> None:
        """Encode a frame, in the thread; an error is kept until the film is saved."""
        if self.is_dropped or self._error:
            return
        try:
            self._encoder.add(images)
        except Exception as error:  # noqa: BLE001 - raised again by `_finish`
            self._error = error

    def _finish(self) -> IO[bytes]:
        """Encode what is left, in the thread."""
        if self._error:
            raise self._error
        return self._encoder.finish()

    def _facts(self, result: EpisodeResult) -> FilmFacts:
        gripper = None
        if self._commands and self._action.grippers:
            opening = gripper_opening(np.stack(self._commands), self._action)
            gripper = tuple(opening.round(3).tolist())
        return FilmFacts(
            task=result.task,
            instruction=result.instruction,
            seed=result.seed,
            success=result.success,
            cameras=self._cameras,
            frames=self._frames,
            gripper=gripper,
        )


def gripper_opening(commands: np.ndarray, action: ActionConvention) -> np.ndarray:
    """Return how far commands (n A) open the first gripper (n): 0 closed, 1 open.

    The action must have a gripper.
    """
    gripper = action.grippers[0]
    command = commands[:, gripper.dimension]
    opening: np.ndarray = (command - gripper.closed) / (gripper.open - gripper.closed)
    return opening.clip(0, 1)
