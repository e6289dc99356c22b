"""Whole runs through the command: what they write, how they stop, how they go on, how they fail."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core import import_library, run
from core.errors import ConfigError
from core.rollout.actor import load_actor
from core.training import fit as fit_module
from core.weights.checkpoint import checkpoints
from tests.factories import make_info, make_store

PARTS = (
    "vision_encoder",
    "text_encoder",
    "projections",
    "backbone",
    "action_tokens",
    "policy_head",
)


@pytest.fixture(autouse=True)
def one_thread():
    """Several runs share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def metrics(folder):
    """{step: {name: value}} without the timings, which no two runs share."""
    merged = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        step = values.pop("step")
        merged.setdefault(step, {}).update(
            {k: v for k, v in values.items() if not k.startswith("time/")}
        )
    return merged


def train(recipe_file, folder, *overrides, resume=False):
    return run.main(
        [str(recipe_file), *overrides, "--output", str(folder), *(["--resume"] if resume else [])]
    )


def test_a_run_writes_metrics_checkpoints_and_its_recipe(recipe_file, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(recipe_file, folder) == 0
    steps = metrics(folder)
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
    assert all(
        math.isfinite(values["loss"]) and values["gradient_norm"] > 0 for values in steps.values()
    )
    assert [c.step for c in checkpoints(folder)][-2:] == [4, 6]
    assert {"validation/error", "validation/constant", "validation/error/push"} <= steps[6].keys()
    assert list((folder / "tensorboard").iterdir())
    shown = capsys.readouterr().out
    assert "joint training, step 1" in shown
    assert "best constant action per task" in shown


def test_all_five_parts_move_in_the_first_step(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run") == 0
    first = metrics(tmp_path / "run")[1]
    for part in PARTS:
        assert first[f"joint/{part}/gradient_norm"] > 0, part
        assert first[f"joint/{part}/update"] > 0, part


def test_a_run_can_be_repeated_from_its_folder_alone(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run") == 0
    assert train(tmp_path / "run" / "recipe.toml", tmp_path / "again") == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "again")


def test_accumulated_micro_batches_are_the_same_windows(recipe_file, tmp_path):
    """All windows are whole, so that the mean over two halves is the mean over all: only rounding
    differs.
    """
    whole_windows = ["train.steps=1", "backbone.dropout=0.0", "data.window=1", "action.horizon=1"]
    assert train(recipe_file, tmp_path / "whole", *whole_windows) == 0
    assert train(recipe_file, tmp_path / "halves", *whole_windows, "train.accumulation=2") == 0
    whole, halves = metrics(tmp_path / "whole")[1], metrics(tmp_path / "halves")[1]
    for name in ("loss", "pose", "gripper", "gradient_norm"):
        np.testing.assert_allclose(halves[name], whole[name], rtol=1e-4)


def test_a_frozen_part_does_not_change(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run", "backbone.train=false", "train.keep_last=9") == 0
    early, late = (
        load_file(c.folder / "model.safetensors")
        for c in (checkpoints(tmp_path / "run")[i] for i in (0, -1))
    )
    changed = {name.partition(".")[0] for name in early if not torch.equal(early[name], late[name])}
    assert changed == {*PARTS} - {"backbone"}


@pytest.fixture
def published(tmp_path):
    """Weights of the small recipe's vision encoder, as timm would publish them."""
    torch.manual_seed(11)
    model = import_library("timm").create_model("test_vit", img_size=32, depth=1, num_classes=0)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


@pytest.mark.parametrize("train_vision", ["false", "lora", "true"])
def test_published_weights_are_trained_acted_with_and_resumed(
    recipe_file, published, tmp_path, train_vision
):
    settings = [f"vision_encoder.pretrained={published}", f"vision_encoder.train={train_vision}"]
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    policy = load_actor(tmp_path / "run").policy
    weights = load_file(checkpoints(tmp_path / "run")[-1].folder / "model.safetensors")
    assert "vision_encoder.camera" in weights  # which nobody publishes
    assert torch.equal(policy.vision_encoder.camera, weights["vision_encoder.camera"])
    held = [
        name
        for name in weights
        if name.startswith("vision_encoder.model.") and ".lora_" not in name
    ]
    assert bool(held) == (train_vision == "true")
    moved = published.rename(tmp_path / "moved.safetensors")
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    settings[0] = f"vision_encoder.pretrained={moved}"
    assert train(recipe_file, tmp_path / "run", *settings, resume=True) == 0


@pytest.mark.parametrize(
    "settings", [(), ("augmentation.shift=3", "augmentation.crop=0.8", "augmentation.hue=0.1")]
)
def test_resuming_continues_bit_for_bit(recipe_file, tmp_path, settings):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(recipe_file, whole, *settings) == 0
    assert train(recipe_file, halves, *settings) == 0
    for checkpoint in checkpoints(halves)[1:]:
        shutil.rmtree(checkpoint.folder)  # as if it had been killed after the first kept checkpoint
    assert train(recipe_file, halves, *settings, resume=True) == 0
    assert metrics(halves) == metrics(whole)
    last = [checkpoints(folder)[-1].folder / "model.safetensors" for folder in (whole, halves)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_a_run_of_before_there_was_augmentation_goes_on(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run") == 0
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    recipe = tmp_path / "run" / "recipe.toml"
    before, section, after = recipe.read_text().partition("[augmentation]\n")
    assert section
    recipe.write_text(before + after[after.index("[") :])
    assert train(recipe_file, tmp_path / "run", resume=True) == 0


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_trains(recipe_file, tmp_path, precision):
    settings = [
        "train.accelerator=cpu",
        "train.steps=4",
        "backbone.dropout=0.0",
        "augmentation.crop=0.99",
    ]
    assert train(recipe_file, tmp_path / "full", *settings) == 0
    assert train(recipe_file, tmp_path / "half", *settings, f"train.precision={precision}") == 0
    full, half = metrics(tmp_path / "full"), metrics(tmp_path / "half")
    np.testing.assert_allclose(half[1]["loss"], full[1]["loss"], rtol=0.03)
    np.testing.assert_allclose(half[4]["validation/error"], full[4]["validation/error"], rtol=0.05)
    assert half[1]["loss"] != full[1]["loss"]  # it did compute in half precision
    assert (
        half[4]["validation/constant"] == full[4]["validation/constant"]
    )  # and left the targets as they were


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(recipe_file, tmp_path, monkeypatch, number):
    original = fit_module.after_step

    def interrupted(run, done):
        original(run, done)
        if done == 3:
            os.kill(os.getpid(), number)

    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert train(recipe_file, whole) == 0
    monkeypatch.setattr(fit_module, "after_step", interrupted)
    assert train(recipe_file, folder) == 128 + number
    assert checkpoints(folder)[-1].step == 3
    monkeypatch.setattr(fit_module, "after_step", original)
    assert train(recipe_file, folder, resume=True) == 0
    assert metrics(folder) == metrics(whole)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_culprits(
    recipe_file, tmp_path, monkeypatch, capsys
):
    from plugins.heads.lstm import LSTMHead

    original, calls = LSTMHead.loss, []

    def poisoned(self, context, batch, generator):
        calls.append(1)
        terms = original(self, context, batch, generator)
        return {name: term * (math.nan if len(calls) == 5 else 1) for name, term in terms.items()}

    monkeypatch.setattr(LSTMHead, "loss", poisoned)
    assert train(recipe_file, tmp_path / "run") == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "step 5: not finite: total = nan" in shown
    assert "reach/" in shown
    assert "step_00000004" in shown
    assert checkpoints(tmp_path / "run")[-1].step == 4


def test_weights_that_are_not_finite_are_never_saved(recipe_file, tmp_path, capsys, monkeypatch):
    original = fit_module.JointTable.measure

    @contextmanager
    def overflowing(table, step):
        with original(table, step):
            yield
        next(table.modules["backbone"].parameters()).data[0] = (
            math.inf
        )  # as a far too large step would leave it

    monkeypatch.setattr(fit_module.JointTable, "measure", overflowing)
    assert train(recipe_file, tmp_path / "run", "train.steps=1") == 1
    assert "weights are not finite" in capsys.readouterr().err
    assert checkpoints(tmp_path / "run") == []


def test_an_output_that_is_a_file_is_one_line(recipe_file, tmp_path, capsys):
    (tmp_path / "run").write_text("mine")
    assert train(recipe_file, tmp_path / "run") == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert str(tmp_path / "run") in shown
    assert (tmp_path / "run").read_text() == "mine"


def test_an_accelerator_that_is_not_there_is_one_line(recipe_file, tmp_path, capsys):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an MPS device")
    assert train(recipe_file, tmp_path / "run", "train.accelerator=mps") == 2
    shown = capsys.readouterr().err
    assert "train.accelerator" in shown
    assert shown.count("\n") == 1


def test_a_second_run_into_one_folder_is_refused(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run") == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert train(recipe_file, tmp_path / "run") == 1
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_resuming_a_finished_run_leaves_it_as_it_is(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run") == 0
    before = {c.step: c.state for c in checkpoints(tmp_path / "run")}
    assert train(recipe_file, tmp_path / "run", resume=True) == 0
    assert {c.step: c.state for c in checkpoints(tmp_path / "run")} == before
    assert before[6]["validation_error"] == metrics(tmp_path / "run")[6]["validation/error"]
    assert (
        before[4]["validation_error"] is None
    )  # it was not validated, and another step's error is not its own


def test_resuming_with_another_recipe_lists_the_differences(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run") == 0
    changed = ("train.seed=3", "backbone.depth=2", "train.log_every=1")
    assert train(recipe_file, tmp_path / "run", *changed, resume=True) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["backbone.depth", "train.seed"]


def test_resuming_on_a_store_that_has_grown_is_refused(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run") == 0
    shutil.rmtree(tmp_path / "episodes.zarr")
    make_store(tmp_path / "episodes.zarr", episodes=8)
    assert train(recipe_file, tmp_path / "run", resume=True) == 1
    assert "episodes.zarr: not the data that" in capsys.readouterr().err


def test_resuming_nothing_is_an_error(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run", resume=True) == 1
    assert "no run to resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.path=/nowhere/episodes.zarr"], "/nowhere/episodes.zarr"),
        (
            ["action.mode=absolute"],
            "action.mode: the recipe relies on 'absolute', the store's actions are 'delta'",
        ),
        (["action.gripper=continuous", "action.rate=7.0"], "action.rate: the recipe relies on 7.0"),
        (["data.cameras=['wirst']"], "data.cameras: no camera 'wirst'; did you mean 'wrist'?"),
        (["data.features=['depth']"], "data.features: no feature 'depth'; known: none (store "),
        (["data.validation_episodes=99"], "99 are to be held out"),
        (["text_encoder.max_tokens=1"], "max_tokens"),
        (["text_encoder.model=/nowhere/x.model"], "/nowhere/x.model"),
        (["action.normalization=mean_std"], "policy_head.tanh"),
        (["vision_encoder.model=vit_tiny_patch16_242"], "did you mean 'vit_tiny_patch16_224'"),
        (["data.window=2", "action_tokens.formulation=one_step"], "data.window"),
    ],
)
def test_what_recipe_and_store_disagree_on_is_said_in_a_line(
    recipe_file, tmp_path, capsys, overrides, said
):
    assert train(recipe_file, tmp_path / "run", *overrides) in (1, 2)
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_an_instruction_of_ten_thousand_characters_is_one_line(
    recipe_file, tmp_path, capsys, monkeypatch
):
    from tests import factories

    monkeypatch.setitem(factories.INSTRUCTIONS, "push", "push " * 2000)
    shutil.rmtree(tmp_path / "episodes.zarr")
    make_store(tmp_path / "episodes.zarr")
    assert train(recipe_file, tmp_path / "run") == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert len(shown) < 400
    assert "max_tokens" in shown


def frame_file(store):
    return max(store.glob("parts/*/cam/*/data/c/0"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_damaged_frames_stop_the_run_in_a_line(recipe_file, tmp_path, capsys, damage):
    path = frame_file(tmp_path / "episodes.zarr")
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    if damage == "missing":
        path.unlink()
    else:
        content[::50] ^= 1
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    assert train(recipe_file, tmp_path / "run") == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert str(path.relative_to(tmp_path)).split("/cam/")[0] in shown


def test_a_process_without_validation_batches_waits_for_the_others(recipe_file, tmp_path):
    settings = ["train.accelerator=cpu", "train.steps=1", "train.batch_size=32"]
    finished = run_two_processes(recipe_file, tmp_path / "two", *settings)
    assert finished.returncode == 0, finished.stderr
    assert train(recipe_file, tmp_path / "one", *settings) == 0
    assert (
        metrics(tmp_path / "two")[1]["validation/constant"]
        == metrics(tmp_path / "one")[1]["validation/constant"]
    )


def run_two_processes(recipe_file, folder, *settings):
    command = [
        sys.executable,
        "-m",
        "core.run",
        str(recipe_file),
        *settings,
        "train.devices=2",
        "train.strategy=ddp",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--output", str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


def test_two_processes_train_as_one_does(recipe_file, tmp_path):
    """The same windows, half of them in each process: gradients are averaged, so the losses agree."""
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ["train.accelerator=cpu", "backbone.dropout=0.0", "train.steps=4"]
    assert train(recipe_file, one, *settings) == 0
    finished = run_two_processes(recipe_file, two, *settings)
    assert finished.returncode == 0, finished.stderr
    alone, together = metrics(one), metrics(two)
    assert sorted(alone) == sorted(together)
    np.testing.assert_allclose(
        together[1]["loss"], alone[1]["loss"], rtol=0.2
    )  # the mean of two means, masks differ
    np.testing.assert_allclose(
        together[4]["validation/error"], alone[4]["validation/error"], rtol=0.05
    )


# ----------------------------------------------------------------------------------- several stores

TWO_STORES = """window = 3
[[data.stores]]
path = "episodes.zarr"
name = "ours"
weight = 1.0
[[data.stores]]
path = "theirs.zarr"
weight = 3.0
cameras = { front = "side" }
"""


@pytest.fixture
def mixed_file(recipe_file):
    """The small recipe on two stores: the second lacks a camera and has one more action dimension."""
    info = make_info(cameras=("side",), size=40)
    names, scale = (*info.action.names, "w"), (*info.action.scale, 1.0)
    info = replace(info, action=replace(info.action, names=names, scale=scale))
    make_store(recipe_file.parent / "theirs.zarr", 4, info=info)
    path = recipe_file.with_name("mixed.toml")
    path.write_text(
        recipe_file.read_text().replace('path = "episodes.zarr"\nwindow = 3\n', TWO_STORES)
    )
    return path


def test_a_mixture_trains_resumes_and_acts_in_the_terms_of_either_store(
    mixed_file, tmp_path, capsys
):
    folder = tmp_path / "run"
    assert train(mixed_file, folder, "train.steps=4") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ours: 2[45]\.\d% of the samples; no action w$", shown, re.MULTILINE)
    assert re.search(r"^theirs: 7[56]\.\d% of the samples; no camera wrist$", shown, re.MULTILINE)
    assert train(folder / "recipe.toml", folder, resume=True) == 0
    assert "finished at step 4" in capsys.readouterr().out
    first, second = load_actor(folder), load_actor(folder, store="theirs")
    assert first.info.action.names == ("x", "y", "z", "gripper", "w")
    assert first.action_normalizer != second.action_normalizer
    assert load_actor(folder, store="ours").action_normalizer == first.action_normalizer
    assert (first.embodiment, second.embodiment) == (0, 1)
    with pytest.raises(
        ConfigError, match=r"evaluate.store: .* knows none called 'their'; did you mean 'theirs'"
    ):
        load_actor(folder, store="their")


def test_a_mixture_goes_on_where_its_stores_were_moved(mixed_file, tmp_path):
    folder = tmp_path / "run"
    assert train(mixed_file, folder, "train.steps=4") == 0
    shutil.move(mixed_file.parent / "theirs.zarr", mixed_file.parent / "moved.zarr")
    text = mixed_file.read_text().replace(
        'path = "theirs.zarr"', 'path = "moved.zarr"\nname = "theirs"'
    )
    mixed_file.write_text(text)
    assert train(mixed_file, folder, "train.steps=4", resume=True) == 0


def test_stores_that_do_not_go_together_are_refused_in_a_line_each(mixed_file, tmp_path, capsys):
    info = make_info(cameras=("side",))
    frame = replace(info, action=replace(info.action, frame="tool", mode="absolute"))
    shutil.rmtree(mixed_file.parent / "theirs.zarr")
    make_store(mixed_file.parent / "theirs.zarr", 4, info=frame)
    assert train(mixed_file, tmp_path / "run") != 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[2].strip() for line in lines] == [
        "'theirs' does not go with 'ours'",
        "'theirs' does not go with 'ours'",
    ]
    assert "mode: absolute here, delta there" in lines[0]
    assert "frame: tool here, world there" in lines[1]


def test_an_encoder_that_mixes_cameras_refuses_a_store_that_lacks_one(
    mixed_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("plugins.vision.timm_vit.TimmEncoder.separates_cameras", False)
    assert train(mixed_file, tmp_path / "run") != 0
    assert (
        "'timm_vit' mixes cameras, and not every store has all; set data.cameras"
        in capsys.readouterr().err
    )
    assert train(mixed_file, tmp_path / "run", 'data.cameras=["front"]', "train.steps=1") == 0
