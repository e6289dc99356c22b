"""Datasets that LeRobot 0.6.1 (v3.0) and 0.3.3 (v2.1) wrote, whole and damaged."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, strategies as st

from core.commands.import_ import main
from core.episodes.correction import ConventionOverride
from core.errors import ConfigError, DataError
from core.store.store import EpisodeStore
from plugins.datasets.lerobot import LeRobot, LeRobotConfig
from tests.damage import FUZZ, bounded, overwrite, read_all

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install -e '.[lerobot]')")

DATASETS = Path(__file__).parents[1] / "data" / "lerobot"
LENGTHS = (30, 24, 37, 28)
TASKS = (
    "pick up the red cube",
    "place the cube in the bowl",
    "open the drawer",
    "pick up the red cube",
)
VIDEO = {
    "v3.0": lambda key, episode: f"videos/{key}/chunk-000/file-000.mp4",
    "v2.1": lambda key, episode: f"videos/chunk-000/{key}/episode_{episode:06d}.mp4",
}


def read(root: Path, **config: Any) -> LeRobot:
    return LeRobot(LeRobotConfig(**config), source=root)


@pytest.fixture(params=["v2.1", "v3.0"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def copy(version: str, tmp_path: Path) -> Path:
    """A dataset that a test may damage."""
    return Path(shutil.copytree(DATASETS / version, tmp_path / version))


def test_numbers_and_tasks_are_read_as_written(version: str) -> None:
    source = read(DATASETS / version)
    assert source.ids() == ["000000", "000001", "000002", "000003"]
    for number, episode in enumerate(map(source.read, source.ids())):
        frames = np.arange(LENGTHS[number])[:, None]
        np.testing.assert_allclose(
            episode.proprio, number + frames / 100 + np.arange(8) / 1000, rtol=1e-6
        )
        np.testing.assert_allclose(episode.actions, np.sin(frames / 10 + np.arange(7)), atol=1e-6)
        assert episode.instruction == TASKS[number]


def test_frames_are_those_of_the_whole_video_decoded_in_order(version: str) -> None:
    source = read(DATASETS / version)
    for number, episode in enumerate(map(source.read, source.ids())):
        for camera, frames in episode.images.items():
            path = DATASETS / version / VIDEO[version](f"observation.images.{camera}", number)
            with av.open(str(path)) as container:
                video = np.stack(
                    [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
                )
            begin = sum(LENGTHS[:number]) if version == "v3.0" else 0
            np.testing.assert_array_equal(frames, video[begin : begin + LENGTHS[number]])


def test_defaults_and_configuration(version: str) -> None:
    source = read(DATASETS / version)
    assert list(source.info.cameras) == ["top", "wrist"]
    assert source.info.fps == 10.0
    assert source.info.action.names == ("dx", "dy", "dz", "drx", "dry", "drz", "grip")
    assert source.info.action.mode == "absolute"
    configured = read(
        DATASETS / version,
        cameras={"eye": "observation.images.wrist"},
        proprio=(),
        instruction="tidy up",
        meaning=ConventionOverride(mode="delta", frame="base", rotation="axis_angle"),
    )
    assert (list(configured.info.cameras), configured.info.proprio) == (["eye"], ())
    assert (configured.info.action.mode, configured.info.action.rotation) == ("delta", "axis_angle")
    episode = configured.read("000001")
    assert episode.proprio.shape == (24, 0)
    assert episode.instruction == "tidy up"
    np.testing.assert_array_equal(episode.images["eye"], source.read("000001").images["wrist"])


def test_the_command_imports_them(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["lerobot", str(DATASETS / version), str(tmp_path / "out.zarr"), "--jobs", "2"]) == 0
    )
    assert "4 episodes imported; 4 episodes, 119 frames" in capsys.readouterr().out
    store = EpisodeStore(tmp_path / "out.zarr")
    assert [store.instruction(e) for e in range(4)] == [*TASKS]


def test_images_in_tables(copy: Path, version: str) -> None:
    """Image mode: PNG in the column, lossless."""
    expected = read(DATASETS / version)
    info = json.loads((copy / "meta" / "info.json").read_text())
    info["features"]["observation.images.top"]["dtype"] = "image"
    (copy / "meta" / "info.json").write_text(json.dumps(info))
    frames = {int(e): expected.read(e).images["top"] for e in expected.ids()}
    for file in (copy / "data").rglob("*.parquet"):
        table = pyarrow.parquet.read_table(file)
        cells = [
            {
                "bytes": png(frames[row["episode_index"]][row["frame_index"]]),
                "path": "somewhere.png",
            }
            for row in table.select(["episode_index", "frame_index"]).to_pylist()
        ]
        pyarrow.parquet.write_table(
            table.append_column("observation.images.top", pyarrow.array(cells)), file
        )
    source = read(copy)
    for episode in source.ids():
        np.testing.assert_array_equal(source.read(episode).images["top"], frames[int(episode)])


def png(frame: np.ndarray) -> bytes:
    from PIL import Image

    Image.fromarray(frame).save(stream := BytesIO(), "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"action": "actions"}, "no feature 'actions'; did you mean 'action'"),
        ({"cameras": {"top": "observation.images.tip"}}, "did you mean 'observation.images.top'"),
        ({"proprio": ("observation.force",)}, "no feature 'observation.force'"),
    ],
)
def test_unknown_features(version: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(DATASETS / version, **config)


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"meta/info.json: not there; name the folder of a LeRobot dataset"
    ):
        read(tmp_path)


def test_an_unknown_version(copy: Path) -> None:
    info = json.loads((copy / "meta" / "info.json").read_text())
    (copy / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v9.0"}))
    with pytest.raises(DataError, match=r"version v9.0; known: v2.0, v2.1, v3.0"):
        read(copy)


def test_a_video_that_is_cut_off_is_named(copy: Path, version: str) -> None:
    path = copy / VIDEO[version]("observation.images.top", 3)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=f"{path}: "):
        read(copy).read("000003")


@pytest.mark.parametrize("size", [48, 10**6])
def test_a_video_of_another_size_is_named(copy: Path, version: str, size: int) -> None:
    info = json.loads((copy / "meta" / "info.json").read_text())
    info["features"]["observation.images.top"]["shape"] = [size, size, 3]
    (copy / "meta" / "info.json").write_text(json.dumps(info))
    with (
        bounded(),
        pytest.raises(
            DataError,
            match="frame of 1000000 x 1000000 pixels is too large"
            if size > 10_000
            else f"frames of 96 x 96 pixels, and meta/ says {size} x {size}",
        ),
    ):
        read(copy).read("000003")


def test_missing_rows_are_an_error(copy: Path, version: str) -> None:
    if version == "v3.0":
        file = copy / "data" / "chunk-000" / "file-000.parquet"
    else:
        file = copy / "data" / "chunk-000" / "episode_000003.parquet"
    table = pyarrow.parquet.read_table(file)
    pyarrow.parquet.write_table(table.slice(0, len(table) - 5), file)
    with pytest.raises(DataError, match=r"episode 3 has 23 rows, and meta/ says 28; copy"):
        read(copy).read("000003")


def test_several_tasks_in_one_episode(copy: Path) -> None:
    for file in (copy / "data").rglob("*.parquet"):
        table = pyarrow.parquet.read_table(file)
        mixed = pyarrow.array([i % 2 for i in range(len(table))], pyarrow.int64())
        column = table.column_names.index("task_index")
        pyarrow.parquet.write_table(table.set_column(column, "task_index", mixed), file)
    with pytest.raises(DataError, match=r"episode 000000: has the tasks \[0, 1\].*say instruction"):
        read(copy).read("000000")
    assert read(copy, instruction="clean up").read("000000").instruction == "clean up"


def test_a_table_of_episodes_that_cannot_be_read_is_one_episode(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(DATASETS / "v3.0", tmp_path / "v3.0"))
    folder = copy / "meta" / "episodes" / "chunk-000"
    (folder / "file-001.parquet").write_bytes(b"nothing")
    source = read(copy)
    assert source.ids() == [f"{number:06d}" for number in range(4)] + [
        "meta/episodes/chunk-000/file-001.parquet"
    ]
    with pytest.raises(DataError, match=r"file-001.parquet: cannot be read"):
        source.read(source.ids()[-1])
    (folder / "file-001.parquet").unlink()
    info = json.loads((copy / "meta" / "info.json").read_text())
    (copy / "meta" / "info.json").write_text(json.dumps(info | {"total_episodes": 5}))
    source = read(copy)
    with pytest.raises(
        DataError, match=r"info.json: counts 5 episodes, and 4 are listed beside it"
    ):
        source.read(source.ids()[-1])


IMAGE = {"dtype": "image", "shape": [96, 96, 3]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_frames": 10**15}, None),
        ({"total_episodes": 10**15}, None),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"chunks_size": 0}, "division"),
        ({"data_path": "data/{episode_index:999999999999d}.parquet"}, "names no files"),
        ({"data_path": "data/{nothing}.parquet"}, "it lacks 'nothing'"),
        (
            {"features": {"action": {"dtype": "float32", "shape": [10**12]}, "top": IMAGE}},
            "'action' holds 1,000,000,000,000 numbers",
        ),
        (
            {"features": {"action": {"dtype": "float32", "shape": [7]}}},
            "info.json: holds no pictures",
        ),
        (
            {"features": {"action": {"dtype": "float32", "shape": ["x"]}, "top": IMAGE}},
            "feature 'action' holds text, not numbers",
        ),
        ({"features": ["action"]}, "meta: damaged"),
    ],
)
def test_false_claims_of_info_json_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    copy = Path(shutil.copytree(DATASETS / "v2.1", tmp_path / "v2.1"))
    info = json.loads((copy / "meta" / "info.json").read_text())
    (copy / "meta" / "info.json").write_text(json.dumps(info | changes))
    with bounded():
        if message is None:
            assert read(copy).read("000000").instruction == TASKS[0]
        else:
            with pytest.raises((ConfigError, DataError), match=message):
                read(copy)


def test_lengths_that_no_table_has(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(DATASETS / "v2.1", tmp_path / "v2.1"))
    lines = (copy / "meta" / "episodes.jsonl").read_text().splitlines()
    long_episode = json.dumps(json.loads(lines[1]) | {"length": 10**15})
    (copy / "meta" / "episodes.jsonl").write_text("\n".join([lines[0], long_episode]))
    with (
        bounded(),
        pytest.raises(DataError, match=r"episode 1 has 24 rows, and meta/ says 1000000000000000"),
    ):
        read(copy).read("000001")


FILES = ("meta/info.json", "meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet")
CONTENT = (
    "data/chunk-000/file-000.parquet",
    "videos/observation.images.top/chunk-000/file-000.mp4",
)


@FUZZ
@given(
    file=st.sampled_from(FILES + CONTENT),
    at=st.floats(0, 1),
    value=st.binary(min_size=1, max_size=8),
)
def test_damage_anywhere_is_an_error_that_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, file: str, at: float, value: bytes
) -> None:
    root = tmp_path_factory.mktemp("damaged") / "v3.0"
    shutil.copytree(DATASETS / "v3.0", root)
    overwrite(root / file, at, value)
    message = ""
    with bounded():
        try:
            read_all(read(root))
        except (DataError, ConfigError) as error:
            message = str(error)
    shutil.rmtree(root)
    assert len(message.splitlines()) <= 1
