"""A checkpoint on any store: its errors, and why a store does not fit."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.commands.validate import main
from core.environments.environment import Observation
from core.episodes.episode import Episode, StoreInfo
from core.evaluation.open_loop import validate_on_store
from core.recipe.contents import Recipe
from core.rollout.actor import load_actor
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import make_store

Load = Callable[..., Recipe]


def written_again(
    source: EpisodeStore, path: Path, info: StoreInfo, change: Callable[[Episode], Episode]
) -> EpisodeStore:
    """Write the episodes of a store into another one, each after a change."""
    with StoreWriter(path, info) as writer:
        for e in range(len(source)):
            writer.append(change(source.read(e)))
    return EpisodeStore(path)


@pytest.fixture
def other_store(load: Load, tmp_path: Path) -> EpisodeStore:
    """Demonstrations with smaller actions, as if somebody else had made them."""
    source = EpisodeStore(load().data.path)  # type: ignore[arg-type]
    factor = np.array([0.75, 0.75, 1.0], np.float32)
    return written_again(
        source,
        tmp_path / "other.zarr",
        source.info,
        lambda episode: replace(episode, actions=episode.actions * factor),
    )


def test_the_training_data_are_recognised_wherever_they_are(
    trained: Path, load: Load, tmp_path: Path
) -> None:
    """Only held-out episodes are measured then, without a word about the move."""
    recipe = load()
    at_its_place = validate_on_store(trained, recipe, recipe.data.path)  # type: ignore[arg-type]
    shutil.copytree(str(recipe.data.path), tmp_path / "elsewhere.zarr")
    elsewhere = validate_on_store(trained, recipe, tmp_path / "elsewhere.zarr")
    assert elsewhere.held_out
    assert elsewhere.total == at_its_place.total


def test_errors_are_those_of_a_plain_loop(
    trained: Path, load: Load, other_store: EpisodeStore, tmp_path: Path
) -> None:
    """Every number is computed again with numpy from the actor's chunks and the store's actions."""
    actor = load_actor(trained)
    affine = actor.action_normalizer.affine

    def normalized(action: np.ndarray) -> np.ndarray:
        """As the recipe's default, min_max, says: clipped, and the gripper is 0 or 1."""
        y = (action.astype(np.float64) - affine.offset) * affine.scale
        return np.array([*np.clip(y[:2], -1, 1), float(y[2] > 0.5)])

    squares: dict[str, list[np.ndarray]] = {}
    targets: dict[str, list[np.ndarray]] = {}
    distances = np.zeros(3)
    count = 0
    for episode in map(other_store.read, range(len(other_store))):
        state = actor.start(1)
        for t in range(len(episode.actions)):
            images = {name: np.asarray(x)[t] for name, x in episode.images.items()}
            observation = Observation(images, episode.proprio[t])
            chunks, state = actor.step([observation], [episode.instruction], state)
            for step in range(min(3, len(episode.actions) - t)):
                done = normalized(episode.actions[t + step])
                square = (normalized(chunks[0, step]) - done) ** 2
                squares.setdefault(episode.task, []).append(square)
                targets.setdefault(episode.task, []).append(done)
            distances += abs(chunks[0, 0].astype(np.float64) - episode.actions[t])
            count += 1
    result = validate_on_store(trained, load(), Path(str(other_store.path)))
    assert result.by_task.keys() == squares.keys()
    for task, error in result.by_task.items():
        constant = np.var(np.array(targets[task]), axis=0).mean()
        assert error.error == pytest.approx(np.mean(squares[task]), rel=1e-5)
        assert error.constant == pytest.approx(constant, rel=1e-5)
    everything = np.concatenate([np.array(x) for x in squares.values()])
    assert result.total.error == pytest.approx(everything.mean(), rel=1e-5)
    residuals = np.concatenate([np.array(x) - np.mean(x, axis=0) for x in targets.values()])
    assert result.total.constant == pytest.approx((residuals**2).mean(), rel=1e-5)
    np.testing.assert_allclose(result.in_units.errors[0], distances / count, rtol=1e-5)
    assert (result.total.episodes, result.total.frames) == (6, count)
    assert not result.held_out


def test_the_command_prints_and_writes_the_errors(
    trained: Path, load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a store that the recipe trains on, only the held-out episodes are taken."""
    path, file = load().data.path, tmp_path / "errors.json"
    assert main([str(trained), str(path), "--checkpoint", "best", "--json", str(file)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 held-out episodes" in shown
    assert "constant: of the best constant action per task" in shown
    written = json.loads(file.read_text())
    assert written["held_out"]
    for task, error in {**written["by_task"], "all": written["total"]}.items():
        assert f"{task} {error['episodes']} {error['error']:.4f} {error['constant']:.4f}" in shown
    assert main([str(trained), str(path), "--episodes", "1"]) == 0
    assert "1 held-out episodes" in capsys.readouterr().out


def test_a_store_is_converted_where_that_is_exact(
    trained: Path, load: Load, other_store: EpisodeStore, tmp_path: Path
) -> None:
    """Another order of proprioception and another scale of the actions are the same episodes."""
    info = other_store.info
    action = replace(info.action, scale=(2 * info.action.scale[0], 2 * info.action.scale[1], 1.0))
    factor = np.array([0.5, 0.5, 1.0], np.float32)
    changed = written_again(
        other_store,
        tmp_path / "changed.zarr",
        replace(info, proprio=info.proprio[::-1], action=action),
        lambda e: replace(e, actions=e.actions * factor, proprio=e.proprio[:, ::-1].copy()),
    )
    expected = validate_on_store(trained, load(), Path(str(other_store.path)), most=2)
    received = validate_on_store(trained, load(), Path(str(changed.path)), most=2)
    assert received.total.error == pytest.approx(expected.total.error, rel=1e-5)
    assert received.total.constant == pytest.approx(expected.total.constant, rel=1e-5)


def test_everything_that_does_not_fit_is_a_line(
    trained: Path,
    other_store: EpisodeStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = other_store.info
    (camera,) = info.cameras
    misfit = written_again(
        other_store,
        tmp_path / "misfit.zarr",
        replace(
            info,
            cameras={"above": info.cameras[camera]},
            proprio=("a", "b"),
            action=replace(info.action, mode="absolute"),
        ),
        lambda e: replace(e, images={"above": e.images[camera]}),
    )
    assert main([str(trained), str(misfit.path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    starts = [line.removeprefix(f"error: {misfit.path}: ") for line in lines]
    assert [start.partition(":")[0] for start in starts] == [
        "action.mode",
        "proprio",
        f"camera '{camera}'",
    ]
    assert starts[1] == f"proprio: the policy has {info.proprio}, the store ('a', 'b')"
    assert "the policy needs it, and the store has none" in starts[2]


def test_another_robot_s_actions_do_not_fit(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "arm.zarr")
    assert main([str(trained), str(store.path)]) == 2
    assert "proprio: the policy has" in capsys.readouterr().err
