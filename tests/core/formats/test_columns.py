"""Columns: which settings are wrong, and how columns are joined and named."""

import numpy as np
import pytest

from core.errors import ConfigError, DataError
from core.formats.columns import (
    Column,
    Selected,
    array_kind,
    check_mapping,
    column_of,
    dimension_names,
    distinct_names,
    join_columns,
    select_numbers,
    selected_names,
)

IMAGES = np.zeros((2, 4, 5, 3), np.uint8)


def test_columns_are_joined_and_named() -> None:
    joined = join_columns([np.arange(3), np.ones((3, 2))], 3, "here")
    assert (joined.dtype, joined.tolist()) == (np.float32, [[0, 1, 1], [1, 1, 1], [2, 1, 1]])
    assert join_columns([], 3, "here").shape == (3, 0)
    assert join_columns([np.zeros((0, 2, 4))], 0, "here").shape == (0, 8)
    assert Selected("state", 1, 4).of(np.zeros((0, 2, 4))).shape == (0, 3)
    assert dimension_names([("angle", 1), ("force", 2)]) == ("angle", "force_0", "force_1")


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ((0,), "0"),
        ((10**12,), "1,000,000,000,000"),
        ((-1, -1), "-1 x -1"),
        ((200, 200), "200 x 200"),
    ],
)
def test_impossible_widths_are_refused(shape: tuple[int, ...], numbers: str) -> None:
    """A length that is not fixed is declared as -1."""
    with pytest.raises(
        DataError, match=f"'force' holds {numbers} numbers a frame, expected 1 to 10,000"
    ):
        select_numbers("force", {"force": Column("numbers", shape)})


STATE = Column("numbers", (2, 4))


@pytest.mark.parametrize(
    ("entry", "first", "stop"),
    [
        ("state", 0, 8),
        ("state[0:7]", 0, 7),
        ("state[3:]", 3, 8),
        ("state[:2]", 0, 2),
        ("state[5]", 5, 6),
        ("state[:]", 0, 8),
    ],
)
def test_some_numbers_of_a_column(entry: str, first: int, stop: int) -> None:
    assert select_numbers(entry, {"state": STATE}) == Selected("state", first, stop)
    array = np.arange(24).reshape(3, 2, 4)
    chosen = Selected("state", first, stop).of(array)
    np.testing.assert_array_equal(chosen, array.reshape(3, 8)[:, first:stop])


@pytest.mark.parametrize("entry", ["state[8]", "state[0:9]", "state[3:3]", "state[]", "state[a]"])
def test_numbers_that_a_column_does_not_have(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"'state' holds the numbers 0 to 7; write state\[0:8\]"):
        select_numbers(entry, {"state": STATE})


def test_a_bracket_may_belong_to_the_name() -> None:
    columns = {"joint[0]": Column("numbers")}
    assert column_of("joint[0]", columns) == "joint[0]"
    assert select_numbers("joint[0]", columns) == Selected("joint[0]", 0, 1)


def test_names_of_chosen_numbers() -> None:
    columns = {
        "state": Column("numbers", (3,), names=("x", "y", "gripper")),
        "other": Column("numbers", (2,), names=("x", "force")),
        "action/left/pose": Column("numbers", (2,), short_name="pose"),
        "action/right/pose": Column("numbers", (2,), short_name="pose"),
        "grip": Column("numbers", (1,)),
    }

    def names(*entries: str) -> tuple[str, ...]:
        return selected_names([select_numbers(entry, columns) for entry in entries], columns)

    assert names("state[1:]", "grip") == ("y", "gripper", "grip")
    assert names("state", "other[1]") == ("x", "y", "gripper", "force")
    assert names("state[0:2]", "other") == ("state_x", "y", "other_x", "force")
    assert names("action/left/pose", "action/right/pose[1]") == (
        "action_left_pose_0",
        "action_left_pose_1",
        "action_right_pose_1",
    )
    assert names("action/right/pose") == ("pose_0", "pose_1")
    assert names("grip", "grip") == ("grip_0", "grip_1")


def test_every_wrong_name_gets_a_line() -> None:
    known = {"actions": "numbers", "front": "pictures", "words": "text"}
    check_mapping(
        "here", "array", {"pictures": ["front"], "numbers": ["actions"], "text": ["words"]}, known
    )
    with pytest.raises(DataError, match="here: holds no pictures, and an episode needs a camera"):
        check_mapping("here", "array", {"pictures": []}, known)
    with pytest.raises(ConfigError) as failed:
        check_mapping(
            "here",
            "array",
            {"pictures": ["frond", "actions"], "numbers": ["front", "words"]},
            known,
        )
    assert failed.value.mistakes == [
        "here: there is no array 'frond'; did you mean 'front'?",
        "here: array 'actions' holds numbers, not pictures; known: front",
        "here: array 'front' holds pictures, not numbers; known: actions",
        "here: array 'words' holds text, not numbers; known: actions",
    ]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (IMAGES, "pictures"),
        (IMAGES.astype(float), "pictures"),
        (IMAGES[..., :1], "numbers"),
        (IMAGES[..., 0], "numbers"),
        (IMAGES > 3, "numbers"),
        (np.array(["a"]), "text"),
    ],
)
def test_array_kinds(array: np.ndarray, kind: str) -> None:
    assert array_kind(array.shape, array.dtype) == kind


def test_a_column_of_another_length_or_of_text_is_refused() -> None:
    for column in (np.ones(4), np.array(["a", "b", "c"]), np.float32(1)):
        with pytest.raises(DataError, match=r"here: .* expected numbers of 3 frames"):
            join_columns([np.asarray(column)], 3, "here")


def test_the_width_counts_all_numbers_of_a_frame() -> None:
    assert [Column("numbers", shape).width for shape in [(), (2,), (2, 3)]] == [1, 2, 6]


def test_short_names_that_two_columns_would_share_are_left_whole() -> None:
    short_names = {"action/left/pose": "pose", "action/right/pose": "pose", "gripper": "gripper"}
    assert distinct_names(short_names) == {
        "action/left/pose": "action_left_pose",
        "action/right/pose": "action_right_pose",
        "gripper": "gripper",
    }


def test_whole_names_that_are_alike_are_numbered() -> None:
    short_names = {"a/b_c": "c", "a_b/c": "c"}
    assert distinct_names(short_names) == {"a/b_c": "a_b_c_0", "a_b/c": "a_b_c_1"}
