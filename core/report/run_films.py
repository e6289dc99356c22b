"""Makes film strips of a run's recorded attempts: a success and a failure for each task."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.evaluation.film_files import FRAMES_PER_SECOND
from core.report.film_strips import MAX_SIDE, FilmStrip, make_strip, shrink
from core.report.run_rollouts import Rollout, read_rollout, rollout_files

# Maximum number of bytes of all film strips of a run together. The page holds each strip as text
# (base64), which takes a third more bytes than the JPEG.
TOTAL_BYTES = 6_500_000
# Maximum number of bytes of one film strip.
MAX_BYTES = 300_000


@dataclass(frozen=True)
class RolloutFilm:
    """A recorded attempt as a film strip.

    Each frame of the strip shows an observation of the policy; the policy observes once every
    `evaluate.replan_steps` control steps.

    gripper: opening of the gripper at each frame of the strip, from 0 (closed) to 1 (open); None if
        there is no gripper.
    """

    task: str
    instruction: str
    seed: int
    success: bool
    strip: FilmStrip
    gripper: Sequence[float] | None

    @property
    def layout(self) -> dict[str, object]:
        """Return what the player needs in addition to the image."""
        return self.strip.layout | {"unit": "observation", "gripper": self.gripper}


@dataclass(frozen=True)
class TaskFilms:
    """A success and a failure at a task; each is None if no such attempt was recorded."""

    task: str
    success: RolloutFilm | None
    failure: RolloutFilm | None


def films_by_task(run: Path, tasks: Sequence[str]) -> list[TaskFilms]:
    """Make film strips of a run's recorded attempts; only one attempt at a time is in memory.

    tasks: the tasks whose film strips come first, in this order; other recorded tasks follow.

    Raises DataError for a damaged file.
    """
    paths = rollout_files(run)
    max_bytes = min(MAX_BYTES, TOTAL_BYTES // max(1, len(paths)))
    films: dict[tuple[str, bool], RolloutFilm] = {}
    for path in paths:
        film = make_film(read_rollout(path), max_bytes)
        films.setdefault((film.task, film.success), film)
    recorded_tasks = dict.fromkeys(task for task, _ in films)
    order = [task for task in tasks if task in recorded_tasks]
    order += [task for task in recorded_tasks if task not in tasks]
    return [TaskFilms(task, films.get((task, True)), films.get((task, False))) for task in order]


def make_film(rollout: Rollout, max_bytes: int) -> RolloutFilm:
    """Make a film strip of a recorded attempt, of at most about `max_bytes`."""
    images = {name: shrink(frames, MAX_SIDE) for name, frames in rollout.images.items()}
    strip = make_strip(images, rollout.steps, FRAMES_PER_SECOND, max_bytes)
    gripper = rollout.gripper
    return RolloutFilm(
        task=rollout.task,
        instruction=rollout.instruction,
        seed=rollout.seed,
        success=rollout.success,
        strip=strip,
        gripper=None if gripper is None else [round(float(gripper[s]), 2) for s in strip.steps],
    )
