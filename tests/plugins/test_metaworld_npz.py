from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.commands.import_ import main
from core.errors import DataError
from core.formats.importing import import_episodes
from core.store.store import EpisodeStore
from plugins.datasets.metaworld_npz import MetaWorldNpz, MetaWorldNpzConfig

ENDS = (4, 9)
SHIPPED = Path(__file__).parents[2] / "recipes" / "data" / "metaworld.zarr"


def recording(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "images": random.integers(0, 255, (9, 96, 96, 3), dtype=np.uint8),
        "actions": random.normal(size=(9, 4)).astype(np.float32),
        "proprio": random.normal(size=(9, 4)).astype(np.float32),
        "episode_ends": np.array(ENDS),
        "task": np.array("push-v3"),
        "instruction": np.array("push the puck"),
        **changes,
    }


def source(folder: Path, **changes: Any) -> MetaWorldNpz:
    np.savez_compressed(
        folder / "push-v3.npz", **{k: v for k, v in recording(**changes).items() if v is not None}
    )
    return MetaWorldNpz(MetaWorldNpzConfig(), source=folder)


def test_episodes_are_read_as_recorded(tmp_path: Path) -> None:
    dataset = source(tmp_path)
    assert dataset.ids() == ["push-v3/0", "push-v3/1"]
    first, second = (dataset.read(episode) for episode in dataset.ids())
    expected = recording()
    np.testing.assert_array_equal(first.actions, expected["actions"][:4])
    np.testing.assert_array_equal(second.images["corner2"], expected["images"][4:])
    np.testing.assert_array_equal(second.proprio, expected["proprio"][4:])
    assert (second.task, second.instruction) == ("push-v3", "push the puck")


def test_the_conventions_are_metaworlds(tmp_path: Path) -> None:
    action = source(tmp_path).info.action
    assert (action.mode, action.frame, action.rotation, action.rate) == (
        "delta",
        "world",
        "none",
        80.0,
    )
    assert action.scale[:3] == (0.01, 0.01, 0.01)
    (gripper,) = action.grippers
    assert (gripper.dimension, gripper.kind, gripper.closed, gripper.open) == (
        3,
        "continuous",
        1.0,
        -1.0,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"proprio": np.zeros((8, 4), np.float32)},
            r"'episode_ends' \[4, 9\] must rise to the frames, .*'proprio': 8",
        ),
        ({"actions": None}, "actions"),
        ({"episode_ends": np.array([4, 8])}, r"'episode_ends' \[4, 8\] must rise to the frames"),
        (
            {"episode_ends": np.array([[4, 9]])},
            r"'episode_ends' is int64 \(1, 2\), expected integers",
        ),
        ({"episode_ends": np.array(9)}, r"'episode_ends' is int64 \(\), expected"),
        ({"episode_ends": np.array([4.5, 9.0])}, r"'episode_ends' is float64"),
        ({"episode_ends": np.array([9, 4, 9], np.uint64)}, r"'episode_ends' \[9, 4, 9\] must rise"),
        ({"actions": np.float32(1)}, r"'actions' is float32 \(\)"),
        ({"actions": np.full((9, 4), "left")}, r"'actions' is <U4 \(9, 4\), expected floats"),
        ({"task": np.array(["a", "b"])}, r"'task' is <U1 \(2,\), expected one string"),
        ({"instruction": np.array(7)}, "'instruction' is int64"),
        ({"episode_ends": np.array([9, 9])}, r"'episode_ends' \[9, 9\] must rise to the frames"),
        (
            {"instruction": np.array({"a": 1}, dtype=object)},
            "'instruction' holds Python objects, which might run code and are not loaded",
        ),
    ],
)
def test_files_of_another_layout_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    dataset = source(tmp_path, **changes)
    with pytest.raises(DataError, match=f"push-v3.npz.*{message}"):
        dataset.read(dataset.ids()[0])


def test_a_file_without_episodes_is_not_passed_over(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **recording(episode_ends=np.zeros(0, np.int64)))
    dataset = source(tmp_path)
    assert dataset.ids() == ["a.npz", "push-v3/0", "push-v3/1"]
    with pytest.raises(DataError, match=r"a.npz: 'episode_ends' is int64 \(0,\)"):
        dataset.read("a.npz")


def nan_at(frame: int, dimension: int) -> np.ndarray:
    actions: np.ndarray = recording()["actions"]
    actions[frame, dimension] = np.nan
    return actions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.zeros((9, 64, 64, 3), np.uint8)},
            r"'push-v3/0', 'corner2': uint8 \(4, 64, 64, 3\), expected .*96",
        ),
        (
            {"proprio": np.zeros((9, 3), np.float32)},
            r"'push-v3/0', proprio: float32 \(4, 3\), expected .* \(4, 4\)",
        ),
        ({"actions": nan_at(6, 2)}, r"'push-v3/1', frame 2: actions 'z' is nan"),
    ],
)
def test_the_store_names_file_and_episode(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    dataset = source(tmp_path, **changes)
    with pytest.raises(DataError, match=f"episode {message}"):
        import_episodes(dataset, tmp_path / "out.zarr", lambda done, total: None)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    dataset = source(tmp_path)
    file = tmp_path / "push-v3.npz"
    whole = file.read_bytes()
    with_flipped_bits = [
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        for at in (100, 5_000, len(whole) // 2)
    ]
    np.save(tmp_path / "array.npy", np.zeros(3))
    plain_array = (tmp_path / "array.npy").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nothing", plain_array, *with_flipped_bits):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"push-v3.npz: (damaged or no .npz file|is empty)"):
            dataset.read("push-v3/0")


def test_random_damage_is_one_line_or_harmless(tmp_path: Path) -> None:
    dataset = source(tmp_path, images=np.zeros((9, 96, 96, 3), np.uint8))
    file = tmp_path / "push-v3.npz"
    whole, random = file.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        file.write_bytes(damaged)
        dataset = MetaWorldNpz(MetaWorldNpzConfig(), source=tmp_path)
        try:
            dataset.read(dataset.ids()[0])
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


def test_the_command_imports_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source(tmp_path)
    assert main(["metaworld_npz", str(tmp_path), str(tmp_path / "out.zarr"), "camera=top"]) == 0
    assert "2 episodes imported" in capsys.readouterr().out
    store = EpisodeStore(tmp_path / "out.zarr")
    out = np.zeros((5, 96, 96, 3), np.uint8)
    store.read_frames("top", 1, 0, 5, out)
    # the images are noise, of which a lossy codec keeps little
    assert np.abs(out.astype(int) - recording()["images"][4:]).mean() < 30


def test_the_store_that_ships_is_whole() -> None:
    store = EpisodeStore(SHIPPED)
    assert (len(store), store.frame_count, len(store.tasks)) == (20, 1609, 5)
    out = np.zeros((int(store.length.max()), 96, 96, 3), np.uint8)
    for episode in range(len(store)):
        length = int(store.length[episode])
        store.read_frames("corner2", episode, 0, length, out[:length])
        assert out[:length].std() > 10
    assert np.abs(store.actions(0, 0, 5)).max() <= 1
