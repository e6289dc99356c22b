"""What readers of formats share: corrections, descriptions, pictures and columns."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from core.data.contracts import Gripper
from core.data.formats import (
    Meaning,
    as_pictures,
    correct_convention,
    decode_pictures,
    describe_source,
    join_columns,
    numbered,
    raise_if_unknown,
)
from core.errors import DataError, RecipeError
from tests.factories import make_info

FOUND = make_info().action
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)


def png(frame: np.ndarray) -> bytes:
    Image.fromarray(frame).save(stream := BytesIO(), "png")
    return stream.getvalue()


def test_what_is_said_goes_over_what_was_found_and_the_rest_stays() -> None:
    assert correct_convention(FOUND, None) == FOUND
    grip = Gripper(3, "continuous", closed=0.0, open=0.08)
    corrected = correct_convention(FOUND, Meaning(mode="absolute", grippers=(grip,)))
    assert (corrected.mode, corrected.grippers, corrected.scale) == ("absolute", (grip,), FOUND.scale)
    with pytest.raises(DataError, match="meaning: scale has 1 entries"):
        correct_convention(FOUND, Meaning(scale=(1.0,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": {}}, "here: holds no pictures"),
        ({"fps": 0.0}, "here: fps 0.0 must be finite"),
        ({"cameras": {"top": (-1, 4)}}, "here: frames of -1 x 4 pixels"),
        ({"cameras": {"top": (4,)}}, "here: not enough values"),
    ],
)
def test_a_source_that_describes_no_episodes(changes: dict[str, object], message: str) -> None:
    good = {"fps": 5.0, "cameras": {"top": (4, 4)}, "action": FOUND, "proprio": ["x"], "origin": "here"}
    assert describe_source(**good).proprio == ("x",)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        describe_source(**{**good, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("array", "unit"),
    [
        (PICTURES, False),
        (PICTURES.astype(np.int64), True),
        (PICTURES.astype(np.float32), False),
        (PICTURES.astype(np.float64) / 255, True),
    ],
)
def test_pictures_of_any_numbers(array: np.ndarray, unit: bool) -> None:
    np.testing.assert_array_equal(as_pictures(array, "here", unit=unit), PICTURES)


def test_encoded_pictures_of_another_size_are_named() -> None:
    encoded = [png(frame) for frame in PICTURES]
    np.testing.assert_array_equal(decode_pictures(encoded, 4, 5, "here"), PICTURES)
    with pytest.raises(DataError, match=r"here, frame 1: cannot be decoded \(4 x 5 pixels instead of 5 x 4"):
        decode_pictures([png(PICTURES[0].swapaxes(0, 1)), encoded[1]], 5, 4, "here")


def test_columns_are_joined_and_named() -> None:
    joined = join_columns([np.arange(3), np.ones((3, 2))], 3, "here")
    assert (joined.dtype, joined.tolist()) == (np.float32, [[0, 1, 1], [1, 1, 1], [2, 1, 1]])
    assert join_columns([], 3, "here").shape == (3, 0)
    assert numbered([("angle", 1), ("force", 2)]) == ("angle", "force_0", "force_1")


def test_every_name_that_is_not_there_gets_a_line() -> None:
    raise_if_unknown("array", ["a"], {"a": 1, "b": 2})
    with pytest.raises(RecipeError) as failed:
        raise_if_unknown("array", ["front", "action"], ["actions", "frond"])
    assert [line.partition(";")[2] for line in failed.value.mistakes] == [
        " did you mean 'frond'?",
        " did you mean 'actions'?",
    ]
