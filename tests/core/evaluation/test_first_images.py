"""Which images of an environment are recognised as wrong, and which are none of our business."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from core.evaluation.first_images import SIDE, describe_images, shrink

SIZE = 48


def table(random: np.random.Generator) -> np.ndarray:
    """A lit table with a lamp in a corner, and three blocks anywhere on it."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    image = 80 + 90 * rows[..., None] + 30 * columns[..., None] * np.array([1.0, 0.5, 0.0])
    image[4:14, 32:44] = (230, 200, 60)
    for colour in ((205, 60, 50), (60, 160, 90), (60, 90, 200)):
        y, x = random.integers(14, SIZE - 6, 2)
        image[y : y + 6, x : x + 6] = colour
    return image.clip(0, 255).astype(np.uint8)


def discs(random: np.random.Generator) -> np.ndarray:
    """Two discs anywhere on a grey floor: on average, this scene is its own mirror image."""
    image = np.full((SIZE, SIZE, 3), 128, np.uint8)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    for colour in ((220, 30, 30), (30, 30, 220)):
        y, x = random.integers(8, SIZE - 8, 2)
        image[(rows - y) ** 2 + (columns - x) ** 2 < 64] = colour
    return image


def rooms(random: np.random.Generator) -> np.ndarray:
    """Another scene each time."""
    coarse = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return coarse.repeat(SIZE // 4, axis=0).repeat(SIZE // 4, axis=1)


def black(random: np.random.Generator) -> np.ndarray:
    """A camera that shows nothing in the training data either."""
    return np.zeros((SIZE, SIZE, 3), np.uint8)


Draw = Callable[[np.random.Generator], np.ndarray]
Change = Callable[[np.ndarray], np.ndarray]


def unchanged(image: np.ndarray) -> np.ndarray:
    return image


def verdict(
    draw: Draw, change: Change, seed: int = 0, training: int = 16, attempts: int = 6
) -> str | None:
    """What is said if the environment shows changed images of the scenes of the training data."""
    random = np.random.default_rng(seed)
    known = np.stack([shrink(draw(random)) for _ in range(training)])
    observed = np.stack([shrink(change(draw(random))) for _ in range(attempts)])
    return describe_images(known, observed)


def scaled(factor: float) -> Change:
    return lambda image: (image * factor).clip(0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "upside down": lambda image: image[::-1],
    "mirrored": lambda image: image[:, ::-1],
    "rotated by 180 degrees": lambda image: image[::-1, ::-1],
    "with red and blue swapped (BGR)": lambda image: image[..., ::-1],
    "black": np.zeros_like,
    "darker": scaled(0.5),
    "brighter": scaled(1.8),
}


@pytest.mark.parametrize("said", CHANGES)
def test_what_is_wrong_is_said(said):
    for seed in range(10):
        assert str(verdict(table, CHANGES[said], seed)).startswith(said)


@given(
    draw=st.sampled_from([table, discs, rooms, black]),
    seed=st.integers(0, 2**32 - 1),
    training=st.integers(1, 20),
    attempts=st.integers(1, 6),
)
@settings(deadline=None, max_examples=100)
def test_images_like_those_of_the_training_data_are_never_wrong(draw, seed, training, attempts):
    assert verdict(draw, unchanged, seed, training, attempts) is None


@pytest.mark.parametrize("draw", [discs, rooms])
@pytest.mark.parametrize("change", list(CHANGES)[:4])
def test_of_scenes_that_vary_much_nothing_is_said(draw, change):
    assert {verdict(draw, CHANGES[change], seed) for seed in range(10)} == {None}


def test_a_little_noise_or_light_is_nothing():
    random = np.random.default_rng(5)

    def noisy(image: np.ndarray) -> np.ndarray:
        return (image + random.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)

    for change in (noisy, scaled(0.97), scaled(1.03)):
        assert verdict(table, change) is None


def test_another_scene_that_no_correction_explains_is_not_judged():
    random = np.random.default_rng(0)
    known = np.stack([shrink(table(random)) for _ in range(8)])
    assert describe_images(known, np.stack([shrink(rooms(random)) for _ in range(6)])) is None


def test_too_few_training_images_tell_only_of_black_ones():
    assert verdict(table, CHANGES["upside down"], training=3) is None
    assert verdict(table, np.zeros_like, training=1) == "black"


def test_too_few_attempts_tell_nothing_of_turned_images():
    assert verdict(table, CHANGES["upside down"], training=9, attempts=2) is None
    assert verdict(table, CHANGES["upside down"], training=9, attempts=3) == "upside down"


@pytest.mark.parametrize("shape", [(8, 32), (16, 16), (37, 91), (200, 200)])
def test_images_of_any_size_become_small(shape):
    small = shrink(np.full((*shape, 3), 77, np.uint8))
    assert small.shape == (SIDE, SIDE, 3)
    assert np.allclose(small, 77)
