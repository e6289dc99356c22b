from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.convert import main
from core.data.store import EpisodeStore
from core.errors import DataError
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
    np.savez_compressed(folder / "push-v3.npz", **{k: v for k, v in recording(**changes).items() if v is not None})
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
    assert (action.mode, action.frame, action.rotation, action.rate) == ("delta", "world", "none", 80.0)
    assert action.scale[:3] == (0.01, 0.01, 0.01)
    (gripper,) = action.grippers
    assert (gripper.dimension, gripper.kind, gripper.closed, gripper.open) == (3, "continuous", 1.0, -1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((9, 64, 64, 3), np.uint8)}, r"'images' is \(9, 64, 64, 3\), expected \(9, 96, 96, 3\)"),
        ({"proprio": np.zeros((8, 4), np.float32)}, r"'proprio' is \(8, 4\), expected \(9, 4\)"),
        ({"actions": None}, "actions"),
        ({"episode_ends": np.array([4, 8])}, r"'episode_ends' \[4, 8\] must rise to 9"),
        ({"episode_ends": np.array([9, 9])}, r"'episode_ends' \[9, 9\] must rise to 9"),
        ({"instruction": np.array({"a": 1}, dtype=object)}, "allow_pickle"),
    ],
)
def test_files_laid_out_otherwise_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    dataset = source(tmp_path, **changes)
    with pytest.raises(DataError, match=f"push-v3.npz.*{message}"):
        dataset.read("push-v3/0")


def test_a_bad_number_names_its_episode(tmp_path: Path) -> None:
    actions = recording()["actions"]
    actions[6, 2] = np.nan
    with pytest.raises(DataError, match=r"push-v3.npz: episode 'push-v3/1', frame 2: 'actions' dimension 2 is nan"):
        source(tmp_path, actions=actions).read("push-v3/0")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    dataset = source(tmp_path)
    file = tmp_path / "push-v3.npz"
    whole = file.read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (100, 5_000, len(whole) // 2)]
    np.save(tmp_path / "array.npy", np.zeros(3))
    no_archive = (tmp_path / "array.npy").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nothing", no_archive, *flipped):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"push-v3.npz: damaged or no .npz file"):
            dataset.read("push-v3/0")


def test_the_command_imports_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source(tmp_path)
    assert main(["metaworld_npz", str(tmp_path), str(tmp_path / "out.zarr"), "camera=top"]) == 0
    assert "2 episodes imported" in capsys.readouterr().out
    store = EpisodeStore(tmp_path / "out.zarr")
    out = np.zeros((5, 96, 96, 3), np.uint8)
    store.read_frames("top", 1, 0, 5, out)
    assert np.abs(out.astype(int) - recording()["images"][4:]).mean() < 30  # noise: the codec may be lossy


def test_the_store_that_ships_is_whole() -> None:
    store = EpisodeStore(SHIPPED)
    assert (len(store), store.frame_count, len(store.tasks)) == (20, 1609, 5)
    out = np.zeros((int(store.length.max()), 96, 96, 3), np.uint8)
    for episode in range(len(store)):
        length = int(store.length[episode])
        store.read_frames("corner2", episode, 0, length, out[:length])
        assert out[:length].std() > 10
    assert np.abs(store.actions(0, 0, 5)).max() <= 1
