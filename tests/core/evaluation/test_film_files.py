"""Films: what is written is what is read, for all sizes of cameras; damage is named."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from core.episodes.episode import Camera
from core.errors import DataError
from core.evaluation.film_files import (
    BLOCK,
    MAX_SIDE,
    MAX_WIDTH,
    FilmEncoder,
    FilmFacts,
    Place,
    place_cameras,
    read_film,
    save_film,
)

FACTS = FilmFacts(
    task="lift/red",
    instruction="lift the „red“ block",
    seed=1_000_003,
    success=False,
    cameras=place_cameras({"top": Camera(32, 48), "wrist": Camera(20, 20)}),
    frames=5,
    gripper=(1.0, 0.5, 0.0, 0.25, 1.0),
)


def smooth(height: int, width: int, moment: int) -> np.ndarray:
    """A picture (Y X 3) whose colours change slowly, and with time."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    colours = np.stack([y, x, (x + y) / 2], axis=-1)
    return (40 + 150 * colours + 8 * moment).astype(np.uint8)


def write(
    path: Path,
    pictures: Sequence[Mapping[str, np.ndarray]],
    facts: FilmFacts,
    places: Sequence[Place] | None = None,
) -> Path:
    """Write a film with these facts, true or not; places: default: those of the facts."""
    encoder = FilmEncoder(path.parent, places or facts.cameras)
    for images in pictures:
        encoder.add(images)
    save_film(path, encoder.finish(), facts)
    encoder.close()
    return path


def write_facts(path: Path, facts: FilmFacts) -> Path:
    """Write the film of FACTS with other facts."""
    pictures = [{"top": smooth(32, 48, t), "wrist": smooth(20, 20, t)} for t in range(5)]
    return write(path, pictures, facts, FACTS.cameras)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=3),
    frames=st.integers(1, 4),
)
def test_every_camera_is_read_as_it_was_seen(sizes, frames):
    cameras = {f"c{i}": Camera(*size) for i, size in enumerate(sizes)}
    facts = replace(FACTS, cameras=place_cameras(cameras), frames=frames, gripper=None)
    pictures = [
        {name: smooth(camera.height, camera.width, t) for name, camera in cameras.items()}
        for t in range(frames)
    ]
    with TemporaryDirectory() as folder:
        film = read_film(write(Path(folder) / "a.mp4", pictures, facts), range)
    assert film.facts == facts
    assert film.steps == range(frames)
    for name, camera in cameras.items():
        shape = film.images[name].shape[1:3]
        assert max(shape) <= MAX_SIDE
        assert max(camera.height, camera.width) > MAX_SIDE or shape == sizes[int(name[1:])]
        for actual, picture in zip(film.images[name], pictures, strict=True):
            image = Image.fromarray(picture[name]).resize(shape[::-1], Image.Resampling.BOX)
            assert abs(actual.astype(int) - np.asarray(image)).mean() < 4


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=100))
def test_places_neither_overlap_nor_share_a_block_nor_are_too_large(sizes):
    cameras = {str(i): Camera(*size) for i, size in enumerate(sizes)}
    end = 0
    for place, camera in zip(place_cameras(cameras), cameras.values(), strict=True):
        assert place.x >= end
        assert place.x % BLOCK == 0
        assert 1 <= place.width <= camera.width
        assert 1 <= place.height <= camera.height
        assert place.zoom * max(place.width, place.height) <= MAX_SIDE
        end = place.x + place.width * place.zoom
    assert end <= MAX_WIDTH + BLOCK * len(sizes)


def test_many_cameras_are_read_although_their_padding_makes_the_film_wider(tmp_path):
    cameras = {str(i): Camera(270, 270) for i in range(30)}
    facts = replace(FACTS, cameras=place_cameras(cameras), frames=1, gripper=None)
    film = read_film(
        write(tmp_path / "a.mp4", [dict.fromkeys(cameras, smooth(270, 270, 0))], facts), range
    )
    assert facts.cameras[-1].x + BLOCK > MAX_WIDTH
    assert list(film.images) == list(cameras)


def test_only_chosen_frames_are_read(tmp_path):
    path = write_facts(tmp_path / "a.mp4", FACTS)
    every = read_film(path, range)
    some = read_film(path, lambda length: [0, 3, length - 1])
    assert some.facts == FACTS
    for name, images in some.images.items():
        np.testing.assert_array_equal(images, every.images[name][[0, 3, 4]])


def test_a_film_is_an_ordinary_video(tmp_path):
    """Browsers and players show H.264 with halved colours, of even sides."""
    with av.open(str(write_facts(tmp_path / "a.mp4", FACTS))) as container:
        (stream,) = container.streams
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, stream.frames) == ("h264", "yuv420p", 5)
        assert (codec.width, codec.height) == (3 * 48 + 8 * 20, 8 * 20)
        assert stream.average_rate == Fraction(20)


def test_the_same_frames_give_the_same_file(tmp_path):
    first, second = (write_facts(tmp_path / name, FACTS) for name in ("a.mp4", "b.mp4"))
    assert first.read_bytes() == second.read_bytes()


def test_a_film_has_no_name_until_it_is_saved(tmp_path):
    encoder = FilmEncoder(tmp_path / "rollouts", FACTS.cameras)
    encoder.add({"top": smooth(32, 48, 0), "wrist": smooth(20, 20, 0)})
    assert list((tmp_path / "rollouts").iterdir()) == []
    encoder.close()
    encoder.close()
    FilmEncoder(tmp_path, FACTS.cameras).close()  # without a frame


def test_a_cameras_noise_does_not_make_a_film_large(tmp_path):
    """100 frames of 640 x 480 pixels would take 92 MB raw, and 84 MB deflated."""
    random, scene = np.random.default_rng(0), smooth(480, 640, 0).astype(float)
    noise = random.normal(0, 3, (580, 740, 3))  # each frame shows another part of it
    pictures = [
        {"top": (scene + noise[t : t + 480, t : t + 640]).clip(0, 255).astype(np.uint8)}
        for t in range(100)
    ]
    facts = replace(
        FACTS, cameras=place_cameras({"top": Camera(480, 640)}), frames=100, gripper=None
    )
    assert write(tmp_path / "a.mp4", pictures, facts).stat().st_size < 1e6


# ------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_film_is_named(tmp_path, share):
    path = write_facts(tmp_path / "a.mp4", FACTS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: damaged .*evaluate the run"):
        read_film(path, range)


@settings(max_examples=50, deadline=None)
@given(place=st.floats(0, 1), noise=st.binary(min_size=1, max_size=40))
def test_an_overwritten_film_is_read_or_named(tmp_path_factory, place, noise):
    path = write_facts(tmp_path_factory.mktemp("film") / "a.mp4", FACTS)
    content = bytearray(path.read_bytes())
    begin = int(place * len(content))
    content[begin : begin + len(noise)] = noise
    path.write_bytes(content)
    try:
        film = read_film(path, range)
    except DataError as error:
        assert str(error).startswith(f"{path}: damaged")  # noqa: PT017 - either is right
    else:
        assert film.images["top"].shape == (5, 32, 48, 3)


TOP, WRIST = FACTS.cameras


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 6, "gripper": None}, "5 frames instead of 6"),
        ({"frames": 10**12, "gripper": None}, "5 frames instead of"),
        ({"frames": 0, "gripper": ()}, "5 frames instead of 0"),
        ({"frames": -1, "gripper": None}, "5 frames instead of -1"),
        ({"gripper": (0.5,)}, "1 openings of a gripper in 5 frames"),
        ({"cameras": ()}, "no film of cameras"),
        ({"cameras": (replace(TOP, x=-1), WRIST)}, "no place for camera 'top'"),
        ({"cameras": (TOP, replace(WRIST, x=150))}, "no place for camera 'wrist'"),
        ({"cameras": (TOP, replace(WRIST, height=21))}, "no place for camera 'wrist'"),
        ({"cameras": (TOP, replace(WRIST, zoom=9))}, "no place for camera 'wrist'"),
        ({"cameras": (TOP, replace(WRIST, zoom=0))}, "no place for camera 'wrist'"),
        ({"cameras": (TOP, replace(WRIST, width=0))}, "no place for camera 'wrist'"),
    ],
)
def test_facts_that_are_not_those_of_the_film_are_refused(tmp_path, change, message):
    path = write_facts(tmp_path / "a.mp4", replace(FACTS, **change))
    with pytest.raises(DataError, match=f"a.mp4: damaged .*{message}"):
        read_film(path, lambda length: range(min(length, 9)))


@pytest.mark.parametrize("comment", [None, "", "[]", "{}", '{"task": 1}', "[" * 10_000])
def test_a_video_of_something_else_is_refused(tmp_path, comment):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        if comment is not None:
            container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(smooth(32, 32, 0), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"a.mp4: damaged"):
        read_film(path, range)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"seed":1000003', '"seed":"00003"'),
        ('"success":false', '"success":"yes"'),
        ('"success":false', '"success":12345'),
        ('"task":"lift/red"', '"task":1234567890'),
        ("0.25", '"25"'),
        ("[1.0,0.5,", "[NaN,0.5,"),
        ("[1.0,0.5,", "[1e999999"),
    ],
)
def test_numbers_and_texts_are_not_taken_for_each_other(tmp_path, old, new):
    path = write_facts(tmp_path / "a.mp4", FACTS)
    content = path.read_bytes()
    assert content.count(old.encode()) == 1
    path.write_bytes(content.replace(old.encode(), new.encode()))
    assert len(old) == len(new)
    with pytest.raises(DataError, match=r"a.mp4: damaged"):
        read_film(path, range)
