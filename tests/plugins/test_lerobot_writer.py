"""Datasets written for LeRobot: laid out as its own, and read back as they were."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from core.commands.import_ import main as import_episodes
from core.commands.write import main
from core.episodes.correction import ConventionOverride
from core.episodes.episode import ActionConvention, Camera, Episode, StoreInfo
from core.errors import ConfigError, DataError
from core.store.store import EpisodeStore
from plugins.datasets.lerobot import (
    LeRobot,
    LeRobotConfig,
    LeRobotWriter,
    LeRobotWriterConfig,
    tables,
    video,
)
from tests.factories import contents, make_episode, make_episodes, make_info, make_store

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install -e '.[lerobot]')")
parquet = pytest.importorskip("pyarrow.parquet")

DATASET = Path(__file__).parents[1] / "data" / "lerobot" / "v3.0"  # by LeRobot
TOP = "observation.images.front"


def write(out: Path, info: StoreInfo, episodes: list[Episode], **config: Any) -> Path:
    writer = LeRobotWriter(LeRobotWriterConfig(**config), info=info, out=out)
    for episode in episodes:
        writer.append(episode)
    writer.finish()
    return out


def read(root: Path, **config: Any) -> LeRobot:
    return LeRobot(LeRobotConfig(**config), source=root)


def assert_same(actual: Episode, expected: Episode, *, images: bool = True) -> None:
    assert (actual.id, actual.task, actual.instruction) == (
        expected.id,
        expected.task,
        expected.instruction,
    )
    np.testing.assert_array_equal(actual.actions, expected.actions, strict=True)
    np.testing.assert_array_equal(actual.proprio, expected.proprio, strict=True)
    assert list(actual.images) == list(expected.images)
    for name in expected.images if images else ():
        np.testing.assert_array_equal(actual.images[name], expected.images[name])


# --------------------------------------------------------------------------------------- back again


@pytest.mark.parametrize("images", ["video", "image"])
def test_a_store_comes_back_as_it_was(tmp_path: Path, images: str) -> None:
    info = replace(make_info(("wrist", "front")), proprio_units=("rad", "", "N"))
    episodes = make_episodes(5, info)
    source = read(write(tmp_path / "out", info, episodes, images=images))
    assert source.info == info
    assert list(source.info.cameras) == ["wrist", "front"]
    assert source.ids() == [episode.id for episode in episodes]
    for episode in episodes:
        assert_same(source.read(episode.id), episode, images=images == "image")


def test_the_commands_there_and_back(tmp_path: Path) -> None:
    info = make_info(("front",))  # stored without loss
    make_store(tmp_path / "a.zarr", 4, info=info)
    assert main(["lerobot", str(tmp_path / "a.zarr"), str(tmp_path / "out"), "images=image"]) == 0
    assert (
        import_episodes(["lerobot", str(tmp_path / "out"), str(tmp_path / "b.zarr"), "--jobs", "1"])
        == 0
    )
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")
    original, imported = EpisodeStore(tmp_path / "a.zarr"), EpisodeStore(tmp_path / "b.zarr")
    assert (imported.info, imported.tasks) == (original.info, original.tasks)


words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    dims=st.integers(1, 3),
    proprio=st.lists(words, max_size=3),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    texts=st.lists(words, min_size=9, max_size=9, unique=True),
    fps=st.sampled_from([1.0, 7.5, 10.0, 12.345678901, 29.97]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_anything_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    dims: int,
    proprio: list[str],
    lengths: list[int],
    texts: list[str],
    fps: float,
    size: tuple[int, int],
) -> None:
    action = ActionConvention(
        tuple(texts[:dims]), "absolute", "tool", "rotation_6d", (0.1,) * dims, fps
    )
    info = StoreInfo(
        fps, {"a.b": Camera(*size), "images.c-d": Camera(2, 3)}, action, tuple(proprio), texts[8]
    )
    random = np.random.default_rng(sum(lengths))
    episodes = [
        Episode(
            id=texts[number],
            task=texts[number % 2],
            instruction=texts[3 + number],
            images={
                name: random.integers(
                    0, 256, (length, camera.height, camera.width, 3), dtype=np.uint8
                )
                for name, camera in info.cameras.items()
            },
            actions=random.normal(size=(length, dims)).astype(np.float32),
            proprio=random.normal(size=(length, len(proprio))).astype(np.float32),
        )
        for number, length in enumerate(lengths)
    ]
    source = read(write(tmp_path_factory.mktemp("any") / "out", info, episodes, images="image"))
    assert source.info == info
    for episode in episodes:
        assert_same(source.read(episode.id), episode)


def test_the_configuration_overrides_the_sidecar(tmp_path: Path) -> None:
    info = make_info()
    root = write(tmp_path / "out", info, make_episodes(2, info), images="image")
    source = read(
        root, meaning=ConventionOverride(mode="absolute"), instruction="tidy up", proprio=()
    )
    assert source.info.action == replace(info.action, mode="absolute")
    episode = source.read("push/1")
    assert (episode.task, episode.instruction, episode.proprio.shape) == (
        "push",
        "tidy up",
        (12, 0),
    )
    other = read(root, action="observation.state")
    assert (other.info.action.mode, other.info.action.names) == ("absolute", ("p0", "p1", "p2"))


def test_without_the_sidecar_it_is_a_dataset_like_any_other(tmp_path: Path) -> None:
    info = make_info()
    root = write(tmp_path / "out", info, make_episodes(2, info), images="image", robot_type="panda")
    (root / "meta" / "joinery.json").unlink()
    source = read(root)
    assert source.ids() == ["000000", "000001"]
    assert source.read("000001").task == "push the puck"
    assert (source.info.action.mode, source.info.origin) == (
        "absolute",
        "LeRobot dataset of a panda",
    )


def test_a_sidecar_of_another_dataset_is_refused(tmp_path: Path) -> None:
    info = make_info()
    root = write(tmp_path / "out", info, make_episodes(3, info), images="image")
    sidecar = json.loads((root / "meta" / "joinery.json").read_text())

    def change(**changes: Any) -> None:
        (root / "meta" / "joinery.json").write_text(json.dumps(sidecar | changes))

    change(episodes=sidecar["episodes"][:2])  # LeRobot has recorded a third since
    assert read(root).ids() == ["reach/0", "push/1", "000002"]
    assert read(root).read("000002").task == "reach the red cube"
    change(episodes=sidecar["episodes"][1:])
    with pytest.raises(
        DataError, match=r"joinery.json: is not about this dataset: its episode 0 has 12 frames"
    ):
        read(root)
    change(episodes=[*sidecar["episodes"], sidecar["episodes"][0]])
    with pytest.raises(DataError, match="its episode 3 has 11 frames"):
        read(root)
    change(episodes=[episode | {"id": "one"} for episode in sidecar["episodes"]])
    with pytest.raises(DataError, match="gives two episodes one id"):
        read(root)
    change(info=sidecar["info"] | {"version": 2})
    with pytest.raises(DataError, match="of version 2, known is 1; upgrade joinery"):
        read(root)
    for damage in ({"info": {}}, {"info": sidecar["info"] | {"fps": "ten"}}, {"episodes": [1]}):
        change(**damage)
        with pytest.raises(DataError, match=r"joinery.json: damaged"):
            read(root)


# --------------------------------------------------------------------------------- LeRobot's format


def types(path: Path) -> dict[str, str]:
    return {field.name: str(field.type) for field in parquet.read_schema(path)}


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeRobot's own dataset, read by our importer and written again."""
    source = read(DATASET)
    episodes = [source.read(episode) for episode in source.ids()]
    return write(
        tmp_path_factory.mktemp("again") / "v3.0", source.info, episodes, robot_type="panda"
    )


@pytest.mark.parametrize(
    "file",
    [
        "data/chunk-000/file-000.parquet",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
    ],
)
def test_tables_have_lerobots_columns_and_types(rewritten: Path, file: str) -> None:
    assert types(rewritten / file) == types(DATASET / file)


def test_rows_are_lerobots(rewritten: Path) -> None:
    file = "data/chunk-000/file-000.parquet"
    assert (
        parquet.read_table(rewritten / file).to_pylist()
        == parquet.read_table(DATASET / file).to_pylist()
    )
    tasks = "meta/tasks.parquet"
    assert (
        parquet.read_table(rewritten / tasks).to_pylist()
        == parquet.read_table(DATASET / tasks).to_pylist()
    )
    file = "meta/episodes/chunk-000/file-000.parquet"
    for actual, expected in zip(
        *(parquet.read_table(root / file).to_pylist() for root in (rewritten, DATASET)), strict=True
    ):
        for key in (key for key in expected if not key.startswith("stats/")):
            assert (
                actual[key] == pytest.approx(expected[key])
                if "timestamp" in key
                else actual[key] == expected[key]
            )


def test_info_is_lerobots(rewritten: Path) -> None:
    actual, expected = (
        json.loads((root / "meta" / "info.json").read_text()) for root in (rewritten, DATASET)
    )
    # LeRobot 0.6 also records settings of its encoder
    for feature in expected["features"].values():
        encoder_keys = ("g", "crf", "preset", "fast_decode", "video_backend", "extra_options")
        for key in encoder_keys if "info" in feature else ():
            del feature["info"][f"video.{key}"]
    assert actual == expected


def test_metadata_for_pandas_and_datasets_are_lerobots(rewritten: Path) -> None:
    def metadata(root: Path, file: str, key: bytes) -> Any:
        return json.loads(parquet.read_schema(root / file).metadata[key])

    data, tasks = "data/chunk-000/file-000.parquet", "meta/tasks.parquet"
    assert (
        metadata(rewritten, data, b"huggingface")["info"]
        == metadata(DATASET, data, b"huggingface")["info"]
    )
    for key in ("index_columns", "columns"):
        actual, expected = (
            metadata(rewritten, tasks, b"pandas")[key],
            metadata(DATASET, tasks, b"pandas")[key],
        )
        assert [c if key == "index_columns" else (c["name"], c["pandas_type"]) for c in actual] == [
            c if key == "index_columns" else (c["name"], c["pandas_type"]) for c in expected
        ]


def test_statistics_are_lerobots(rewritten: Path) -> None:
    """Moments and extremes are equal.

    Our quantiles are exact; LeRobot's come from histograms and are averaged.
    """
    actual, expected = (
        json.loads((root / "meta" / "stats.json").read_text()) for root in (rewritten, DATASET)
    )
    assert actual.keys() == expected.keys()
    for key in expected:
        assert actual[key].keys() == expected[key].keys()
        is_image = key.startswith("observation.images")  # decoded and encoded once more
        assert actual[key]["count"] == expected[key]["count"]
        for statistic in expected[key].keys() - {"count"}:
            actual_values, expected_values = (
                np.array(actual[key][statistic]),
                np.array(expected[key][statistic]),
            )
            assert actual_values.shape == expected_values.shape
            if statistic in ("min", "max", "mean", "std") and not is_image:
                np.testing.assert_allclose(actual_values, expected_values, rtol=1e-5, atol=1e-6)
            elif statistic in ("mean", "std"):
                np.testing.assert_allclose(actual_values, expected_values, atol=0.02)


def test_statistics_are_those_of_all_frames(tmp_path: Path) -> None:
    info = make_info(("front",))
    episodes = make_episodes(7, info)
    root = write(tmp_path / "out", info, episodes, images="image")
    stats = json.loads((root / "meta" / "stats.json").read_text())
    actions = np.concatenate([episode.actions for episode in episodes]).astype(float)
    images = np.concatenate([episode.images["front"].reshape(-1, 3) for episode in episodes]) / 255
    for statistic, of in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        np.testing.assert_allclose(stats["action"][statistic], of(actions, axis=0), rtol=1e-6)
        np.testing.assert_allclose(
            stats[TOP][statistic], of(images, axis=0).reshape(3, 1, 1), rtol=1e-6
        )
    for statistic, q in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        np.testing.assert_allclose(
            stats["action"][statistic], np.quantile(actions, q, axis=0), rtol=1e-6, atol=1e-9
        )
        exact = np.quantile(images, q, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(stats[TOP][statistic], exact.reshape(3, 1, 1), atol=1e-9)
    rows = parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for row, episode in zip(rows, episodes, strict=True):
        np.testing.assert_allclose(
            row["stats/action/q10"], np.quantile(episode.actions, 0.1, axis=0), rtol=1e-6
        )
        assert row["stats/observation.images.front/count"] == [len(episode)]


# -------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_every_frame_lies_at_its_second(tmp_path: Path, codec: str) -> None:
    """Frames whose brightness tells their number, in one file, found by their time."""
    info = replace(make_info(("front",)), fps=12.5)
    lengths, episodes = (5, 1, 8, 3), []
    for number, length in enumerate(lengths):
        levels = 14 * (sum(lengths[:number]) + np.arange(length, dtype=np.uint8))
        frames = np.broadcast_to(levels[:, None, None, None], (length, 32, 32, 3))
        episodes.append(replace(make_episode(number, info, length), images={"front": frames}))
    root = write(tmp_path / "out", info, episodes, codec=codec)
    source = read(root)
    for episode in episodes:
        brightness = source.read(episode.id).images["front"].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(brightness, episode.images["front"][:, 0, 0, 0], atol=4)
    assert json.loads((root / "meta" / "info.json").read_text())["fps"] == 12.5
    (path,) = root.rglob("*.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate) == (17, 12.5)
        frames_by_time = [(frame.time, frame.key_frame) for frame in container.decode(stream)]
    np.testing.assert_allclose([time for time, _ in frames_by_time], np.arange(17) / 12.5)
    begins = np.cumsum(lengths) - lengths
    assert all(frames_by_time[begin][1] for begin in begins), "each episode begins with a key frame"


def test_files_are_split_by_size_and_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "VIDEO_MB", 6000 / 2**20)
    monkeypatch.setattr(tables, "FILES_PER_CHUNK", 2)
    monkeypatch.setattr("plugins.datasets.lerobot.writer.TABLE_MB", 4_000 / 2**20)
    monkeypatch.setattr("plugins.datasets.lerobot.writer.ROWS_AT_ONCE", 2)
    info = make_info()
    episodes = make_episodes(9, info)
    root = write(tmp_path / "out", info, episodes)
    for folder in ("data", "meta/episodes", f"videos/{TOP}", "videos/observation.images.wrist"):
        files = sorted(path.relative_to(root / folder) for path in (root / folder).rglob("file-*"))
        assert len(files) > 2, folder
        expected = [f"chunk-{n // 2:03d}/file-{n % 2:03d}" for n in range(len(files))]
        assert [str(path.with_suffix("")) for path in files] == expected
    source = read(root)
    for episode in episodes:
        assert_same(source.read(episode.id), episode, images=False)
        for name, frames in source.read(episode.id).images.items():
            assert np.abs(frames.astype(int) - episode.images[name]).mean() < 12
    monkeypatch.setattr(video, "VIDEO_MB", 200)
    monkeypatch.setattr(video, "VIDEO_SECONDS", 2.6)
    root = write(tmp_path / "short", info, episodes)
    episode_tables = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    rows = [row for path in episode_tables for row in parquet.read_table(path).to_pylist()]
    assert max(row[f"videos/{TOP}/to_timestamp"] for row in rows) <= 2.6
    numbers = [
        2 * row[f"videos/{TOP}/chunk_index"] + row[f"videos/{TOP}/file_index"] for row in rows
    ]
    # the episodes have 11, 12, 13, 14, 15, 11, 12, 13 and 14 frames, at 10 per second
    assert numbers == [0, 0, 1, 2, 3, 3, 4, 4, 5]


# ----------------------------------------------------------------------------------------- mistakes


def test_a_codec_that_ffmpeg_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = make_info()
    monkeypatch.setitem(video.ENCODERS, "av1", "libnothing")
    with pytest.raises(ConfigError, match="FFmpeg has no encoder for av1"):
        write(tmp_path / "out", info, [], codec="av1")
    root = write(tmp_path / "fallback", info, make_episodes(1, info))
    info_json = json.loads((root / "meta" / "info.json").read_text())
    assert info_json["features"][TOP]["info"]["video.codec"] == "h264"
    monkeypatch.setitem(video.ENCODERS, "h264", "libnothing")
    with pytest.raises(ConfigError, match="FFmpeg has no encoder for either"):
        write(tmp_path / "none", info, [])


def test_images_that_a_codec_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = replace(make_info(("front",)), cameras={"front": Camera(33, 35)})
    make_store(tmp_path / "a.zarr", 1, info=info)
    assert main(["lerobot", str(tmp_path / "a.zarr"), str(tmp_path / "out"), "codec=h264"]) == 1
    error = capsys.readouterr().err
    assert "error: camera 'front': 33 x 35 pixels cannot be encoded as h264" in error
    assert 'say images = "image"' in error
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_nothing_is_printed_by_the_encoder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    info = make_info()
    write(tmp_path / "out", info, make_episodes(1, info))
    assert capfd.readouterr() == ("", "")
    assert os.environ["SVT_LOG"] == "1"
