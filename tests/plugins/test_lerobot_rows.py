"""What a row of a LeRobot table says about itself counts, as in LeRobot."""

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import ConfigError, DataError
from core.formats import FeatureColumn
from plugins.datasets.lerobot import LeRobot, LeRobotConfig
from plugins.datasets.lerobot.source import _column
from tests.plugins.test_lerobot import DATASETS, LENGTHS, TASKS, VIDEO

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install -e '.[lerobot]')")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
Table = Any


def read(root: Path, **config: Any) -> LeRobot:
    return LeRobot(LeRobotConfig(**config), source=root)


@pytest.fixture(params=["v2.1", "v3.0"])
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A dataset that a test may change."""
    return Path(shutil.copytree(DATASETS / request.param, tmp_path / request.param))


def rewrite_tables(root: Path, change: Callable[[Table], Table]) -> None:
    for file in (root / "data").rglob("*.parquet"):
        parquet.write_table(change(parquet.read_table(file)), file)


def rewrite_info(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    info = json.loads((root / "meta" / "info.json").read_text())
    change(info)
    (root / "meta" / "info.json").write_text(json.dumps(info))


def assert_equal_to_the_original(source: LeRobot, version: str) -> None:
    original = read(DATASETS / version)
    for name in original.ids():
        expected, found = original.read(name), source.read(name)
        np.testing.assert_array_equal(found.actions, expected.actions)
        np.testing.assert_array_equal(found.proprio, expected.proprio)
        for camera, images in expected.images.items():
            np.testing.assert_array_equal(found.images[camera], images)


def test_a_file_index_that_is_stale(tmp_path: Path) -> None:
    """LeRobot's converter lists the first episode of a file under the file before."""
    root = Path(shutil.copytree(DATASETS / "v3.0", tmp_path / "v3.0"))
    file = root / "data" / "chunk-000" / "file-000.parquet"
    table = parquet.read_table(file)
    is_late = np.array(table["episode_index"]) >= 2
    parquet.write_table(table.filter(~is_late), file)
    parquet.write_table(table.filter(is_late), file.with_name("file-001.parquet"))
    # meta/episodes still says that all four are in file 0
    assert_equal_to_the_original(read(root), "v3.0")


@pytest.mark.parametrize("order", ["index", "timestamp"])
def test_frame_index_is_not_needed(copy: Path, order: str) -> None:
    """GR00T's schema has none; rows are then in the order of their times, or of the table."""
    dropped = ["frame_index"] if order == "timestamp" else ["frame_index", "timestamp"]
    rewrite_tables(copy, lambda table: table.drop_columns(dropped))
    assert_equal_to_the_original(read(copy), copy.name)


def test_a_frame_index_that_runs_on_over_the_episodes(copy: Path) -> None:
    def run_on(table: Table) -> Table:
        episode = np.array(table["episode_index"])
        index = np.array(table["frame_index"]) + 100 * episode
        column = table.column_names.index("frame_index")
        return table.set_column(column, "frame_index", pyarrow.array(index))

    rewrite_tables(copy, run_on)
    assert_equal_to_the_original(read(copy), copy.name)


def test_task_index_is_not_needed_if_the_instruction_is_given(copy: Path) -> None:
    rewrite_tables(copy, lambda table: table.drop_columns(["task_index"]))
    assert read(copy, instruction="tidy up").read("000001").instruction == "tidy up"
    with pytest.raises(DataError, match=r"does not say what the robot is told; say instruction"):
        read(copy).read("000001")


def test_an_annotation_is_the_number_of_a_text(copy: Path) -> None:
    """GR00T's schema: any annotation may be what the robot is told, and it counts as words."""
    key = "annotation.human.action.task_description"
    entry = {"dtype": "int64", "shape": [1]}

    def annotate(table: Table) -> Table:
        number = pyarrow.array((np.array(table["task_index"]) + 1) % 3)
        return table.append_column(key, number).drop_columns(["task_index"])

    rewrite_tables(copy, annotate)
    rewrite_info(copy, lambda info: info["features"].update({key: entry}))
    source = read(copy, instruction_column=key)
    told = [source.read(name).instruction for name in source.ids()]
    assert told == [TASKS[1], TASKS[2], TASKS[0], TASKS[1]]
    kept = read(copy, instruction="tidy up", features={"said": FeatureColumn(key, "other")})
    np.testing.assert_array_equal(kept.read("000002").features["said"], np.zeros((37, 1)))

    rewrite_tables(
        copy,
        lambda table: table.set_column(
            table.column_names.index(key), key, pyarrow.array([7] * len(table))
        ),
    )
    with pytest.raises(DataError, match=rf"{key}: 7 is the number of no text that the dataset"):
        source.read("000000")


@pytest.mark.parametrize("damaged", [False, True])
def test_the_list_of_tasks_is_not_needed_if_the_instruction_is_given(
    copy: Path, damaged: bool
) -> None:
    (path,) = (copy / "meta").glob("tasks.*")
    if damaged:
        path.write_text("[]")
    else:
        path.unlink()
    assert read(copy, instruction="tidy up").read("000001").instruction == "tidy up"
    with pytest.raises(DataError, match=rf"{path.name}: .*copy it again, or say instruction = "):
        read(copy).read("000001")


def test_what_else_the_list_of_tasks_holds_does_not_matter(tmp_path: Path) -> None:
    root = Path(shutil.copytree(DATASETS / "v3.0", tmp_path / "v3.0"))
    path = root / "meta" / "tasks.parquet"
    table = parquet.read_table(path)
    (words,) = (name for name in table.column_names if name != "task_index")
    told = [None, *table[words].to_pylist()[1:]]
    columns = {"difficulty": ["easy"] * len(table), "task_index": table["task_index"], "task": told}
    parquet.write_table(pyarrow.table(columns), path)
    assert read(root).read("000001").instruction == TASKS[1]
    with pytest.raises(DataError, match="does not say what the robot is told"):
        read(root).read("000000")


def test_an_episode_may_lack_a_video_that_nobody_asks_for(tmp_path: Path) -> None:
    root = Path(shutil.copytree(DATASETS / "v3.0", tmp_path / "v3.0"))
    (path,) = (root / "meta" / "episodes").rglob("*.parquet")
    table = parquet.read_table(path)
    name = "videos/observation.images.wrist/file_index"
    indices = [None, *table[name].to_pylist()[1:]]
    place = table.column_names.index(name)
    parquet.write_table(table.set_column(place, name, pyarrow.array(indices, "int64")), path)
    source = read(root, cameras={"top": "observation.images.top"})
    assert [*source.read("000000").images] == ["top"]
    with pytest.raises(DataError, match=r"observation\.images\.wrist"):
        read(root).read("000000")
    read(root).read("000001")


def test_two_numbers_of_one_name_stay_two_numbers(copy: Path) -> None:
    """As in LIBERO's datasets: both fingers are called "gripper"."""

    def rename(info: dict[str, Any]) -> None:
        for key, others in (("observation.state", "abcdef"), ("action", "abcde")):
            info["features"][key]["names"] = {"motors": [*others, "gripper", "gripper"]}

    rewrite_info(copy, rename)
    source = read(copy)
    assert source.info.proprio == (*"abcdef", "gripper_0", "gripper_1")
    assert source.info.action.names == (*"abcde", "gripper_0", "gripper_1")
    assert_equal_to_the_original(source, copy.name)


def test_an_action_that_lies_in_several_features(copy: Path) -> None:
    """As in AgiBot World: positions of joints and of the hand, and no action."""
    original = read(DATASETS / copy.name).read("000001")

    def split(table: Table) -> Table:
        whole = np.stack(table["action"].to_pylist())
        for name, part in (("arm", whole[:, :5]), ("hand", whole[:, 5:])):
            table = table.append_column(f"actions.{name}.position", pyarrow.array([*part]))
        return table.drop_columns(["action"])

    def describe(info: dict[str, Any]) -> None:
        width = info["features"].pop("action")["shape"][0]
        for name, count in (("arm", 5), ("hand", width - 5)):
            entry = {"dtype": "float32", "shape": [count], "names": None}
            info["features"][f"actions.{name}.position"] = entry

    rewrite_tables(copy, split)
    rewrite_info(copy, describe)
    with pytest.raises(ConfigError, match=r"no feature 'action'; say action = \.\.\."):
        read(copy)
    source = read(copy, action=("actions.arm.position", "actions.hand.position"))
    np.testing.assert_array_equal(source.read("000001").actions, original.actions)
    assert len({*source.info.action.names}) == original.actions.shape[1]


@pytest.mark.parametrize("kept", [slice(3, None), slice(None, None, 3)], ids=["trimmed", "thinned"])
def test_rows_that_were_dropped_stay_with_their_images(copy: Path, kept: slice) -> None:
    """The video still has all frames; a row's time says which of them is its own."""

    def drop(table: Table) -> Table:
        episodes = np.array(table["episode_index"])
        rows = [np.flatnonzero(episodes == e)[kept] for e in np.unique(episodes)]
        return table.take(np.concatenate(rows))

    rewrite_tables(copy, drop)
    lengths = [len(range(*kept.indices(length))) for length in LENGTHS]
    if copy.name == "v2.1":
        path = copy / "meta" / "episodes.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps(r | {"length": lengths[r["episode_index"]]}) for r in rows]
        path.write_text("\n".join(lines))
    else:
        (path,) = (copy / "meta" / "episodes").rglob("*.parquet")
        table = parquet.read_table(path)
        column = table.column_names.index("length")
        parquet.write_table(table.set_column(column, "length", pyarrow.array(lengths)), path)
    original, source = read(DATASETS / copy.name), read(copy)
    for name in original.ids():
        expected, found = original.read(name), source.read(name)
        np.testing.assert_array_equal(found.actions, expected.actions[kept])
        np.testing.assert_array_equal(found.images["top"], np.asarray(expected.images["top"])[kept])


def test_times_that_no_image_has_are_refused_with_the_largest_gap(copy: Path) -> None:
    def shift(table: Table) -> Table:
        times = np.array(table["timestamp"]) + 0.04 * (np.array(table["frame_index"]) == 5)
        column = table.column_names.index("timestamp")
        return table.set_column(column, "timestamp", pyarrow.array(times.astype(np.float32)))

    rewrite_tables(copy, shift)
    with pytest.raises(DataError, match=r"up to 0.04\d\d s .* \(frame 5 of 30.* tolerance = 0.04"):
        read(copy).read("000000")
    assert read(copy, tolerance=0.045).read("000000").instruction == TASKS[0]


def test_depth_is_left_out_with_a_word_or_kept_as_a_feature(copy: Path) -> None:
    depth = np.random.default_rng(0).integers(0, 5_000, (96, 96)).astype(np.uint16)
    Image.fromarray(depth).save(stream := BytesIO(), "png")
    cell = {"bytes": stream.getvalue(), "path": None}

    def add(table: Table) -> Table:
        return table.append_column("observation.images.depth", pyarrow.array([cell] * len(table)))

    rewrite_tables(copy, add)
    entry = {"dtype": "image", "shape": [96, 96, 1], "names": ["height", "width", "channel"]}
    rewrite_info(copy, lambda info: info["features"].update({"observation.images.depth": entry}))
    source = read(copy)
    assert list(source.info.cameras) == ["top", "wrist"]
    assert source.notes == (
        "left out: observation.images.depth, depth or another single channel of 96 x 96 x 1",
    )
    kept = read(copy, features={"depth": FeatureColumn("observation.images.depth", "depth", "mm")})
    found = kept.read("000002").features["depth"]
    assert (found.dtype, found.shape) == (np.uint16, (LENGTHS[2], 96, 96, 1))
    np.testing.assert_array_equal(found[0, ..., 0], depth)


def test_a_feature_nobody_asks_for_may_be_odd(copy: Path) -> None:
    odd = {"dtype": "float32", "shape": [], "names": None}
    rewrite_info(copy, lambda info: info["features"].update({"observation.note": odd, "x": odd}))
    assert read(copy).read("000000").instruction == TASKS[0]


def test_cameras_whose_short_names_are_equal_keep_their_own(copy: Path) -> None:
    def add(info: dict[str, Any]) -> None:
        info["features"]["observation.top"] = info["features"]["observation.images.top"]

    if copy.name == "v3.0":  # its meta/episodes would have to list the new video, too
        pytest.skip("one version is enough")
    rewrite_info(copy, add)
    for number in range(len(LENGTHS)):
        target = copy / VIDEO["v2.1"]("observation.top", number)
        target.parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(copy / VIDEO["v2.1"]("observation.images.wrist", number), target)
    source = read(copy)
    assert list(source.info.cameras) == ["observation.images.top", "wrist", "observation.top"]
    found = source.read("000000")
    np.testing.assert_array_equal(found.images["observation.top"], found.images["wrist"])


def test_a_video_that_meta_does_not_place_matters_only_if_it_is_asked_for(tmp_path: Path) -> None:
    root = Path(shutil.copytree(DATASETS / "v3.0", tmp_path / "v3.0"))

    def add(info: dict[str, Any]) -> None:
        info["features"]["observation.images.new"] = info["features"]["observation.images.top"]

    rewrite_info(root, add)
    cameras = {"top": "observation.images.top"}
    assert read(root, cameras=cameras).read("000001").instruction == TASKS[1]
    with pytest.raises(DataError, match=r"has no column observation.images.new, .*meta/episodes"):
        read(root).read("000001")


@pytest.mark.parametrize(
    ("shape", "names", "kind", "expected"),
    [
        ([480, 640, 3], ["height", "width", "channels"], "pictures", (480, 640, 3)),
        ([3, 480, 640], ["channels", "height", "width"], "pictures", (480, 640, 3)),
        ([3, 480, 640], ["height", "width", "channels"], "pictures", (480, 640, 3)),
        ([480, 640, 3], ["channels", "height", "width"], "pictures", (480, 640, 3)),
        ([480, 640, 4], None, "pictures", (480, 640, 3)),
        ([3, 4, 3], ["channels", "height", "width"], "pictures", (4, 3, 3)),
        ([480, 640, 1], None, "depth", (480, 640, 1)),
        ([1, 480, 640], None, "depth", (480, 640, 1)),
        ([480, 640], None, "depth", (480, 640, 1)),
    ],
)
def test_which_axis_holds_the_channels(
    shape: list[int], names: list[str] | None, kind: str, expected: tuple[int, ...]
) -> None:
    column = _column("top", {"dtype": "video", "shape": shape, "names": names})
    assert (column.kind, column.shape) == (kind, expected)


def test_splits_and_columns_of_the_episodes_choose(copy: Path) -> None:
    rewrite_info(copy, lambda info: info.update(splits={"train": "0:3", "val": "3:4"}))
    assert read(copy, mask="val").ids() == ["000003"]
    assert read(copy, mask="train", where=("length > 24",)).ids() == ["000000", "000002"]
    with pytest.raises(ConfigError, match="lists no split 'test'"):
        read(copy, mask="test")
