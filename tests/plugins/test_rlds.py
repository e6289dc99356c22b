"""Episodes in TFRecord files that tensorboard's writer wrote.

Their messages are encoded here, by hand, as protobuf's specification says.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

from core.commands.import_ import main
from core.errors import ConfigError, DataError
from core.formats import FeatureColumn
from core.store.store import EpisodeStore
from plugins.datasets.rlds import Rlds, RldsConfig
from plugins.datasets.rlds.records import _masked
from tests.damage import FUZZ, bounded, overwrite, read_all

LENGTHS = (4, 6, 3)


def steps(number: int) -> dict[str, np.ndarray]:
    random, n = np.random.default_rng(number), LENGTHS[number]
    return {
        "image": random.integers(0, 256, (n, 6, 8, 3), dtype=np.uint8),
        "world_vector": random.normal(size=(n, 3)).astype(np.float32),
        "gripper": random.normal(size=(n, 1)).astype(np.float32),
        "state": random.normal(size=(n, 5)).astype(np.float32),
        "is_first": np.arange(n) == 0,
    }


# ------------------------------------------------------------- protobuf's wire format, in ten lines


def varint(number: int) -> bytes:
    number, out = number % 2**64, b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Sequence[Any]) -> bytes:
    if isinstance(values[0], bytes):
        return field(1, b"".join(field(1, value) for value in values))
    if isinstance(values[0], float):
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(3, field(1, b"".join(map(varint, values))))


def example(features: Mapping[str, Sequence[Any]]) -> bytes:
    return field(
        1,
        b"".join(
            field(1, field(1, k.encode()) + field(2, feature(v))) for k, v in features.items()
        ),
    )


# --------------------------------------------------------------------------------------- a dataset


def tensor(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {
        "tensor": {
            "shape": {"dimensions": [str(n) for n in shape]},
            "dtype": dtype,
            "encoding": "none",
        }
    }


def features(**children: Any) -> dict[str, Any]:
    return {"featuresDict": {"features": children}}


IMAGE = {
    "image": {"shape": {"dimensions": ["6", "8", "3"]}, "dtype": "uint8", "encodingFormat": "png"}
}
STEP = features(
    action=features(world_vector=tensor(3), gripper=tensor(1)),
    observation=features(
        image=IMAGE, state=tensor(5), depth={"image": {"shape": {"dimensions": ["6", "8", "1"]}}}
    ),
    language_instruction={"text": {}},
    is_first=tensor(dtype="bool"),
)


def encode_episode(number: int) -> bytes:
    written = steps(number)
    return example(
        {
            "steps/observation/image": [png(frame) for frame in written["image"]],
            "steps/action/world_vector": written["world_vector"].ravel().tolist(),
            "steps/action/gripper": written["gripper"].ravel().tolist(),
            "steps/observation/state": written["state"].ravel().tolist(),
            "steps/language_instruction": [f"task {number}".encode()] * LENGTHS[number],
            "steps/is_first": written["is_first"].astype(int).tolist(),
            "episode_metadata/file_path": [b"somewhere"],
        }
    )


def png(frame: np.ndarray) -> bytes:
    Image.fromarray(frame).save(stream := BytesIO(), "png")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards, the first with two episodes."""
    return write(tmp_path / "toy" / "1.0.0", (0, 1), (2,))


def write(folder: Path, *shards: Sequence[int]) -> Path:
    """A dataset with the episodes of these numbers in each shard."""
    folder.mkdir(parents=True)
    for shard, numbers in enumerate(shards):
        with (folder / f"toy-train.tfrecord-{shard:05d}-of-{len(shards):05d}").open("wb") as stream:
            writer = RecordWriter(stream)
            for number in numbers:
                writer.write(encode_episode(number))
    whole = features(
        steps={"sequence": {"feature": STEP}}, episode_metadata=features(file_path={"text": {}})
    )
    (folder / "features.json").write_text(json.dumps(whole))
    return folder


def read(folder: Path, **config: Any) -> Rlds:
    action = ("action/world_vector", "action/gripper")
    return Rlds(RldsConfig(**{"fps": 3.0, "action": action, **config}), source=folder)


def test_episodes_are_read_as_written(folder: Path) -> None:
    source = read(folder)
    assert source.ids() == [
        "00000-of-00002/000000",
        "00000-of-00002/000001",
        "00001-of-00002/000000",
    ]
    for number, episode in enumerate(map(source.read, source.ids())):
        written = steps(number)
        np.testing.assert_array_equal(episode.images["image"], written["image"])
        np.testing.assert_array_equal(
            episode.actions, np.hstack([written["world_vector"], written["gripper"]])
        )
        np.testing.assert_array_equal(episode.proprio, written["state"])
        assert episode.instruction == f"task {number}"


def test_defaults_and_configuration(folder: Path) -> None:
    info = read(folder).info
    assert info.action.names == ("world_vector_0", "world_vector_1", "world_vector_2", "gripper")
    assert (list(info.cameras), info.fps, len(info.proprio)) == (["image"], 3.0, 5)
    assert read(folder, proprio=()).read("00001-of-00002/000000").proprio.shape == (3, 0)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    action = 'action=["action/world_vector", "action/gripper"]'
    assert (
        main(["rlds", str(folder), str(tmp_path / "out.zarr"), "fps=3", action, "--jobs", "1"]) == 0
    )
    store = EpisodeStore(tmp_path / "out.zarr")
    assert store.length.tolist() == [*LENGTHS]


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"action": ("action",)}, ConfigError, "there is no feature 'action'"),
        ({"cameras": {"top": "observation/imag"}}, ConfigError, "did you mean 'observation/image'"),
        ({"split": "test"}, DataError, r"holds no \*-test.tfrecord-\* files"),
    ],
)
def test_missing_features_and_splits(
    folder: Path, config: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(folder, **config)


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"features.json: not there; name the folder of a dataset's version"
    ):
        read(tmp_path)


def test_cut_off_and_damaged_files_keep_their_other_records(folder: Path) -> None:
    file = folder / "toy-train.tfrecord-00000-of-00002"
    whole, healthy = file.read_bytes(), read_all(read(folder))
    first, second, third = healthy
    second_at = read(folder).locations[second][1]
    for damaged, lost, message in (
        (whole[:-10], second, f"the record at byte {second_at:,} is cut off"),
        (
            whole[: second_at + 5],
            second,
            f"no record begins at byte {second_at:,}, so that what follows cannot",
        ),
        (whole[:40] + b"!" + whole[41:], first, "the record at byte 0 does not match its checksum"),
    ):
        file.write_bytes(damaged)
        actual = read_all(read(folder))
        assert file.name in actual[lost]
        assert message in actual.pop(lost)
        assert actual == {name: content for name, content in healthy.items() if name != lost}
    file.write_bytes(b"no record at all")
    actual = read_all(read(folder))
    assert [*actual] == [first, third]
    assert "no record begins at byte 0" in actual[first]


def test_a_length_that_no_file_has_is_refused(folder: Path) -> None:
    """Its own checksum says that it is right."""
    file = folder / "toy-train.tfrecord-00001-of-00002"
    source = read(folder)
    length = struct.pack("<Q", 2**60)
    file.write_bytes(length + struct.pack("<I", _masked(length)) + b"few")
    for reader in (source, read(folder)):  # listed before and after
        with (
            bounded(),
            pytest.raises(
                DataError, match=r"tfrecord-00001-of-00002: the record at byte 0 is cut off"
            ),
        ):
            reader.read("00001-of-00002/000000")


@pytest.mark.parametrize(
    "lengths", [["0"], ["-1"], ["1000000000000"], ["x"], [[]], ["3", "99999999999999"]]
)
def test_widths_that_no_step_has(folder: Path, lengths: list[Any]) -> None:
    metadata = json.loads((folder / "features.json").read_text())
    step = metadata["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"][
        "features"
    ]
    step["action"]["featuresDict"]["features"]["gripper"]["tensor"]["shape"]["dimensions"] = lengths
    (folder / "features.json").write_text(json.dumps(metadata))
    with (
        bounded(),
        pytest.raises(DataError, match=r"gripper' holds|features.json: describes no episodes"),
    ):
        read(folder)


@FUZZ
@given(at=st.floats(0, 1), value=st.binary(min_size=1, max_size=8))
def test_damage_is_never_read_as_data(folder: Path, at: float, value: bytes) -> None:
    """Every byte of a record lies below a checksum."""
    file = folder / "toy-train.tfrecord-00000-of-00002"
    whole, healthy = file.read_bytes(), read_all(read(folder))
    overwrite(file, at, value)
    with bounded():
        actual = read_all(read(folder))
    damaged = [name for name in healthy if actual.get(name) != healthy[name]]
    assert bool(damaged) == (file.read_bytes() != whole)
    assert all(isinstance(actual.get(name, ""), str) for name in damaged)
    file.write_bytes(whole)


@FUZZ
@given(content=st.binary(max_size=400))
def test_records_of_anything_are_an_error_in_one_line(folder: Path, content: bytes) -> None:
    with (folder / "toy-train.tfrecord-00000-of-00002").open("wb") as stream:
        RecordWriter(stream).write(content)
    with bounded(), pytest.raises(DataError) as error_info:
        read(folder).read("00000-of-00002/000000")
    assert len(str(error_info.value).splitlines()) == 1


def rewrite_steps(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what features.json declares of a step."""
    metadata = json.loads((folder / "features.json").read_text())
    steps = metadata["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    change(steps["featuresDict"]["features"])
    (folder / "features.json").write_text(json.dumps(metadata))


def test_a_dataset_without_words_can_be_given_some(folder: Path) -> None:
    rewrite_steps(folder, lambda step: step.pop("language_instruction"))
    with pytest.raises(ConfigError, match=r"does not say what the robot is told; say instruction"):
        read(folder)
    found = read(folder, instruction="pick up the cup").read("00001-of-00002/000000")
    assert found.instruction == "pick up the cup"


def test_words_may_be_numbers_of_characters(tmp_path: Path) -> None:
    """As in language_table of Open X-Embodiment."""
    folder = tmp_path / "table" / "1.0.0"
    write(folder, (0,))
    letters = list(b"push the star".ljust(16, b"\0")) * LENGTHS[0]
    record = example(
        {
            "steps/observation/image": [png(frame) for frame in steps(0)["image"]],
            "steps/action/world_vector": steps(0)["world_vector"].ravel().tolist(),
            "steps/action/gripper": steps(0)["gripper"].ravel().tolist(),
            "steps/observation/words": letters,
        }
    )
    with (folder / "toy-train.tfrecord-00000-of-00001").open("wb") as stream:
        RecordWriter(stream).write(record)

    def declare(step: dict[str, Any]) -> None:
        observation = step["observation"]["featuresDict"]["features"]
        observation["words"] = tensor(16, dtype="int32")

    rewrite_steps(folder, declare)
    source = read(folder, instruction_column="observation/words", proprio=())
    assert source.read("00000-of-00001/000000").instruction == "push the star"
    with pytest.raises(ConfigError, match='say instruction_column = "observation/words"'):
        read(folder, instruction="observation/words")


def test_images_whose_size_is_left_open(folder: Path) -> None:
    """As tfds.features.Image() declares them; the first image says it."""

    def declare(step: dict[str, Any]) -> None:
        observation = step["observation"]["featuresDict"]["features"]
        observation["image"] = {"image": {"shape": {"dimensions": ["-1", "-1", "3"]}}}
        observation["wrist"] = observation["image"]  # which no step has

    rewrite_steps(folder, declare)
    source = read(folder)
    assert [*source.info.cameras] == ["image"]
    note = next(line for line in source.notes if "observation/wrist" in line)
    assert note.startswith("left out: observation/wrist, whose size is not declared (")
    assert (source.info.cameras["image"].height, source.info.cameras["image"].width) == (6, 8)
    found = source.read("00000-of-00002/000001").images["image"]
    np.testing.assert_array_equal(found, steps(1)["image"])


def test_parts_of_features_and_depth(folder: Path) -> None:
    source = read(folder, action=("action/gripper", "action/world_vector[0:2]"))
    written, found = steps(1), source.read("00000-of-00002/000001")
    np.testing.assert_array_equal(
        found.actions, np.hstack([written["gripper"], written["world_vector"][:, :2]])
    )
    assert source.info.action.names == ("gripper", "world_vector_0", "world_vector_1")
    assert source.notes == (
        "left out: observation/depth, depth or another single channel of 6 x 8 x 1",
    )
    assert "RLDS does not record" in source.info.assumed["mode"]


def test_episodes_are_chosen_by_their_metadata(folder: Path) -> None:
    assert len(read(folder, where=("file_path == somewhere",)).ids()) == 3
    with pytest.raises(ConfigError, match="leave none of the 3 episodes"):
        read(folder, where=("file_path == elsewhere",))


@pytest.mark.parametrize("dtype", ["uint64", "uint32", "int64"])
def test_large_integers_keep_every_digit(folder: Path, dtype: str) -> None:
    """As float32, a clock's nanoseconds would be off by half a second."""
    clock = [2**53 + 1 + step for step in range(LENGTHS[2])]
    record = {
        "steps/observation/image": [png(frame) for frame in steps(2)["image"]],
        "steps/action/world_vector": steps(2)["world_vector"].ravel().tolist(),
        "steps/action/gripper": steps(2)["gripper"].ravel().tolist(),
        "steps/language_instruction": [b"wait"] * LENGTHS[2],
        "steps/clock": clock,
    }
    with (folder / "toy-train.tfrecord-00001-of-00002").open("wb") as stream:
        RecordWriter(stream).write(example(record))
    rewrite_steps(folder, lambda step: step.update(clock=tensor(dtype=dtype)))
    source = read(folder, proprio=(), features={"clock": FeatureColumn("clock", "other", "ns")})
    found = source.read("00001-of-00002/000000").features["clock"]
    assert (found.dtype, found.tolist()) == (np.int64, clock)


def test_numbers_that_are_not_of_the_declared_type_are_refused(folder: Path) -> None:
    def declare(step: dict[str, Any]) -> None:
        actions = step["action"]["featuresDict"]["features"]
        actions["gripper"] = tensor(1, dtype="uint8")  # it holds floats, some of them negative

    rewrite_steps(folder, declare)
    with pytest.raises(DataError, match="action/gripper holds numbers that are no uint8"):
        read(folder).read("00000-of-00002/000000")
