"""What must be true of an episode store and of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from core.episodes import Episode
from core.store.store import EpisodeStore
from tests.plugins.published_layouts.demonstrations import Demonstration


def episode_of(
    number: int,
    demonstration: Demonstration,
    *,
    images: Mapping[str, np.ndarray],
    actions: np.ndarray | None = None,
    proprio: np.ndarray | None = None,
    task: str = "",
) -> Episode:
    """The episode that an import should make of a demonstration.

    actions, proprio: default: LeRobot's columns for them, whole.
    """
    if actions is None:
        actions = demonstration.columns["action"]
    if proprio is None:
        proprio = demonstration.columns["observation.state"]
    return Episode(
        id=f"{number:06d}",
        task=task or demonstration.instruction,
        instruction=demonstration.instruction,
        images=images,
        actions=actions.astype(np.float32),
        proprio=proprio.astype(np.float32),
    )


def assert_imported(store: EpisodeStore, episodes: Sequence[Episode]) -> None:
    """The store holds these episodes, each number and each frame as it was put in."""
    assert [store.episode_id(number) for number in range(len(store))] == [e.id for e in episodes]
    for number, expected in enumerate(episodes):
        found = store.read(number)
        assert (found.task, found.instruction) == (expected.task, expected.instruction)
        np.testing.assert_array_equal(found.actions, expected.actions)
        np.testing.assert_array_equal(found.proprio, expected.proprio)
        assert list(found.images) == list(expected.images)
        for camera, images in expected.images.items():
            np.testing.assert_array_equal(found.images[camera], images)


def assert_trained(run: Path, episodes: Sequence[Episode], held_out: Sequence[int]) -> None:
    """The run made 20 steps on these episodes, and compared its predictions with some of them."""
    last: dict[str, float] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        last |= json.loads(line)
    assert last["step"] == 20
    assert np.isfinite([last["loss"], last["gradient_norm"], last["validation/error"]]).all()
    assert all(last[f"joint/{part}/update"] > 0 for part in ("vision_encoder", "policy_head"))
    state = json.loads((run / "checkpoints" / "step_00000020" / "state.json").read_text())
    frames = sum(len(episode.actions) for episode in episodes)
    assert state["trained_on"] == {"episodes": len(episodes), "frames": frames}
    means = np.concatenate([episode.proprio for episode in episodes]).mean(axis=0)
    offsets = state["proprio_normalizer"]["affine"]["offset"]
    np.testing.assert_allclose(offsets, means, atol=1e-5)
    with np.load(run / "evaluation" / "predictions.npz") as compared:
        recorded = [compared[name] for name in compared.files if name.endswith("/true")]
    assert len(recorded) == len(held_out)
    for actions, number in zip(recorded, held_out, strict=True):
        np.testing.assert_allclose(actions, episodes[number].actions, atol=1e-5)
