"""State from window to window: which rows go on, what training carries, and how a run resumes."""

import shutil
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.contracts.batch import Batch
from core.loading.opening import open_data
from core.policy.assembly import build_policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.training.carrying import gather, share_of_process, state_before
from core.weights.checkpoint import checkpoints, load_weights
from tests.core.training.runs import metrics, run_two_processes, train

EPISODES = [
    "data.sampling=episodes",
    "policy_head.memory=episode",
    "train.accelerator=cpu",
    "train.keep_last=9",
]
FILES = ("model.safetensors", "optimizer.safetensors", "carried.safetensors")


class Head(torch.nn.Module):
    def initial_state(self, rows):
        return {"total": torch.zeros(rows, 2)}


def batch_that_begins(rows):
    ids = torch.zeros(len(rows), 1, dtype=torch.int64)
    return Batch({}, [""] * len(rows), ids, None, None, begins=torch.tensor(rows))


def test_rows_that_begin_an_episode_get_the_initial_state():
    carried = {"total": torch.arange(1, 7).view(3, 2).double()}
    state = state_before(Head(), carried, batch_that_begins([False, True, False]))
    assert state["total"].tolist() == [[1, 2], [0, 0], [5, 6]]
    assert state["total"].dtype == torch.float32  # the head's own


def test_fewer_rows_are_the_first_and_more_rows_begin():
    carried = {"total": torch.ones(2, 2)}
    fewer = state_before(Head(), carried, batch_that_begins([False]))
    more = state_before(Head(), carried, batch_that_begins([True] * 3))
    assert fewer["total"].tolist() == [[1, 1]]
    assert more["total"].tolist() == [[0, 0]] * 3


def test_nothing_is_carried_if_every_window_begins_afresh():
    assert state_before(Head(), None, batch_that_begins([True])) is None
    assert gather(SimpleNamespace(world_size=1), [None, None]) is None


def test_each_process_gets_back_its_rows():
    """Of 2 micro-batches of 3 rows in each of 2 processes; rows of a step are numbered 0 to 11."""
    whole = {"total": torch.arange(24).view(12, 2)}
    fabrics = [SimpleNamespace(world_size=2, global_rank=rank) for rank in (0, 1)]
    shares = [list(share_of_process(fabric, whole, 2)) for fabric in fabrics]
    assert [share["total"][0, 0].item() // 2 for share in shares[1]] == [3, 9]
    stacked = torch.stack(
        [torch.stack([state["total"] for state in share]) for share in shares]
    )  # (processes micro-batches B ...)
    together = SimpleNamespace(world_size=2, all_gather=lambda own: stacked)
    assert torch.equal(gather(together, shares[0])["total"], whole["total"])


# -------------------------------------------------------------------------------------- whole runs


def cut_off(folder, copy, step):
    """Copy a run as if it had been killed after the checkpoint of a step."""
    shutil.copytree(folder, copy)
    for checkpoint in checkpoints(copy):
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.folder)


def assert_same_runs(one, other):
    assert metrics(one) == metrics(other)
    last = [checkpoints(folder)[-1].folder for folder in (one, other)]
    for name in FILES:
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()


def test_a_run_that_was_killed_within_episodes_resumes_bit_for_bit(recipe_file, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = [*EPISODES, "train.accumulation=2"]
    assert train(recipe_file, whole, *settings) == 0
    cut_off(whole, killed, step=2)  # the shortest episode has four windows
    carried = load_file(checkpoints(killed)[-1].folder / "carried.safetensors")
    assert {name: x.shape for name, x in carried.items()} == {"h": (4, 1, 16), "c": (4, 1, 16)}
    assert all(x.any(dim=-1).all() for x in carried.values())
    assert train(recipe_file, killed, *settings, resume=True) == 0
    assert_same_runs(whole, killed)


def test_two_processes_resume_bit_for_bit(recipe_file, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = [*EPISODES, "train.steps=4", "train.accumulation=2"]
    finished = run_two_processes(recipe_file, whole, *settings)
    assert finished.returncode == 0, finished.stderr
    cut_off(whole, killed, step=2)
    finished = run_two_processes(recipe_file, killed, *settings, "--resume")
    assert finished.returncode == 0, finished.stderr
    assert_same_runs(whole, killed)


@pytest.fixture
def still(recipe_file, tmp_path):
    """A run in episodes that changed no weight: its folder, data and policy; nothing drops out."""
    settings = [*EPISODES, "train.learning_rate=0.0", "train.steps=7", "backbone.dropout=0.0"]
    folder = tmp_path / "still"
    assert train(recipe_file, folder, *settings, "train.validate_every=7") == 0
    data = open_data(load_recipe(recipe_file, settings, load_plugins()))
    policy = build_policy(data.recipe, data.image_shapes, data.action_spec, data.proprio_dim)
    load_weights(checkpoints(folder)[-1], policy)
    return folder, data, policy.eval()


def row_of(batch, row):
    """Return a copy of one row of a batch (B = 1)."""
    rows = slice(row, row + 1)
    return replace(
        batch,
        images={name: images[rows].clone() for name, images in batch.images.items()},
        instructions=batch.instructions[rows],
        text_ids=batch.text_ids[rows],
        text_mask=None if batch.text_mask is None else batch.text_mask[rows],
        proprio=batch.proprio[rows].clone(),
        actions=batch.actions[rows].clone(),
        action_mask=batch.action_mask[rows].clone(),
        episodes=batch.episodes[rows],
        embodiment=batch.embodiment[rows].clone(),
        begins=None,
    )


@torch.no_grad()
def act_along(policy, windows):
    """Act frame by frame on the windows (B = 1) of an episode; return actions and last state."""
    state, actions = policy.initial_state(torch.zeros(1, dtype=torch.int64)), []
    for window in windows:
        for t in range(window.proprio.shape[1]):
            images = {name: frames[:, t : t + 1] for name, frames in window.images.items()}
            frame = replace(window, images=images, proprio=window.proprio[:, t : t + 1])
            chunk, state = policy.act(frame, state)
            actions.append(chunk)
    return torch.cat(actions), state.head


def test_training_carries_the_state_that_acting_has(still):
    folder, data, policy = still
    carried = load_file(checkpoints(folder)[-1].folder / "carried.safetensors")
    training, _ = data.loaders(policy.text_encoder.tokenize, 4, torch.device("cpu"))
    windows = {row: [] for row in range(4)}  # of each row's newest episode
    for batch in islice(training.batches(data.recipe.train.seed), 7):
        for row in range(4):
            before = [] if batch.begins[row] else windows[row]
            windows[row] = [*before, row_of(batch, row)]
    assert max(map(len, windows.values())) > 1
    for row, of_row in windows.items():
        _, state = act_along(policy, of_row)
        for name in ("h", "c"):
            torch.testing.assert_close(state[name][0], carried[name][row])


def test_validation_carries_state_as_acting_does(still):
    folder, data, policy = still
    _, validation = data.loaders(policy.text_encoder.tokenize, 4, torch.device("cpu"))
    windows = {}
    for batch in validation.once():
        for row, episode in enumerate(batch.episodes):
            windows.setdefault(episode, []).append(row_of(batch, row))
    assert len(windows) == 2
    errors = []
    for of_episode in windows.values():
        actions, _ = act_along(policy, of_episode)
        targets = torch.cat([window.actions[0] for window in of_episode])
        mask = torch.cat([window.action_mask[0] for window in of_episode])
        errors.append(((actions - targets) ** 2)[mask])
    assert metrics(folder)[7]["validation/error"] == pytest.approx(
        float(torch.cat(errors).mean()), rel=1e-5
    )


def test_a_head_that_carries_may_train_on_single_windows(recipe_file, tmp_path):
    """It then begins afresh in every window, as with memory = "window"; nothing is saved for it."""
    settings = ["train.steps=2", "train.accelerator=cpu"]
    assert train(recipe_file, tmp_path / "one", *settings) == 0
    assert train(recipe_file, tmp_path / "other", *settings, "policy_head.memory=episode") == 0
    last = [checkpoints(tmp_path / name)[-1].folder for name in ("one", "other")]
    assert {path.name for path in last[1].iterdir()} == {*FILES[:2], "state.json"}
    for name in FILES[:2]:
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()


def test_a_head_that_carries_nothing_is_refused(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run", "data.sampling=episodes") == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "data.sampling: policy_head 'lstm' carries no state from window to window" in shown


def test_a_head_that_only_says_that_it_carries_is_refused(
    recipe_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.delattr("plugins.heads.lstm.LSTMHead.next_state")
    assert train(recipe_file, tmp_path / "run", *EPISODES) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "says that it carries its state, and lacks a state or the method next_state" in shown


def test_a_carried_state_of_another_shape_is_refused(recipe_file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(recipe_file, folder, *EPISODES, "train.steps=2") == 0
    path = checkpoints(folder)[-1].folder / "carried.safetensors"
    save_file({"h": torch.zeros(4, 1, 15)}, path)
    capsys.readouterr()
    assert train(recipe_file, folder, *EPISODES, "train.steps=2", resume=True) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "carried.safetensors: does not fit the policy head's state" in shown
