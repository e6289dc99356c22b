"""Holds the first images of attempts against those of the training data.

An environment whose images are upside down, mirrored, in BGR, black or in another light fits every
description, and a policy that fails there looks as if it had learned nothing. So a hint is given,
but only if it is beyond doubt. A correction, the picture turned over for example, must bring every
image of the environment nearer to the mean of the training data's first images, by a margin and to
where these lie themselves; and to each of the training images it must do the opposite. In scenes
that look alike both ways, or that vary much, it does not, and nothing is said.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from core.environments.recovery import call_and_observe, reset
from core.environments.workers import EnvironmentFailed, EnvironmentSpec, Worker, open_workers
from core.episodes.episode import StoreInfo
from core.errors import DataError
from core.loading.view import StoreView
from core.rollout.plan import PlannedAttempt

# Images are compared at this many rows and columns, so that small objects count little.
SIDE = 16
MOST_TRAINING_IMAGES, MOST_ATTEMPTS = 16, 6
# With fewer training images it is unknown how much they differ among themselves.
FEWEST_TRAINING_IMAGES = 4
# An image lies among the training images if its squared distance from their mean is at most that of
# the farthest one, by this factor, and this much more for the errors of compression.
MARGIN, NOISE = 1.5, 4.0
# A correction must leave at most this share of the squared distance.
REMAINDER = 0.6
# If a correction brings none of n training images nearer, it does so to one more of their kind in
# about one of n + 1 cases, and to m of them in one of (n + 1)^m. A hint needs as many as this.
ODDS = 1000
# Differences of brightness, from 0 to 255, that are too small to mention.
FAINT = 10.0
# Up to this value, a camera shows nothing but noise.
BLACK = 4.0

CORRECTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda images: images[:, ::-1],
    "mirrored": lambda images: images[:, :, ::-1],
    "rotated by 180 degrees": lambda images: images[:, ::-1, ::-1],
    "with red and blue swapped (BGR)": lambda images: images[..., ::-1],
}


def training_images(view: StoreView, info: StoreInfo) -> dict[str, np.ndarray]:
    """Read the first images of episodes all over a store: {camera: (n SIDE SIDE 3) float32}.

    info: the cameras that the policy sees. Raises DataError for damaged images.
    """
    count = len(view.store)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_TRAINING_IMAGES)).astype(int))
    images = {}
    for name in (name for name in info.cameras if name in view.cameras):
        camera = view.info.cameras[name]
        frames = np.empty((len(chosen), 1, camera.height, camera.width, 3), np.uint8)
        for frame, episode in zip(frames, chosen.tolist(), strict=True):
            view.read_frames(name, episode, 0, frame)
        images[name] = np.stack([shrink(frame[0]) for frame in frames])
    return images


def environment_images(
    spec: EnvironmentSpec, attempts: Sequence[PlannedAttempt], timeout: float
) -> dict[str, np.ndarray]:
    """Return the first images of a few attempts: {camera: (m SIDE SIDE 3) float32}.

    They are those of an environment of its own, so that the evaluation is as without them. If it
    fails, there are none: the evaluation will tell why.
    """
    observed: dict[str, list[np.ndarray]] = {}
    with open_workers(spec, 1, timeout) as (worker,):
        try:
            for attempt in attempts[:MOST_ATTEMPTS]:
                for name, image in _first_images(worker, attempt).items():
                    observed.setdefault(name, []).append(shrink(image))
        except (EnvironmentFailed, DataError):
            return {}
    return {name: np.stack(images) for name, images in observed.items()}


def _first_images(worker: Worker, attempt: PlannedAttempt) -> Mapping[str, np.ndarray]:
    worker.submit(call_and_observe, reset, attempt.task, attempt.seed)
    _, observation = worker.result()
    images: Mapping[str, np.ndarray] = observation.images
    return images


def shrink(image: np.ndarray) -> np.ndarray:
    """Return an image (Y X 3) uint8 as the means of its blocks (SIDE SIDE 3) float32."""
    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def describe_images(training: np.ndarray, observed: np.ndarray) -> str | None:
    """Say what is wrong with the images of an environment; None if that is nothing, or unknown.

    training: first images of the training data (n SIDE SIDE 3).
    observed: first images of the environment (m SIDE SIDE 3).
    """
    if observed.max() <= BLACK and _each(training, np.max).min() > 2 * BLACK:
        return "black"
    if len(training) < FEWEST_TRAINING_IMAGES:
        return None
    mean = training.mean(axis=0)
    others = (len(training) * mean - training) / (len(training) - 1)  # each one's mean without it
    known, seen = _distances(training, others), _distances(observed, mean)
    limit = MARGIN * known.max() + NOISE
    remainders = {}
    for name, correct in CORRECTIONS.items():
        remainder = _distances(correct(observed), mean)
        is_decidable = (_distances(correct(training), others) > known).all()
        is_better = (remainder < seen).all() and remainder.mean() <= REMAINDER * seen.mean()
        is_no_chance = (len(training) + 1) ** len(observed) >= ODDS
        if is_decidable and is_better and is_no_chance and remainder.max() <= limit:
            remainders[name] = remainder.mean()
    if remainders:
        return min(remainders, key=lambda name: float(remainders[name]))
    return _describe_brightness(training, observed) if seen.min() > limit else None


def _describe_brightness(training: np.ndarray, observed: np.ndarray) -> str | None:
    """Say that images are brighter or darker, if that explains most of what sets them apart."""
    known, seen = _each(training, np.mean), _each(observed, np.mean)
    is_brighter, is_darker = seen.min() > known.max() + FAINT, seen.max() < known.min() - FAINT
    mean = training.mean(axis=0)
    scaled = observed * (mean.mean() / max(observed.mean(), 1.0))
    remainder = _distances(scaled, mean).mean() / _distances(observed, mean).mean()
    if not (is_brighter or is_darker) or remainder > REMAINDER:
        return None
    word = "brighter" if is_brighter else "darker"
    return f"{word}: {seen.mean():.0f} of 255 on average, instead of {known.mean():.0f}"


def _distances(images: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each image (n S S 3) from a mean: (n).

    means: one for all images (S S 3), or one for each (n S S 3).
    """
    distances: np.ndarray = np.square(images - means).mean(axis=(1, 2, 3))
    return distances


def _each(images: np.ndarray, measure: Callable[..., np.ndarray]) -> np.ndarray:
    return measure(images, axis=(1, 2, 3))
