"""What readers of formats share: corrections, descriptions, pictures and columns."""

import json
import zlib
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.episodes.episode import Gripper
from core.errors import ConfigError, DataError
from core.formats.columns import array_kind, check_mapping, dimension_names, join_columns
from core.formats.damage import check_claimed_size, first_readable
from core.formats.images import as_images, decode_images
from core.formats.info import (
    ConventionOverride,
    dump_info,
    load_info,
    override_convention,
    source_info,
)
from tests.damage import bounded
from tests.factories import make_info

FOUND = make_info().action
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)


def png(frame: np.ndarray) -> bytes:
    Image.fromarray(frame).save(stream := BytesIO(), "png")
    return stream.getvalue()


def test_what_is_said_goes_over_what_was_found_and_the_rest_stays() -> None:
    assert override_convention(FOUND, None) == FOUND
    grip = Gripper(3, "continuous", closed=0.0, open=0.08)
    corrected = override_convention(FOUND, ConventionOverride(mode="absolute", grippers=(grip,)))
    assert (corrected.mode, corrected.grippers, corrected.scale) == (
        "absolute",
        (grip,),
        FOUND.scale,
    )
    with pytest.raises(DataError, match="meaning: scale has 1 entries"):
        override_convention(FOUND, ConventionOverride(scale=(1.0,)))


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
    good = {
        "fps": 5.0,
        "cameras": {"top": (4, 4)},
        "action": FOUND,
        "proprio": ["x"],
        "origin": "here",
    }
    assert source_info(**good).proprio == ("x",)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        source_info(**{**good, **changes})  # type: ignore[arg-type]


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
    np.testing.assert_array_equal(as_images(array, "here", unit=unit), PICTURES)


def test_encoded_pictures_of_another_size_are_named() -> None:
    encoded = [png(frame) for frame in PICTURES]
    np.testing.assert_array_equal(decode_images(encoded, 4, 5, "here"), PICTURES)
    with pytest.raises(
        DataError, match=r"here, frame 1: cannot be decoded \(4 x 5 pixels instead of 5 x 4"
    ):
        decode_images([png(PICTURES[0].swapaxes(0, 1)), encoded[1]], 5, 4, "here")


def test_columns_are_joined_and_named() -> None:
    joined = join_columns([np.arange(3), np.ones((3, 2))], 3, "here")
    assert (joined.dtype, joined.tolist()) == (np.float32, [[0, 1, 1], [1, 1, 1], [2, 1, 1]])
    assert join_columns([], 3, "here").shape == (3, 0)
    assert dimension_names([("angle", 1), ("force", 2)]) == ("angle", "force_0", "force_1")


@pytest.mark.parametrize("width", [0, -1, 10**12])
def test_widths_that_no_robot_has(width: int) -> None:
    with pytest.raises(
        DataError, match=f"'force' holds {width:,} numbers a frame, expected 1 to 10,000"
    ):
        dimension_names([("angle", 1), ("force", width)])


def test_every_name_that_is_not_there_gets_a_line() -> None:
    known = {"actions": "numbers", "front": "pictures", "told": "text"}
    check_mapping(
        "here", "array", {"pictures": ["front"], "numbers": ["actions"], "text": ["told"]}, known
    )
    with pytest.raises(DataError, match="here: holds no pictures, and an episode needs a camera"):
        check_mapping("here", "array", {"pictures": []}, known)
    with pytest.raises(ConfigError) as failed:
        check_mapping(
            "here", "array", {"pictures": ["frond", "actions"], "numbers": ["front", "told"]}, known
        )
    assert failed.value.mistakes == [
        "here: there is no array 'frond'; did you mean 'front'?",
        "here: array 'actions' holds numbers, and pictures are needed; known: front",
        "here: array 'front' holds pictures, and numbers are needed; known: actions",
        "here: array 'told' holds text, and numbers are needed; known: actions",
    ]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (PICTURES, "pictures"),
        (PICTURES.astype(float), "pictures"),
        (PICTURES[..., :1], "numbers"),
        (PICTURES[..., 0], "numbers"),
        (PICTURES > 3, "numbers"),
        (np.array(["a"]), "text"),
    ],
)
def test_kinds(array: np.ndarray, kind: str) -> None:
    assert array_kind(array.shape, array.dtype) == kind


def test_the_first_that_can_be_read() -> None:
    def read(place: int) -> int:
        if place < 2:
            raise DataError(f"{place}: damaged")
        return place

    assert first_readable([0, 2, 1, 3], read) == 2
    with pytest.raises(DataError, match=r"^1: damaged"):
        first_readable([1], read)
    with pytest.raises(DataError, match=r"none of 2 can be read; the first: 1: damaged"):
        first_readable([1, 0], read)


def test_settings_are_wrong_where_several_places_say_so() -> None:
    def read(place: int) -> int:
        looked.append(place)
        if place == 0:
            raise DataError("damaged")
        if place < 9:
            raise ConfigError(f"{place}: there is no array 'front'")
        return place

    looked: list[int] = []
    assert first_readable([0, 1, 2, 9], read) == 9
    looked.clear()
    with pytest.raises(ConfigError, match=r"1: there is no array 'front'"):
        first_readable([0, 1, 2, 3, 4, 9], read)
    assert looked == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match=r"1: there is no array 'front'"):
        first_readable([0, 1, 0], read)


def test_claims_are_compared_with_what_is_there() -> None:
    check_claimed_size(10**9, 10**6, "here")
    check_claimed_size(10**7, 1, "here")
    with pytest.raises(
        DataError,
        match=r"here: says that it holds 1,000,000,000,000 bytes, more than 1,000,000 can",
    ):
        check_claimed_size(10**12, 10**6, "here")


def test_pictures_that_claim_more_than_they_hold() -> None:
    flat = png(np.zeros((1, 1, 3), np.uint8))
    tall = flat[:16] + (6_000).to_bytes(4, "big") * 2 + flat[24:]
    tall = tall[:29] + zlib.crc32(tall[12:29]).to_bytes(4, "big") + tall[33:]
    with (
        bounded(),
        pytest.raises(DataError, match=r"here, frame 0: says that it holds 108,000,000 bytes"),
    ):
        decode_images([tall], 6_000, 6_000, "here")


def test_what_holds_for_a_store_comes_back_exactly() -> None:
    info = make_info()
    action = replace(info.action, scale=(0.1, 1 / 3, 1e-30, 1.0), rate=29.97)
    info = replace(info, fps=29.97, action=action, proprio=("a", "ä\0\n", ""), origin='"elsewhere"')
    assert load_info(json.loads(json.dumps(dump_info(info))), "here") == info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "here: of version 2, known is 1; upgrade joinery"),
        ({"version": "one"}, "here: damaged"),
        ({"fps": "10"}, "here: damaged .*fps"),
        ({"fps": -1.0}, "here: damaged .*must be finite and positive"),
        ({"cameras": {"front": {"height": 0, "width": 3}}}, "here: damaged"),
        ({"action": None}, "here: damaged"),
    ],
)
def test_what_is_no_description_of_a_store(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_info(dump_info(make_info()) | change, "here")


@pytest.mark.parametrize("plain", [None, [], 1, "text", {}])
def test_what_is_nothing_of_the_kind(plain: Any) -> None:
    with pytest.raises(DataError, match="here: damaged"):
        load_info(plain, "here")
