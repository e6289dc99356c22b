"""Going on with changes: what is kept, what begins anew, and what cannot go on."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.weights.checkpoint import checkpoints, choose_checkpoint
from tests.core.training.runs import metrics, train
from tests.factories import make_store

FEW = ("train.steps=2", "train.joint_table_every=9")
LONGER = ("train.steps=4", "train.joint_table_every=9")


def record(folder):
    return json.loads((folder / "continuations.json").read_text())


@pytest.fixture
def run(recipe_file, tmp_path):
    """A run of two steps."""
    assert train(recipe_file, tmp_path / "run", *FEW) == 0
    return tmp_path / "run"


def test_a_run_goes_on_longer_and_resumes_exactly_afterwards(recipe_file, run, tmp_path, capsys):
    changes = (*LONGER, "train.learning_rate=1e-4", "train.schedule=constant")
    assert train(recipe_file, run, *changes, with_changes=True) == 0
    assert "changed after step 2: train.learning_rate: 0.0003 -> 0.0001" in capsys.readouterr().out
    assert [(entry["step"], sorted(entry["changes"])) for entry in record(run)] == [
        (2, ["train.learning_rate", "train.schedule", "train.steps"])
    ]
    recipe = load_recipe(run / "recipe.toml", [], load_plugins())
    assert (recipe.train.steps, recipe.train.learning_rate) == (4, 1e-4)
    # killed and resumed from the first checkpoint of the continuation, and from that before it
    whole, content = metrics(run), (checkpoints(run)[-1].folder / "model.safetensors").read_bytes()
    shutil.rmtree(checkpoints(run)[-1].folder)
    assert train(recipe_file, run, *changes, resume=True) == 0
    assert metrics(run) == whole
    assert (checkpoints(run)[-1].folder / "model.safetensors").read_bytes() == content
    assert len(record(run)) == 1
    assert train(recipe_file, run, *changes, "train.steps=5", with_changes=True) == 0
    assert [(entry["step"], entry["changes"]["train.steps"]) for entry in record(run)] == [
        (2, [2, 4]),
        (4, [4, 5]),
    ]


def test_whatever_keeps_the_shapes_may_change(recipe_file, run):
    changes = (
        "train.accumulation=2",
        "train.batch_size=6",
        "train.seed=3",
        "train.precision=bf16-mixed",
        "train.gradient_clip=0.1",
        "train.accelerator=cpu",
        "data.validation_episodes=2",
        "augmentation.crop=0.8",
        "text_encoder.max_tokens=50",
        "backbone.dropout=0.2",
        "optimizer.eps=1e-6",
    )
    assert train(recipe_file, run, *LONGER, *changes, with_changes=True) == 0
    assert len(record(run)[0]["changes"]) == len(changes) + 1


def test_more_episodes_change_the_normalisers_and_the_best_is_chosen_anew(
    recipe_file, run, tmp_path, capsys
):
    shutil.rmtree(tmp_path / "episodes.zarr")
    make_store(tmp_path / "episodes.zarr", episodes=8)
    assert train(recipe_file, run, *FEW, resume=True) == 1
    assert "add --with-changes" in capsys.readouterr().err
    before = checkpoints(run)[-1]
    (before.folder / "state.json").write_text(json.dumps({**before.state, "validation_error": 0.0}))
    settings = (*LONGER, "train.keep_last=1")
    assert train(recipe_file, run, *settings, with_changes=True) == 0
    assert "not compared with earlier ones" in capsys.readouterr().out
    assert "trained_on" in record(run)[0]["data_changes"]
    last = checkpoints(run)[-1]
    assert last.state["trained_on"]["episodes"] == 8
    assert [c.step for c in checkpoints(run)] == [2, 4], "the former best stays"
    assert choose_checkpoint(run, "best").step == 4, "but is the best of other episodes"
    shutil.rmtree(last.folder)  # as if it had been killed before its first checkpoint
    assert train(recipe_file, run, *settings, resume=True) == 0


def test_another_optimiser_and_averages_begin_anew(recipe_file, run, tmp_path):
    changes = ("optimizer.name=sgd", "train.ema=0.9")
    assert train(recipe_file, run, *LONGER, *changes, with_changes=True) == 0
    newest = checkpoints(run)[-1].folder
    entries = {name.rpartition("/")[2] for name in load_file(newest / "optimizer.safetensors")}
    assert entries == {"momentum_buffer"}
    assert (newest / "training.safetensors").exists()
    weights = load_file(newest / "training.safetensors")
    shutil.rmtree(newest)  # as if it had been killed before its first checkpoint
    assert train(recipe_file, run, *LONGER, *changes, resume=True) == 0
    again = load_file(newest / "training.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    # without averages, training goes on with the weights and not with what acted
    settings = ("train.steps=5", "train.learning_rate=0.0", "optimizer.name=sgd")
    assert train(recipe_file, run, *settings, with_changes=True) == 0
    after = load_file(checkpoints(run)[-1].folder / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())


def test_weights_come_back_from_half_precision_as_their_float32_copies_are(recipe_file, run):
    assert train(recipe_file, run, *LONGER, "train.precision=bf16-true", with_changes=True) == 0
    state = load_file(checkpoints(run)[-1].folder / "optimizer.safetensors")
    assert {x.dtype for x in state.values()} == {torch.float32}
    copies = {n.removesuffix("/master"): x for n, x in state.items() if n.endswith("/master")}
    still = ("train.steps=5", "train.learning_rate=0.0", "train.weight_decay=0.0")
    assert train(recipe_file, run, *still, with_changes=True) == 0
    newest = checkpoints(run)[-1].folder
    weights = load_file(newest / "model.safetensors")
    assert copies
    assert all(torch.equal(weights[name], copy) for name, copy in copies.items())
    assert not any("master" in name for name in load_file(newest / "optimizer.safetensors"))


def test_rows_begin_anew_where_they_hold_other_episodes(recipe_file, tmp_path):
    folder = tmp_path / "run"
    settings = ("data.sampling=episodes", "policy_head.memory=episode")
    assert train(recipe_file, folder, *FEW, *settings) == 0
    longer = (*LONGER, *settings, "train.batch_size=6")
    assert train(recipe_file, folder, *longer, with_changes=True) == 0
    carried = load_file(checkpoints(folder)[-1].folder / "carried.safetensors")
    assert {len(tensor) for tensor in carried.values()} == {6}
    shutil.rmtree(checkpoints(folder)[-1].folder)  # killed before its first checkpoint
    assert train(recipe_file, folder, *longer, resume=True) == 0


def test_weights_that_cannot_fit_are_refused_with_a_way_out(recipe_file, run, tmp_path, capsys):
    before = (run / "recipe.toml").read_bytes()
    assert train(recipe_file, run, *FEW, "policy_head.hidden_size=8", with_changes=True) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "the weights do not fit" in shown
    assert "start a new run with --output" in shown
    assert (run / "recipe.toml").read_bytes() == before
    assert not (run / "continuations.json").exists()
    assert f"start.run={run}, and start.anew" in shown
    start = (f"start.run={run}", "start.anew=['policy_head']")
    assert train(recipe_file, tmp_path / "new", *FEW, "policy_head.hidden_size=8", *start) == 0


def test_refused_changes_leave_the_run_as_it_was(recipe_file, run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    patience = ("train.patience=1", "train.validate_every=2", "data.validation_episodes=0")
    stage = ("train.stages=[{parts=['action_tokens'],until=3}]", "action_tokens.name=none")
    for changes in (patience, stage):
        assert train(recipe_file, run, *LONGER, *changes, with_changes=True) != 0
        assert capsys.readouterr().err
        after = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
        assert after == before


def test_a_part_can_be_frozen_on_the_way(recipe_file, run):
    before = load_file(checkpoints(run)[-1].folder / "model.safetensors")
    frozen = ("backbone.train=false", "backbone.pretrained=false")
    assert train(recipe_file, run, *LONGER, *frozen, with_changes=True) == 0
    after = load_file(checkpoints(run)[-1].folder / "model.safetensors")
    moved = {
        name.partition(".")[0] for name, x in before.items() if not torch.equal(after[name], x)
    }
    assert "backbone" not in moved
    assert "policy_head" in moved


def test_weights_that_have_averages_can_be_frozen_on_the_way_and_trained_again(
    recipe_file, tmp_path
):
    folder, averaged = tmp_path / "run", "train.ema=0.9"
    assert train(recipe_file, folder, *FEW, averaged) == 0
    before = load_file(checkpoints(folder)[-1].folder / "training.safetensors")
    frozen = ("vision_encoder.train=false", "vision_encoder.pretrained=false")
    assert train(recipe_file, folder, *LONGER, averaged, *frozen, with_changes=True) == 0
    after = load_file(checkpoints(folder)[-1].folder / "model.safetensors")
    assert all(
        torch.equal(after[name], x) for name, x in before.items() if name.startswith("vision_")
    ), "it stays what was trained, and not its average"
    trained = load_file(checkpoints(folder)[-1].folder / "training.safetensors")
    assert not any(name.startswith("vision_") for name in trained)
    still = ("train.steps=5", "train.learning_rate=0.0", "train.weight_decay=0.0", averaged)
    assert train(recipe_file, folder, *still, with_changes=True) == 0
    again = load_file(checkpoints(folder)[-1].folder / "model.safetensors")
    for name in (name for name in before if name.startswith("vision_")):
        torch.testing.assert_close(again[name], after[name])
    assert any(not torch.equal(again[name], trained[name]) for name in trained)


def test_fewer_steps_than_were_done_are_refused(recipe_file, run, capsys):
    assert train(recipe_file, run, "train.steps=1", with_changes=True) == 2
    assert re.search(r"train\.steps: .* has done 2 steps", capsys.readouterr().err)


def test_changes_need_a_run_that_goes_on(recipe_file, tmp_path, capsys):
    from core import run as command

    with pytest.raises(SystemExit):
        command.main([str(recipe_file), "--with-changes"])
    assert "add --resume" in capsys.readouterr().err
