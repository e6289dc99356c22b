"""From published weights through training with adapters to an export that transformers loads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from core import ConfigError, import_library, load_policy, run
from core.commands import export
from core.policy.publishing import export_checkpoint, export_folder, merge
from core.recipe.contents import PARTS
from core.rollout.actor import load_actor
from core.weights.checkpoint import checkpoints
from plugins.text.sentencepiece import SHIPPED
from tests.factories import make_store

VOCABULARY = 2037
RECIPE = """
[train]
steps = 2
batch_size = 2
precision = "{precision}"
accelerator = "cpu"
warmup_steps = 1
validate_every = 1
checkpoint_every = 1
joint_table_every = 1

[data]
path = "{folder}/store.zarr"
window = 2

[action]
horizon = 2

[vision_encoder]
name = "kosmos2_vision"
width = 32
heads = 4
latents = 3
clip_width = 32
clip_depth = 1
clip_heads = 2
image_size = 28
train = false
pretrained = "{folder}/hub"

[text_encoder]
name = "kosmos2_text"
model = "{model}"
width = 32
vocabulary = 2037
pretrained = "{folder}/hub"

[backbone]
name = "kosmos2"
width = 32
depth = 2
heads = 4
mlp_width = 64
dropout = 0.0
attention_dropout = 0.0
train = "lora"
lora_rank = 2
pretrained = "{folder}/hub"

[action_tokens]
name = "learned"

[policy_head]
name = "lstm"
layers = 1
hidden_size = 16
mlp = [8]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a store, a published Kosmos-2 and a finished run that trained from it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("export")
    make_store(folder / "store.zarr")
    transformers = import_library("transformers")
    text = {
        "embed_dim": 32,
        "layers": 2,
        "ffn_dim": 64,
        "attention_heads": 4,
        "vocab_size": VOCABULARY,
    }
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    vision["intermediate_size"] = 128
    torch.manual_seed(5)
    config = transformers.Kosmos2Config(text_config=text, vision_config=vision, latent_query_num=3)
    transformers.Kosmos2ForConditionalGeneration(config).save_pretrained(folder / "hub")
    (folder / "recipe.toml").write_text(
        RECIPE.format(folder=folder, model=SHIPPED, precision="32-true")
    )
    assert run.main([str(folder / "recipe.toml"), "--output", str(folder / "run")]) == 0
    return folder


def newest(home: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(home / "run")[-1].folder / "model.safetensors")


def test_a_checkpoint_holds_adapters_and_what_trains_but_no_published_weight(home):
    names = newest(home)
    assert not [name for name in names if name.startswith("vision_encoder.")]
    backbone = [name for name in names if name.startswith("backbone.")]
    assert len(backbone) == 2 * 2 * 6  # two matrices beside each of six linear layers of two layers
    assert all(".lora_A." in name or ".lora_B." in name for name in backbone)
    assert "text_encoder.embedding.weight" in names
    assert "action_tokens.action" in names


def test_a_run_acts_and_is_exported_after_the_model_moved(home, tmp_path, capsys):
    """The tokenizer is the run's own copy; of the weights, it is said where they are now."""
    copy = Path(shutil.copytree(home / "run", tmp_path / "run"))
    recipe = (copy / "recipe.toml").read_text()
    for moved in ("hub", "store.zarr", str(SHIPPED)):
        recipe = recipe.replace(str(home / moved), f"/gone/{Path(moved).name}")
    (copy / "recipe.toml").write_text(recipe)
    with pytest.raises(ConfigError, match="there is no file or folder '/gone/hub'"):
        load_policy(copy)
    assert load_policy(copy, moved={"/gone/hub": str(home / "hub")}).horizon > 0
    assert export.main([str(copy), str(tmp_path / "out")]) == 2
    assert "say so by --moved OLD=NEW" in capsys.readouterr().err
    assert export.main([str(copy), str(tmp_path / "out"), "--moved", f"/gone={home}"]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_exactly_what_the_recipe_trains_has_changed(home):
    first, last = (load_file(c.folder / "model.safetensors") for c in checkpoints(home / "run"))
    # the rows of words that no instruction has are not touched, and all the rest is
    assert {name for name in last if torch.equal(first[name], last[name])} == set()
    table = (json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines())
    joint = {
        key: value for line in table for key, value in line.items() if key.startswith("joint/")
    }
    assert joint["joint/vision_encoder/trainable"] == 0
    assert joint["joint/backbone/trainable"] == sum(
        x.numel() for n, x in last.items() if n.startswith("backbone.")
    )


def test_an_actor_puts_published_weights_and_adapters_together(home):
    policy = load_actor(home / "run").policy
    hub = load_file(home / "hub" / "model.safetensors")
    base = policy.backbone.layers[1].attention.q_proj.base_layer.weight
    assert torch.equal(base, hub["text_model.model.layers.1.self_attn.q_proj.weight"])
    adapter = policy.backbone.layers[1].attention.q_proj.lora_B.default.weight
    assert adapter.any()


def test_training_goes_on_from_adapters(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    assert run.main([str(home / "recipe.toml"), "--output", str(tmp_path / "run"), "--resume"]) == 0
    again = load_file(checkpoints(tmp_path / "run")[-1].folder / "model.safetensors")
    assert all(torch.equal(again[name], x) for name, x in newest(home).items())


def test_other_published_weights_than_before_are_noticed(home, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(home, moved)
    recipe = moved / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(home), str(moved)))
    hub = load_file(moved / "hub" / "model.safetensors")
    hub["text_model.model.layers.0.ffn.fc1.bias"] += 1
    save_file(hub, moved / "hub" / "model.safetensors", metadata={"format": "pt"})
    assert export.main([str(moved / "run"), str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().err
    assert "for backbone, vision_encoder are no longer those it was trained on; restore" in shown


def test_an_export_has_the_adapters_merged_and_transformers_loads_it(home, tmp_path):
    assert export.main([str(home / "run"), str(tmp_path / "out")]) == 0
    transformers = import_library("transformers")
    model, report = transformers.Kosmos2ForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    policy = load_actor(home / "run").policy
    for i, layer in enumerate(policy.backbone.layers):
        fc1, merged = layer.mlp.fc1, model.text_model.model.layers[i].ffn.fc1.weight
        delta = fc1.lora_B.default.weight @ fc1.lora_A.default.weight * 2  # alpha / rank
        torch.testing.assert_close(merged.detach(), fc1.base_layer.weight + delta)
        assert delta.any()
    processor = transformers.CLIPImageProcessor.from_pretrained(tmp_path / "out")
    assert torch.tensor(processor.image_mean).allclose(policy.vision_encoder.mean.flatten())
    pieces = policy.text_encoder.config.model.read_bytes()
    assert (tmp_path / "out" / "sentencepiece.bpe.model").read_bytes() == pieces
    rest = load_file(tmp_path / "out" / "policy.safetensors")
    assert {name.partition(".")[0] for name in rest} == {"action_tokens", "policy_head"}


def test_an_export_to_robovlms_loads_into_all_five_parts(home, tmp_path):
    out = tmp_path / "policy.ckpt"
    assert export.main([str(home / "run"), str(out)]) == 0
    tensors = torch.load(out, weights_only=True)["state_dict"]
    assert {"model.action_token", "model.act_head.rnn.weight_hh_l0"} <= tensors.keys()
    recipe = (
        (home / "recipe.toml")
        .read_text()
        .replace(f"{home}/hub", str(out))
        .replace("lora_rank = 2\n", "")
    )
    recipe = (
        recipe.replace('train = "lora"', "")
        .replace("train = false", "")
        .replace("steps = 2", "steps = 1")
    )
    for section in ("action_tokens", "policy_head"):
        recipe = recipe.replace(f"[{section}]\n", f'[{section}]\npretrained = "{out}"\n')
    (tmp_path / "recipe.toml").write_text(
        recipe.replace("batch_size = 2", "batch_size = 2\nlearning_rate = 0.0")
    )
    assert run.main([str(tmp_path / "recipe.toml"), "--output", str(tmp_path / "run")]) == 0
    loaded = load_actor(tmp_path / "run").policy
    expected = load_actor(home / "run").policy
    merge(expected)
    for kind in PARTS:
        for name, tensor in getattr(expected, kind).state_dict().items():
            torch.testing.assert_close(
                getattr(loaded, kind).state_dict()[name], tensor, msg=f"{kind}.{name}"
            )


class Named(nn.Module):
    """A part that gives the names of its tensors itself."""

    def publish_checkpoint(self):
        return {"anything.at.all": torch.ones(2)}


def test_the_parts_give_their_names_in_a_checkpoint(home, tmp_path):
    policy = load_actor(home / "run").policy
    policy.policy_head = Named()
    export_checkpoint(policy, tmp_path / "deep" / "policy.ckpt")
    tensors = torch.load(tmp_path / "deep" / "policy.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(tensors["anything.at.all"], torch.ones(2))
    assert not [name for name in tensors if "act_head" in name]


def test_parts_that_nobody_publishes_are_named(home, tmp_path):
    policy = load_actor(home / "run").policy
    policy.policy_head, policy.backbone = nn.Linear(1, 1), Named()
    with pytest.raises(ConfigError, match=r"the weights of policy_head \(Linear\), so"):
        export_checkpoint(policy, tmp_path / "policy.ckpt")
    with pytest.raises(ConfigError, match=r"the weights of backbone \(Named\), so"):
        export_folder(policy, tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_parts_of_different_models_are_not_joined(home, tmp_path, monkeypatch):
    policy = load_actor(home / "run").policy
    other = {"model_type": "llava", "tie_word_embeddings": False, "text_config": {}}
    monkeypatch.setattr(policy.backbone, "describe", lambda: other, raising=False)
    with pytest.raises(ConfigError, match="disagree on model_type, tie_word_embeddings"):
        export_folder(policy, tmp_path / "folder")


@pytest.fixture(scope="module")
def four_bits(home) -> Path:
    """The same run with published weights in four bits; the text encoder has no matrices."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (pip install -e '.[quantized]')")
    settings = ["vision_encoder.quantize=nf4", "backbone.quantize=nf4"]
    assert (
        run.main([str(home / "recipe.toml"), *settings, "--output", str(home / "four_bits")]) == 0
    )
    return home / "four_bits"


def test_a_run_in_four_bits_saves_adapters_alone_and_acts_in_four_bits(home, four_bits):
    saved = load_file(checkpoints(four_bits)[-1].folder / "model.safetensors")
    assert saved.keys() == newest(home).keys()
    policy = load_actor(four_bits).policy
    assert policy.backbone.layers[1].attention.q_proj.base_layer.weight.dtype == torch.uint8
    assert policy.vision_encoder.dense.weight.dtype == torch.uint8


def test_a_run_in_four_bits_goes_on_where_it_stopped(home, four_bits, tmp_path):
    shutil.copytree(four_bits, tmp_path / "run")
    shutil.rmtree(checkpoints(tmp_path / "run")[-1].folder)
    settings = ["vision_encoder.quantize=nf4", "backbone.quantize=nf4"]
    assert (
        run.main(
            [str(home / "recipe.toml"), *settings, "--output", str(tmp_path / "run"), "--resume"]
        )
        == 0
    )
    before, again = (
        load_file(checkpoints(folder)[-1].folder / "model.safetensors")
        for folder in (four_bits, tmp_path / "run")
    )
    assert all(torch.equal(again[name], x) for name, x in before.items())


def test_the_joint_table_counts_weights_in_four_bits_as_weights(home, four_bits):
    def counted(folder: Path) -> dict[str, float]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return {k: v for line in lines for k, v in line.items() if k.endswith("/parameters")}

    assert counted(four_bits) == counted(home / "run")


def test_an_export_of_a_run_in_four_bits_merges_into_the_weights_as_published(
    home, four_bits, tmp_path
):
    assert export.main([str(four_bits), str(tmp_path / "out")]) == 0
    exported, hub = (
        load_file(tmp_path / "out" / "model.safetensors"),
        load_file(home / "hub" / "model.safetensors"),
    )
    saved = load_file(checkpoints(four_bits)[-1].folder / "model.safetensors")
    adapter = "backbone.layers.0.mlp.fc1.lora_{}.default.weight"
    name = "text_model.model.layers.0.ffn.fc1.weight"
    delta = saved[adapter.format("B")] @ saved[adapter.format("A")] * 2
    torch.testing.assert_close(exported[name], hub[name] + delta)
    frozen = "vision_model.model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(exported[frozen], hub[frozen])


def test_an_export_with_projections_is_refused(home, tmp_path, capsys):
    """No published layout has a place for them."""
    (tmp_path / "recipe.toml").write_text((home / "recipe.toml").read_text())
    wider = [
        "backbone.width=64",
        "backbone.pretrained=false",
        "backbone.train=true",
        "backbone.lora_rank=2",
    ]
    assert (
        run.main([str(tmp_path / "recipe.toml"), *wider, "--output", str(tmp_path / "run")]) == 2
    )  # rank, no lora
    text = (tmp_path / "recipe.toml").read_text().replace("lora_rank = 2\n", "")
    (tmp_path / "recipe.toml").write_text(text)
    assert (
        run.main([str(tmp_path / "recipe.toml"), *wider[:3], "--output", str(tmp_path / "run")])
        == 0
    )
    capsys.readouterr()
    assert export.main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "no published layout holds the projections" in capsys.readouterr().err


def test_an_export_overwrites_nothing(home, tmp_path, capsys):
    assert export.main([str(home / "run"), str(tmp_path)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_bfloat16_policies_act_in_it_and_are_exported_without_its_rounding(home, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        RECIPE.format(folder=home, model=SHIPPED, precision="bf16-true")
    )
    assert run.main([str(tmp_path / "recipe.toml"), "--output", str(tmp_path / "run")]) == 0
    saved = load_file(checkpoints(tmp_path / "run")[-1].folder / "model.safetensors")
    assert {x.dtype for x in saved.values()} == {torch.bfloat16}
    assert load_actor(tmp_path / "run").policy.backbone.norm.weight.dtype == torch.bfloat16
    assert export.main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    exported, hub = (
        load_file(tmp_path / "out" / "model.safetensors"),
        load_file(home / "hub" / "model.safetensors"),
    )
    frozen = "vision_model.model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(exported[frozen], hub[frozen])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "backbone.lora_targets=['nothing']",
            "backbone.lora_targets: no linear layer is called nothing; there are: f",
        ),
        (
            "text_encoder.train=lora",
            'text_encoder.train: "lora" adapts linear layers, and this part has none',
        ),
        ("policy_head.train=lora", "policy_head.train: expected true"),
        (
            "vision_encoder.lora_rank=3",
            'vision_encoder: lora_rank: no effect without train = "lora"',
        ),
        (
            "text_encoder.quantize=nf4",
            "text_encoder: quantize needs pretrained weights that do not train: set pretrained",
        ),
        (
            "backbone.pretrained=nowhere/at/all",
            "backbone.pretrained: 'nowhere/at/all' is no file or folder",
        ),
        ("action_tokens.pretrained=true", "action_tokens.pretrained: 'learned' names no source"),
    ],
)
def test_mistakes_are_said_in_one_line(home, tmp_path, capsys, override, message):
    assert run.main([str(home / "recipe.toml"), override, "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
