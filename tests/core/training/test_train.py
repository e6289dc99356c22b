"""Around the loop: the run's folder, resuming, and whatever does not fit together."""

import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from core import import_library
from core.errors import CheckpointError, ConfigError
from core.rollout.actor import load_actor
from core.weights.checkpoint import checkpoints
from tests.core.training.runs import metrics, train
from tests.factories import make_info, make_store


def test_a_run_can_be_repeated_from_its_folder_alone(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run") == 0
    assert train(tmp_path / "run" / "recipe.toml", tmp_path / "again") == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "again")


@pytest.fixture
def published(tmp_path):
    """Weights of the small recipe's vision encoder, as timm would publish them."""
    torch.manual_seed(11)
    model = import_library("timm").create_model("test_vit", img_size=32, depth=1, num_classes=0)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


@pytest.mark.parametrize(
    "what_trains",
    [
        ["vision_encoder.freeze=['model']"],
        ["vision_encoder.train=lora", "vision_encoder.lora_train=['camera', 'norm*']"],
        ["vision_encoder.train=true"],
    ],
    ids=["frozen", "lora", "all"],
)
def test_published_weights_are_trained_acted_with_and_resumed(
    recipe_file, published, tmp_path, what_trains
):
    settings = [f"vision_encoder.pretrained={published}", *what_trains]
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    policy = load_actor(tmp_path / "run").policy
    weights = load_file(checkpoints(tmp_path / "run")[-1].folder / "model.safetensors")
    assert "vision_encoder.camera" in weights  # which nobody publishes
    assert torch.equal(policy.vision_encoder.camera, weights["vision_encoder.camera"])
    own_weights = {
        name.removeprefix("vision_encoder.model.")
        for name in weights
        if name.startswith("vision_encoder.model.") and ".lora_" not in name
    }
    all_names = set(load_file(published))
    saved = {1: set(), 2: {name for name in all_names if "norm" in name}}[len(what_trains)]
    assert own_weights == (all_names if "vision_encoder.train=true" in what_trains else saved)
    moved = published.rename(tmp_path / "moved.safetensors")
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    settings[0] = f"vision_encoder.pretrained={moved}"
    assert train(recipe_file, tmp_path / "run", *settings, resume=True) == 0


@pytest.mark.parametrize(
    ("what_trains", "advice"),
    [
        ("vision_encoder.train=false", 'freeze = ["model"] and train = true'),
        ("vision_encoder.train=lora", 'lora_train = ["camera"]'),
    ],
)
def test_weights_that_nobody_publishes_and_that_would_not_train_are_refused(
    recipe_file, published, tmp_path, capsys, what_trains, advice
):
    """The test above follows the advice."""
    settings = (f"vision_encoder.pretrained={published}", what_trains)
    assert train(recipe_file, tmp_path / "run", *settings) == 2
    assert capsys.readouterr().err == (
        "error: vision_encoder.train: camera would keep the initial values, for no published "
        f"weights hold them; let them train: {advice}\n"
    )
    assert train(recipe_file, tmp_path / "run", *settings, "data.cameras=['front']") == 0


def test_statistics_of_frozen_modules_stay(recipe_file, tmp_path):
    vision = 'model = "test_resnet"\nimage_size = 32\npretrained = false\nfreeze = ["bn*"]'
    text = recipe_file.read_text().replace('model = "test_vit"\nimage_size = 32\ndepth = 1', vision)
    recipe_file.write_text(text)
    assert train(recipe_file, tmp_path / "run", "train.checkpoint_every=1", "train.steps=2") == 0
    first, second = (weights_of(tmp_path / "run", step) for step in (0, 1))
    moved = {name for name, x in first.items() if not torch.equal(x, second[name])}
    statistics = {name for name in first if "running_mean" in name}
    assert {name for name in statistics if ".bn" in name}
    assert not {name for name in moved if ".bn" in name}
    assert {name for name in moved & statistics if ".bn" not in name}, "those of others move"


@pytest.fixture
def source(recipe_file, tmp_path):
    """A finished run of the small recipe."""
    assert train(recipe_file, tmp_path / "source", "train.seed=5") == 0
    return tmp_path / "source"


def weights_of(run, number=-1):
    return load_file(checkpoints(run)[number].folder / "model.safetensors")


def train_on(run):
    """Save a later checkpoint with other weights, as if the run had trained on."""
    newest = checkpoints(run)[-1]
    later = shutil.copytree(newest.folder, newest.folder.with_name("step_00000099"))
    save_file({name: 2 * x for name, x in weights_of(run).items()}, later / "model.safetensors")


def test_a_part_from_a_run_trains_and_goes_on_without_it(
    recipe_file, source, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    setting = "backbone.pretrained=source"  # relative to the current folder
    still = "train.learning_rate=0.0"
    assert train(recipe_file, tmp_path / "run", setting, still) == 0
    before, after = weights_of(source), weights_of(tmp_path / "run")
    same = {name for name, x in before.items() if torch.equal(after[name], x)}
    assert {name for name in before if name.startswith("backbone.")} <= same
    assert "action_tokens.action" in before.keys() - same
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    shutil.rmtree(source)
    assert load_actor(tmp_path / "run")
    assert train(recipe_file, tmp_path / "run", setting, still, resume=True) == 0


@pytest.mark.parametrize("train_backbone", ["false", "lora"])
def test_a_frozen_part_from_a_run_is_left_out_resumed_and_acted_with(
    recipe_file, source, tmp_path, train_backbone
):
    settings = [f"backbone.pretrained={source}", f"backbone.train={train_backbone}"]
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    newest = checkpoints(tmp_path / "run")[-1]
    saved = [name for name in weights_of(tmp_path / "run") if name.startswith("backbone.")]
    assert all(".lora_" in name for name in saved)
    assert bool(saved) == (train_backbone == "lora")
    state = load_actor(tmp_path / "run").policy.state_dict()
    acting = {name.replace(".base_layer", ""): x for name, x in state.items()}
    expected = {n: x for n, x in weights_of(source).items() if n.startswith("backbone.")}
    assert all(torch.equal(acting[name], x) for name, x in expected.items())
    model = (newest.folder / "model.safetensors").read_bytes()
    shutil.rmtree(newest.folder)
    shutil.rmtree(source)
    assert train(recipe_file, tmp_path / "run", *settings, resume=True) == 0
    assert (newest.folder / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize("train_backbone", ["false", "lora"])
def test_frozen_weights_of_a_run_in_float32_serve_one_in_bfloat16(
    recipe_file, source, tmp_path, train_backbone
):
    """What is kept is what the checksum in the checkpoints is of: not what bfloat16 rounds."""
    import_library("peft", extra="lora")
    settings = [f"backbone.pretrained={source}", f"backbone.train={train_backbone}"]
    settings += ["train.precision=bf16-true"]
    assert train(recipe_file, tmp_path / "run", *settings) == 0
    shutil.rmtree(source)
    assert load_actor(tmp_path / "run").policy.backbone is not None
    newest = checkpoints(tmp_path / "run")[-1].folder
    model = (newest / "model.safetensors").read_bytes()
    shutil.rmtree(newest)
    assert train(recipe_file, tmp_path / "run", *settings, resume=True) == 0
    assert (newest / "model.safetensors").read_bytes() == model


def test_a_new_beginning_does_not_take_the_frozen_weights_of_an_earlier_one(
    recipe_file, source, tmp_path
):
    run, kept = tmp_path / "run", tmp_path / "run" / "frozen.safetensors"
    frozen = [f"backbone.pretrained={source}", "backbone.train=false"]
    assert train(recipe_file, run, "train.steps=2", *frozen) == 0
    assert kept.exists()
    shutil.rmtree(run / "checkpoints")  # as if it had been killed before the first
    assert train(recipe_file, run, "train.steps=2", "backbone.mlp_ratio=2") == 0
    assert not kept.exists()
    assert load_actor(run)


def test_keep_frozen_may_be_added_when_a_run_resumes(recipe_file, source, published, tmp_path):
    """Also where the run has a file already, of weights that come from another run."""
    run, kept = tmp_path / "run", tmp_path / "run" / "frozen.safetensors"
    settings = [f"backbone.pretrained={source}", "backbone.train=false"]
    settings += [f"vision_encoder.pretrained={published}", "vision_encoder.freeze=['model']"]
    settings += ["train.precision=bf16-true"]
    assert train(recipe_file, run, *settings) == 0
    first = load_file(kept)
    assert {name.partition(".")[0] for name in first} == {"backbone"}
    assert train(recipe_file, run, *settings, "train.keep_frozen=true", resume=True) == 0
    second = load_file(kept)
    assert {name.partition(".")[0] for name in second} == {"backbone", "vision_encoder"}
    assert all(torch.equal(second[name], x) for name, x in first.items())
    shutil.rmtree(source)
    published.unlink()
    assert load_actor(run)


def test_kept_frozen_weights_are_those_of_training_or_refused(recipe_file, source, tmp_path):
    run, settings = tmp_path / "run", [f"backbone.pretrained={source}", "backbone.train=false"]
    assert train(recipe_file, run, *settings) == 0
    newest, kept = checkpoints(run)[-1].folder, run / "frozen.safetensors"
    before = load_actor(run).policy.state_dict()
    train_on(source)
    after = load_actor(run).policy.state_dict()
    assert all(torch.equal(after[name], x) for name, x in before.items())
    save_file({name: x + 1 for name, x in load_file(kept).items()}, kept)
    message = f"{newest}: the weights that `pretrained` names for backbone are no longer those"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_actor(run)
    kept.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot read it") as caught:
        load_actor(run)
    assert "\n" not in str(caught.value)


def test_an_auxiliary_head_from_a_run_goes_on_without_it(recipe_file, tmp_path):
    head = '[[auxiliary]]\nname = "lstm"\nhidden_size = 8\nlayers = 1\nmlp = [8]\n'
    text = recipe_file.read_text()
    recipe_file.write_text(text + head)
    assert train(recipe_file, tmp_path / "source") == 0
    recipe_file.write_text(f'{text}{head}pretrained = "source"\n')  # relative to the recipe
    assert train(recipe_file, tmp_path / "run") == 0
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    shutil.rmtree(tmp_path / "source")
    assert train(recipe_file, tmp_path / "run", resume=True) == 0


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
    # it was not validated, and must not take the error of another step
    assert before[4]["validation_error"] is None


def test_resuming_with_another_recipe_lists_the_differences(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run") == 0
    changed = ("train.seed=3", "backbone.depth=2", "train.log_every=1")
    assert train(recipe_file, tmp_path / "run", *changed, resume=True) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in lines[:-1]] == ["backbone.depth", "train.seed"]
    assert lines[-1].endswith("add --with-changes")


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
    ("overrides", "message"),
    [
        (["data.path=/nowhere/episodes.zarr"], "/nowhere/episodes.zarr"),
        (
            ["action.mode=absolute"],
            "action.mode: the recipe expects 'absolute', the store's actions are 'delta'",
        ),
        (["action.gripper=continuous", "action.rate=7.0"], "action.rate: the recipe expects 7.0"),
        (["data.cameras=['wirst']"], "data.cameras: no camera 'wirst'; did you mean 'wrist'?"),
        (["data.features=['depth']"], "data.features: no feature 'depth'; known: none (store "),
        (["data.validation_episodes=99"], "would all be held out for validation"),
        (
            ["data.validation_ids=['no such']"],
            "validation_ids: no episode 'no such'; known",
        ),
        (["text_encoder.max_tokens=1"], "max_tokens"),
        (["text_encoder.model=/nowhere/x.model"], "/nowhere/x.model"),
        (["action.normalization=mean_std"], "policy_head.tanh"),
        (["vision_encoder.model=vit_tiny_patch16_242"], "did you mean 'vit_tiny_patch16_224'"),
        (["data.window=2", "action_tokens.formulation=one_step"], "data.window"),
    ],
)
def test_what_recipe_and_store_disagree_on_is_said_in_a_line(
    recipe_file, tmp_path, capsys, overrides, message
):
    assert train(recipe_file, tmp_path / "run", *overrides) in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_instructions_that_occur_once_can_be_trained_on(recipe_file, tmp_path, capsys):
    """In Bridge, DROID and other free annotations, nearly every episode has its own words."""
    shutil.rmtree(tmp_path / "episodes.zarr")
    make_store(tmp_path / "episodes.zarr", 3, tasks=("reach", "push", "open"))
    assert train(recipe_file, tmp_path / "run", "train.steps=2") == 0
    assert "validation: 1 of 3 episodes, of 1 tasks" in capsys.readouterr().out


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
    """The small recipe on two stores; the second lacks a camera and has one more dimension."""
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
        "'theirs' does not fit 'ours'",
        "'theirs' does not fit 'ours'",
    ]
    assert "mode: absolute here, delta there" in lines[0]
    assert "frame: tool here, world there" in lines[1]


def test_an_encoder_that_mixes_cameras_refuses_a_store_that_lacks_one(
    mixed_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("plugins.vision.timm_vit.encoder.TimmEncoder.separates_cameras", False)
    assert train(mixed_file, tmp_path / "run") != 0
    assert (
        "'timm_vit' mixes cameras, and not every store has all; set data.cameras"
        in capsys.readouterr().err
    )
    assert train(mixed_file, tmp_path / "run", 'data.cameras=["front"]', "train.steps=1") == 0


def test_a_run_refuses_a_long_instruction_before_its_first_step(recipe_file, tmp_path, capsys):
    assert train(recipe_file, tmp_path / "run", "text_encoder.max_tokens=2") == 1
    shown = capsys.readouterr().err
    assert "raise text_encoder.max_tokens" in shown
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert train(recipe_file, tmp_path / "run", "train.steps=1", "train.warmup_steps=0") == 0


def test_a_run_goes_on_in_another_folder_with_its_data_elsewhere(recipe_file, tmp_path):
    assert train(recipe_file, tmp_path / "run") == 0
    whole = weights_of(tmp_path / "run")
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    (tmp_path / "new").mkdir()
    run = (tmp_path / "run").rename(tmp_path / "new" / "run")
    (recipe_file.parent / "episodes.zarr").rename(tmp_path / "new" / "moved.zarr")
    moved = f"{recipe_file.parent}/episodes.zarr={tmp_path}/new/moved.zarr"
    assert train(run / "recipe.toml", run, "--moved", moved, resume=True) == 0
    assert all(torch.equal(x, whole[name]) for name, x in weights_of(run).items())


def test_another_vocabulary_is_no_moved_one(recipe_file, tmp_path, capsys):
    pieces = import_library("plugins.text.tokenizer")
    sentences = [f"{verb} the {noun}" for verb in ("push", "lift") for noun in ("cube", "puck")]
    (tmp_path / "own.model").write_bytes(pieces.train(sentences, 285))
    setting = f"text_encoder.model={tmp_path}/own.model"
    assert train(recipe_file, tmp_path / "run", setting) == 0
    (tmp_path / "own.model").rename(tmp_path / "moved.model")
    assert train(recipe_file, tmp_path / "run", setting, resume=True) == 0, "the run has a copy"
    setting = f"text_encoder.model={tmp_path}/moved.model"
    assert train(recipe_file, tmp_path / "run", setting, resume=True) == 0, "with equal contents"
    (tmp_path / "moved.model").write_bytes(pieces.train(sentences, 284))
    assert train(recipe_file, tmp_path / "run", setting, "train.steps=6", resume=True) == 0
    (tmp_path / "third.model").write_bytes(pieces.train(sentences, 284))
    setting = f"text_encoder.model={tmp_path}/third.model"
    capsys.readouterr()
    assert train(recipe_file, tmp_path / "run", setting, resume=True) == 2
    assert "text_encoder.model: the run in" in capsys.readouterr().err
