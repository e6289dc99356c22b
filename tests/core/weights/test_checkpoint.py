import errno
import json
import subprocess

import pytest
import torch
from torch import nn

from core.errors import CheckpointError
from core.system import files
from core.weights.checkpoint import (
    checkpoints,
    choose_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)


class Tied(nn.Module):
    """Two names for one weight, as a language model's embedding and output have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


def stepped(seed=0):
    torch.manual_seed(seed)
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def save(run, step, error=None, keep_last=2, seed=0):
    model, optimizer = stepped(seed)
    return save_checkpoint(
        run, model, optimizer, {"step": step, "validation_error": error}, keep_last
    )


def test_a_checkpoint_brings_back_weights_and_optimiser(tmp_path):
    save(tmp_path, 5)
    saved, fresh = stepped(0), stepped(1)
    load_checkpoint(checkpoints(tmp_path)[0], *fresh)
    for name, tensor in saved[0].state_dict().items():
        assert torch.equal(fresh[0].state_dict()[name], tensor)
    for before, after in zip(
        saved[1].state_dict()["state"].values(),
        fresh[1].state_dict()["state"].values(),
        strict=True,
    ):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step, error in [(1, 0.5), (2, 0.1), (3, 0.7), (4, None), (5, 0.6)]:
        save(tmp_path, step, error)
    assert [c.step for c in checkpoints(tmp_path)] == [2, 4, 5]


def test_without_validation_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [c.step for c in checkpoints(tmp_path)] == [2, 3]


def test_a_checkpoint_is_saved_where_an_earlier_one_cannot_be_removed(tmp_path, monkeypatch):
    save(tmp_path, 1)
    save(tmp_path, 2)

    def refuse(path, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(CheckpointError, match=r"step_00000003: saved, but an earlier checkpoint"):
        save(tmp_path, 3)
    assert [c.step for c in checkpoints(tmp_path)] == [1, 2, 3]


def test_what_a_killed_process_left_half_done_is_cleaned_up(tmp_path):
    save(tmp_path, 1)
    for name in (".step_00000002.writing", ".step_00000000.deleting"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert [c.step for c in checkpoints(tmp_path)] == [1]
    save(tmp_path, 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_00000001",
        "step_00000002",
    ]


def test_no_file_can_run_code(tmp_path):
    folder = save(tmp_path, 1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert json.loads((folder / "state.json").read_text())["step"] == 1


def test_weights_that_do_not_fit_are_listed(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"step_00000001.*first.weight"):
        load_checkpoint(
            checkpoints(tmp_path)[0],
            nn.Linear(3, 3),
            torch.optim.AdamW([nn.Parameter(torch.zeros(1))]),
        )


def averages_of(value):
    """An average for each name of a weight of `Tied`, the same number everywhere."""
    shared = torch.full((3, 3), value)
    biases = {f"{layer}.bias": torch.full((3,), value) for layer in ("first", "second")}
    return {"first.weight": shared, "second.weight": shared, **biases}


def test_averages_act_and_training_goes_on_with_the_weights(tmp_path):
    saved = stepped(0)
    save_checkpoint(tmp_path, *saved, {"step": 1}, 2, averages=averages_of(7.0))
    (checkpoint,) = checkpoints(tmp_path)
    acting = Tied()
    load_weights(checkpoint, acting)
    assert {float(x) for p in acting.parameters() for x in p.detach().flatten()} == {7.0}
    resumed, averages = stepped(1), averages_of(0.0)
    load_checkpoint(checkpoint, *resumed, averages=averages)
    assert all(torch.equal(average, torch.full_like(average, 7)) for average in averages.values())
    for name, tensor in saved[0].state_dict().items():
        assert torch.equal(resumed[0].state_dict()[name], tensor)


def test_a_file_of_weights_that_does_not_fit_the_averages_is_named(tmp_path):
    folder = save_checkpoint(tmp_path, *stepped(), {"step": 1}, 2, averages=averages_of(7.0))
    (checkpoint,) = checkpoints(tmp_path)
    fewer = averages_of(0.0)
    del fewer["first.bias"]
    with pytest.raises(CheckpointError, match=r"training.safetensors: other weights train there"):
        load_checkpoint(checkpoint, *stepped(), averages=fewer)
    (folder / "training.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"training.safetensors: cannot read it"):
        load_checkpoint(checkpoint, *stepped(), averages=averages_of(0.0))


def test_an_optimizer_whose_state_is_no_tensor_is_named(tmp_path):
    model, optimizer = stepped()
    optimizer.state[model.first.weight]["count"] = 3
    with pytest.raises(CheckpointError, match=r"AdamW: its state 'count' of 'first.weight' is a"):
        save_checkpoint(tmp_path, model, optimizer, {"step": 1}, 2)
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_truncated_file_is_named(tmp_path, name):
    path = save(tmp_path, 1) / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(checkpoints(tmp_path)[0], *stepped())


def test_a_disk_that_fills_up_costs_only_the_checkpoint_being_written(tmp_path, monkeypatch):
    save(tmp_path, 1)
    before = (tmp_path / "checkpoints/step_00000001/model.safetensors").read_bytes()

    def fill_up(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", fill_up)
    with pytest.raises(CheckpointError, match=r"step_00000002.*No space left.*--resume"):
        save(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    assert (tmp_path / "checkpoints/step_00000001/model.safetensors").read_bytes() == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    (mount := tmp_path / "disk").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"may not mount a file system here: {mounted.stderr.strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def _save_until_refused(run):
    for step in range(2, 99):
        save(run, step, keep_last=99)


def test_a_disk_that_is_really_full(small_disk):
    save(small_disk, 1)
    (small_disk / "ballast").write_bytes(bytes(48 * 1024))
    with pytest.raises(CheckpointError, match=r"cannot save the checkpoint.*make room"):
        _save_until_refused(small_disk)
    survivors = checkpoints(small_disk)
    assert survivors[0].step == 1
    for checkpoint in survivors:
        load_checkpoint(checkpoint, *stepped())
    assert not list((small_disk / "checkpoints").glob(".*"))


def test_a_checkpoint_is_chosen_by_name_or_by_step(tmp_path):
    for step, error in [(5, 0.1), (6, 0.3), (7, None)]:
        save(tmp_path, step, error, keep_last=9)
    assert choose_checkpoint(tmp_path, "last").step == 7
    assert choose_checkpoint(tmp_path, "best").step == 5
    assert choose_checkpoint(tmp_path, 6).step == 6


@pytest.mark.parametrize("which", [8, "first"])
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(tmp_path, which):
    save(tmp_path, 5)
    save(tmp_path, 7)
    message = f"has none of step {which!r}; choose 'last', 'best', or one of the steps 5, 7"
    with pytest.raises(CheckpointError, match=message):
        choose_checkpoint(tmp_path, which)


def test_without_validation_no_checkpoint_is_the_best(tmp_path):
    save(tmp_path, 5)
    with pytest.raises(CheckpointError, match="has a finite validation error, so none is"):
        choose_checkpoint(tmp_path, "best")
