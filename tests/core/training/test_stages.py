"""Stages: which weights move in which step, whose losses count, and that a run can be resumed."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.errors import ConfigError
from core.training.stages import StagedTraining
from core.weights.checkpoint import checkpoint_folder
from tests.core.training.runs import metrics, run_two_processes, train
from tests.strangers import build

AUXILIARY = """[[auxiliary]]
name = "discrete"
label = "bins"
pretrained = false
bins = 8
mlp = [16]
"""
BODY = ["vision_encoder", "text_encoder", "projections", "backbone", "action_tokens"]
RANDOM_HEAD = "policy_head.pretrained=false"  # random weights are meant in a head that rests
EVERY_STEP = ("train.checkpoint_every=1", "train.keep_last=9", "backbone.dropout=0.1")


@pytest.fixture
def staged(recipe_file: Path) -> Path:
    """A recipe of six steps with an auxiliary head that predicts bins of actions."""
    text = recipe_file.read_text().replace("horizon = 2", 'horizon = 2\nnormalization = "min_max"')
    recipe_file.write_text(text + AUXILIARY)
    return recipe_file


def stages(*tables: tuple[int, list[str], list[str]]) -> str:
    """The override that gives a recipe these stages: (steps, parts, losses)."""
    written = [f"{{steps={n}, parts={parts}, losses={losses}}}" for n, parts, losses in tables]
    return f"train.stages=[{', '.join(written)}]"


FIRST_BODY_THEN_HEAD = stages(
    (4, [*BODY, "auxiliary/bins"], ["auxiliary/bins"]), (2, ["policy_head"], ["policy_head"])
)
FIRST_A_MODULE = (
    "train.stages=[{steps=2, parts=['policy_head.lstm']}, "
    f"{{steps=4, parts={[*BODY, 'policy_head']}, freeze=['policy_head.lstm']}}]"
)
TAKING_TURNS = stages((1, BODY, []), (1, ["policy_head", "auxiliary/bins"], []))


def changed_parts(folder: Path, before: int, after: int) -> set[str]:
    """The parts whose weights differ between two checkpoints."""
    changed = changed_weights(folder, before, after)
    return {name.replace("auxiliary.", "auxiliary/").partition(".")[0] for name in changed}


def changed_weights(folder: Path, before: int, after: int, name: str = "model") -> set[str]:
    """The weights that differ between two checkpoints."""
    early, late = (
        load_file(checkpoint_folder(folder, step) / f"{name}.safetensors")
        for step in (before, after)
    )
    return {name for name in early if not torch.equal(early[name], late[name])}


def test_parts_that_train_one_after_another(staged, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(staged, folder, FIRST_BODY_THEN_HEAD, *EVERY_STEP) == 0
    assert changed_parts(folder, 1, 4) == {*BODY, "auxiliary/bins"}
    assert changed_parts(folder, 4, 6) == {"policy_head"}
    losses = metrics(folder)
    assert "auxiliary/bins/pose" in losses[4]
    assert "pose" not in losses[4]
    assert "pose" in losses[5]
    assert "auxiliary/bins/pose" not in losses[5]
    # each stage has a warm-up of two steps and a fall of its own
    factors = [losses[step]["learning_rate_factor"] for step in range(1, 7)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.5, 1.0])
    shown = capsys.readouterr().out
    assert all(f"joint training, step {step}" in shown for step in (1, 5, 6))


def test_a_module_that_trains_first_and_rests_then(recipe_file, tmp_path):
    """Neither weight decay nor moving averages change what rests."""
    folder, decay = tmp_path / "run", ("train.weight_decay=0.5", "train.ema=0.5")
    assert train(recipe_file, folder, FIRST_A_MODULE, *EVERY_STEP, *decay) == 0
    first, then = changed_weights(folder, 1, 2), changed_weights(folder, 3, 6)
    assert first
    assert all(name.startswith("policy_head.lstm.") for name in first)
    assert then
    assert not any(name.startswith("policy_head.lstm.") for name in then)
    assert {name.partition(".")[0] for name in then} >= {"backbone", "policy_head"}


def test_what_rests_is_in_evaluation_mode(load, tmp_path):
    """A module that trains does so in a part that rests, and the other way round."""
    policy = build(tmp_path, 'name = "lstm"')
    staged = StagedTraining(policy, load(FIRST_A_MODULE).train)
    head, others = policy.policy_head, (policy.vision_encoder, policy.policy_head.pose)
    for done, trains in ((0, True), (2, False)):
        staged.enter(done)
        assert head.lstm.training is trains
        assert all(weight.requires_grad is trains for weight in head.lstm.parameters())
        assert all(module.training is not trains for module in others)
    assert staged.frozen == {*head.lstm.parameters()}


def test_a_module_that_a_part_lacks_is_refused(load, tmp_path):
    policy = build(tmp_path, 'name = "lstm"')
    override = FIRST_A_MODULE.replace("parts=['policy_head.lstm']", "parts=['policy_head.ltsm']")
    with pytest.raises(ConfigError) as error:
        StagedTraining(policy, load(override).train)
    line = "train.stages.0.parts: 'policy_head' has no module 'ltsm'; did you mean"
    assert str(error.value).startswith(line)


def test_parts_that_take_turns(staged, tmp_path):
    folder = tmp_path / "run"
    assert train(staged, folder, TAKING_TURNS, *EVERY_STEP) == 0
    for done in (1, 3):
        assert changed_parts(folder, done, done + 1) == {"policy_head", "auxiliary/bins"}
        assert changed_parts(folder, done + 1, done + 2) == {*BODY}
    # the schedule is that of the whole run
    factors = [metrics(folder)[step]["learning_rate_factor"] for step in range(1, 7)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466])


def test_stages_that_take_turns_may_differ_in_their_losses(staged, tmp_path):
    turns = stages((1, BODY, ["auxiliary/bins"]), (1, ["policy_head"], []))
    assert train(staged, tmp_path / "run", turns, "train.log_every=4") == 0
    losses = metrics(tmp_path / "run")
    assert ["pose" in losses[step] for step in range(1, 7)] == [False, True] * 3
    assert all("auxiliary/bins/pose" in losses[step] for step in range(1, 7))


def test_one_stage_of_all_parts_is_joint_training(staged, tmp_path):
    whole = stages((6, [*BODY, "policy_head", "auxiliary/bins"], []))
    assert train(staged, tmp_path / "stage") == 0
    assert train(staged, tmp_path / "joint", whole) == 0
    assert metrics(tmp_path / "stage") == metrics(tmp_path / "joint")


@pytest.mark.parametrize("override", [FIRST_BODY_THEN_HEAD, FIRST_A_MODULE, TAKING_TURNS])
@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_run_is_the_undisturbed_one(staged, tmp_path, stop, override, monkeypatch):
    from core.training import fit as fit_module

    settings = (override, "train.checkpoint_every=1", "train.ema=0.5")
    assert train(staged, tmp_path / "whole", *settings) == 0

    def stopped(run, step, original=fit_module.after_step):
        original(run, step)
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "after_step", stopped)
        assert train(staged, tmp_path / "run", *settings) == 128 + signal.SIGTERM
    assert train(staged, tmp_path / "run", *settings, resume=True) == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    for name in ("model", "training", "optimizer"):
        saved = [
            checkpoint_folder(tmp_path / folder, 6) / f"{name}.safetensors"
            for folder in ("run", "whole")
        ]
        assert saved[0].read_bytes() == saved[1].read_bytes()


def test_two_processes_train_the_same_stages(staged, tmp_path):
    settings = (*EVERY_STEP, "backbone.dropout=0.0", "data.window=1", "action.horizon=1")
    assert train(staged, tmp_path / "one", TAKING_TURNS, *settings) == 0
    result = run_two_processes(staged, tmp_path / "two", TAKING_TURNS, *settings)
    assert result.returncode == 0, result.stderr
    assert changed_parts(tmp_path / "two", 1, 2) == {"policy_head", "auxiliary/bins"}
    assert changed_parts(tmp_path / "two", 2, 3) == {*BODY}
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for step in one:
        assert two[step]["loss"] == pytest.approx(one[step]["loss"], rel=1e-3)
        assert two[step]["gradient_norm"] == pytest.approx(one[step]["gradient_norm"], rel=1e-3)


def test_losses_that_move_no_part_are_refused(staged, tmp_path, capsys):
    staged.write_text(staged.read_text() + "insulate = true\n")
    override = stages((6, BODY, []))
    assert train(staged, tmp_path / "run", override, RANDOM_HEAD, "policy_head.insulate=true") == 2
    assert "train.stages.0: the losses that count move none of its parts" in capsys.readouterr().err


def test_a_loss_that_no_part_returns_is_refused(staged, tmp_path, capsys):
    override = stages((6, BODY, ["policy_head", "vision_encoder"]))
    assert train(staged, tmp_path / "run", override, RANDOM_HEAD) == 2
    line = "train.stages: losses names vision_encoder, without a loss of its own in this stage"
    assert line in capsys.readouterr().err


def test_a_stage_of_parts_without_weights_is_refused_before_training(staged, tmp_path, capsys):
    override = stages((5, BODY, []), (1, ["projections"], []))
    same_width = ("vision_encoder.width=16", "vision_encoder.heads=2")
    assert train(staged, tmp_path / "run", override, RANDOM_HEAD, *same_width) == 2
    captured = capsys.readouterr()
    assert "train.stages.1.parts: without weights in this recipe: projections" in captured.err
    assert "step 1" not in captured.out


# the calls: the trial, step 1, one for each term in the joint-training table, step 2, step 3
@pytest.mark.parametrize("having", [(6,), range(1, 7)], ids=["comes", "goes"])
def test_a_term_that_comes_and_goes_is_refused(recipe_file, tmp_path, capsys, monkeypatch, having):
    from plugins.heads.lstm import LSTMHead

    original, calls = LSTMHead.loss, []

    def changing(self, context, batch, generator):
        if torch.is_grad_enabled():
            calls.append(1)
        terms = original(self, context, batch, generator)
        return {**terms, "smooth": terms["pose"]} if len(calls) in having else terms

    monkeypatch.setattr(LSTMHead, "loss", changing)
    assert train(recipe_file, tmp_path / "run", "train.checkpoint_every=1") == 1
    state = "new" if having == (6,) else "missing"
    shown = capsys.readouterr().err
    assert f"step 3: the term 'smooth' of the loss is {state}; mend the plugin" in shown
    assert shown.startswith("error: policy_head 'lstm' of plugin 'plugins.heads.lstm' (joinery ")
    assert checkpoint_folder(tmp_path / "run", 2).exists()


def test_a_policy_that_learns_nothing_is_refused(load, tmp_path):
    stages = StagedTraining(build(tmp_path, 'name = "regression"'), load().train)
    with pytest.raises(ConfigError, match=r"^train: the losses move no part; let a part train"):
        stages.check(0, {"total": torch.zeros(()), "action": torch.zeros(())})
