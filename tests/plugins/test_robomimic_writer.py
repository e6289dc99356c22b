"""Files written for robomimic: they have what it reads, and come back as they were."""

import json
from dataclasses import replace
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from core.commands.import_ import main as import_episodes
from core.commands.write import main
from core.episodes.correction import ConventionOverride
from core.episodes.episode import Camera, Episode, StoreInfo
from core.errors import DataError
from core.formats.columns import dimension_names
from core.formats.exporting import export_episodes
from core.store.store import EpisodeStore
from plugins.datasets.robomimic import (
    Robomimic,
    RobomimicConfig,
    RobomimicWriter,
    RobomimicWriterConfig,
    writer,
)
from plugins.datasets.robomimic.writer import split_names
from tests.factories import contents, make_episodes, make_info, make_store

h5py = pytest.importorskip("h5py", reason="needs h5py (pip install -e '.[robomimic]')")

NUMBERED = ("robot0_eef_pos_0", "robot0_eef_pos_1", "robot0_eef_pos_2", "grip")


def write(out: Path, info: StoreInfo, episodes: list[Episode], **config: Any) -> Path:
    writer = RobomimicWriter(RobomimicWriterConfig(**config), info=info, out=out)
    for episode in episodes:
        writer.append(episode)
    writer.finish()
    return out


def read(path: Path, **config: Any) -> Robomimic:
    return Robomimic(RobomimicConfig(**config), source=path)


def assert_same(actual: Episode, expected: Episode) -> None:
    assert (actual.id, actual.task, actual.instruction) == (
        expected.id,
        expected.task,
        expected.instruction,
    )
    np.testing.assert_array_equal(actual.actions, expected.actions, strict=True)
    np.testing.assert_array_equal(actual.proprio, expected.proprio, strict=True)
    assert list(actual.images) == list(expected.images)
    for name, frames in expected.images.items():
        np.testing.assert_array_equal(actual.images[name], frames, strict=True)


# --------------------------------------------------------------------------------------- back again


@pytest.mark.parametrize("compression", ["gzip", "lzf", "none"])
def test_a_store_comes_back_as_it_was(tmp_path: Path, compression: str) -> None:
    info = replace(make_info(("wrist", "front")), proprio_units=("rad", "", "N"))
    episodes = make_episodes(12, info)  # demo_10 comes after demo_9
    source = read(write(tmp_path / "out.hdf5", info, episodes, compression=compression))
    assert source.info == info
    assert source.ids() == [episode.id for episode in episodes]
    for episode in episodes:
        assert_same(source.read(episode.id), episode)


def test_the_commands_there_and_back(tmp_path: Path) -> None:
    info = make_info(("front",))  # stored without loss
    make_store(tmp_path / "a.zarr", 4, info=info)
    assert main(["robomimic", str(tmp_path / "a.zarr"), str(tmp_path / "out.hdf5")]) == 0
    assert (
        import_episodes(
            ["robomimic", str(tmp_path / "out.hdf5"), str(tmp_path / "b.zarr"), "--jobs", "1"]
        )
        == 0
    )
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")
    original, imported = EpisodeStore(tmp_path / "a.zarr"), EpisodeStore(tmp_path / "b.zarr")
    assert (imported.info, imported.tasks) == (original.info, original.tasks)


words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(proprio=st.lists(words, max_size=3), texts=st.lists(words, min_size=4, max_size=4))
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, proprio: list[str], texts: list[str]
) -> None:
    info = replace(make_info(size=8), proprio=tuple(proprio), origin=texts[0])
    (episode,) = make_episodes(1, replace(info, proprio=tuple(proprio)))
    episode = replace(episode, id=texts[1], task=texts[2], instruction=f' "{texts[3]}"\0 ')
    source = read(write(tmp_path_factory.mktemp("any") / "out.hdf5", info, [episode]))
    assert source.info == info
    assert_same(source.read(texts[1]), episode)


def test_numbers_of_several_observations_are_those_observations_again(tmp_path: Path) -> None:
    info = replace(make_info(), proprio=NUMBERED)
    episodes = make_episodes(2, info)
    path = write(tmp_path / "out.hdf5", info, episodes)
    with h5py.File(path) as file:
        observations = file["data/demo_0/obs"]
        np.testing.assert_array_equal(observations["robot0_eef_pos"], episodes[0].proprio[:, :3])
        np.testing.assert_array_equal(observations["grip"], episodes[0].proprio[:, 3:])
    assert_same(read(path).read("push/1"), episodes[1])
    assert read(path).info == info
    assert read(path, proprio=("grip",)).info.proprio == ("grip",)


groups = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 3)),
    max_size=4,
    unique_by=lambda group: group[0],
)


@given(groups)
def test_names_are_split_as_they_were_joined(widths: list[tuple[str, int]]) -> None:
    actual = split_names(dimension_names(widths))
    if any(width > 1 for _, width in widths):
        assert [(name, columns.stop - columns.start) for name, columns in actual.items()] == widths
    else:
        assert actual == ({"proprio": slice(0, len(widths))} if widths else {})


@pytest.mark.parametrize(
    "names", [("a_0", "a_1", "a_0", "a_1"), ("a/b_0", "a/b_1"), ("_0", "_1"), ("x", "y"), ("a_0",)]
)
def test_names_that_cannot_be_observations(names: tuple[str, ...]) -> None:
    assert split_names(names) == {"proprio": slice(0, len(names))}


def test_the_configuration_overrides_the_sidecar(tmp_path: Path) -> None:
    info = make_info()
    path = write(tmp_path / "out.hdf5", info, make_episodes(2, info))
    source = read(
        path,
        meaning=ConventionOverride(mode="absolute"),
        instruction="tidy up",
        cameras={"eye": "wrist"},
    )
    assert source.info.action == replace(info.action, mode="absolute")
    assert (list(source.info.cameras), source.read("push/1").task) == (["eye"], "push")
    assert source.read("push/1").instruction == "tidy up"
    with h5py.File(path, "a") as file:
        for name in file["data"]:
            file[f"data/{name}/actions_abs"] = file[f"data/{name}/actions"][()]
    assert read(path, action="actions_abs").info.action.mode == "absolute"


def test_a_folder_of_files_that_were_written(tmp_path: Path) -> None:
    info = make_info()
    episodes = make_episodes(4, info)
    (tmp_path / "both").mkdir()
    write(tmp_path / "both" / "a.hdf5", info, episodes[:2])
    write(tmp_path / "both" / "b.hdf5", replace(info, origin="elsewhere"), episodes[2:])
    assert read(tmp_path / "both").ids() == [episode.id for episode in episodes]
    (tmp_path / "both" / "b.hdf5").unlink()
    write(tmp_path / "both" / "b.hdf5", info, episodes[1:])
    with pytest.raises(DataError, match=r"b.hdf5: an episode 'push/1' is in .*a.hdf5, too"):
        read(tmp_path / "both")
    (tmp_path / "both" / "b.hdf5").unlink()
    write(
        tmp_path / "both" / "b.hdf5",
        replace(info, action=replace(info.action, mode="absolute")),
        episodes[2:],
    )
    with pytest.raises(DataError, match=r"b.hdf5: its episodes are not like those of .*a.hdf5"):
        read(tmp_path / "both")


@pytest.mark.parametrize("where", ["data", "data/demo_1"])
@pytest.mark.parametrize("content", ["{", "[]", "1", "{}"])
def test_a_damaged_sidecar(tmp_path: Path, where: str, content: str) -> None:
    info = make_info()
    path = write(tmp_path / "out.hdf5", info, make_episodes(2, info))
    with h5py.File(path, "a") as file:
        file[where].attrs["joinery"] = content
    with pytest.raises(DataError, match=r"out.hdf5.*attribute 'joinery' is damaged"):
        read(path)


# ------------------------------------------------------------------------------ robomimic's format


def test_files_have_what_robomimic_expects(tmp_path: Path) -> None:
    info = make_info()
    episodes = make_episodes(3, info)
    environment = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}
    with h5py.File(
        write(tmp_path / "out.hdf5", info, episodes, next_obs=True, env_args=environment)
    ) as file:
        data = file["data"]
        assert json.loads(data.attrs["env_args"]) == environment
        assert data.attrs["total"] == 11 + 12 + 13
        assert sorted(data) == ["demo_0", "demo_1", "demo_2"]
        for number, episode in enumerate(episodes):
            demo = data[f"demo_{number}"]
            assert demo.attrs["num_samples"] == len(episode)
            assert json.loads(demo.attrs["ep_meta"]) == {"lang": episode.instruction}
            np.testing.assert_array_equal(demo["actions"], episode.actions)
            assert demo["dones"][:].tolist() == [0] * (len(episode) - 1) + [1]
            assert demo["rewards"].shape == demo["dones"].shape
            for name, frames in episode.images.items():
                np.testing.assert_array_equal(demo["obs"][name], frames)
                np.testing.assert_array_equal(demo["next_obs"][name][:-1], frames[1:])
                np.testing.assert_array_equal(demo["next_obs"][name][-1], frames[-1])
            np.testing.assert_array_equal(demo["next_obs/proprio"][:-1], episode.proprio[1:])
        assert "mask" not in file


def test_masks_hold_out_the_last_of_each_task(tmp_path: Path) -> None:
    info = make_info()
    with h5py.File(
        write(tmp_path / "out.hdf5", info, make_episodes(12, info), validation_episodes=1)
    ) as file:
        held_out = [name.decode() for name in file["mask/valid"]]
        training = [name.decode() for name in file["mask/train"]]
    assert held_out == ["demo_10", "demo_11"]
    assert training == [f"demo_{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("tasks", "held_out"),
    [
        (("reach", "push", "push", "open"), ["demo_2"]),
        (("reach", "push", "open"), ["demo_2"]),  # the last of all
        (("reach",), []),
    ],
)
def test_masks_leave_something_to_train_on(
    tmp_path: Path, tasks: tuple[str, ...], held_out: list[str]
) -> None:
    """With free annotations, nearly every episode is a task of its own."""
    info = make_info()
    episodes = make_episodes(len(tasks), info, tasks)
    path = write(tmp_path / "out.hdf5", info, episodes, validation_episodes=1)
    with h5py.File(path) as file:
        assert [name.decode() for name in file["mask/valid"]] == held_out
        assert len(file["mask/train"]) == len(tasks) - len(held_out)


def test_a_store_without_proprioception(tmp_path: Path) -> None:
    info = make_info(proprio=0)
    (episode,) = make_episodes(1, info)
    path = write(tmp_path / "out.hdf5", info, [episode])
    assert_same(read(path).read("reach/0"), episode)


# ----------------------------------------------------------------------------------------- mistakes


class SmallDisk(FileIO):
    """A file that cannot grow beyond `room` bytes."""

    room = 0

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_full_disk_is_one_error_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    store = make_store(tmp_path / "a.zarr", 3)
    make = partial(RobomimicWriter, RobomimicWriterConfig(compression=compression))
    size = export_episodes(store, make, tmp_path / "whole.hdf5", lambda done, total: None).bytes
    monkeypatch.setattr(writer, "FileIO", SmallDisk)
    for room in (0, 100, 2_000, size // 3, size // 2, size - 1):
        monkeypatch.setattr(SmallDisk, "room", room)
        with pytest.raises(
            DataError, match=r"out.hdf5: cannot write \(No space left on device\); make room"
        ):
            export_episodes(store, make, tmp_path / "out.hdf5", lambda done, total: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "whole.hdf5"]
    monkeypatch.setattr(SmallDisk, "room", size)
    export_episodes(store, make, tmp_path / "out.hdf5", lambda done, total: None)
    assert read(tmp_path / "out.hdf5").ids() == ["reach/0", "push/1", "reach/2"]


def test_a_camera_may_not_be_called_like_the_proprioception(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = replace(make_info(("front",)), cameras={"proprio": Camera(32, 32)})
    make_store(tmp_path / "a.zarr", 1, info=info)
    assert main(["robomimic", str(tmp_path / "a.zarr"), str(tmp_path / "out.hdf5")]) == 1
    assert (
        "error: camera 'proprio': the proprioception has that name, too" in capsys.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
