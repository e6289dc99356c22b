"""Policies whose three parts are of one model: readouts, training, export, recipes."""

import pytest
import torch

from core import ActionSpec, TokenGroup
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.policy.publishing import export_checkpoint, export_folder
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.testing.common import generator
from tests.plugins.huggingface.families import (
    CAMERAS,
    COUNT,
    FAMILIES,
    IMAGE,
    INSTRUCTIONS,
    SPARE,
    Family,
    build,
    full_model,
    make_batch,
    normalised,
    put_action_tokens_into_the_vocabulary,
    read,
    rope_index,
    transformers,
)


@torch.no_grad()
def hidden_states(
    full, family: Family, ids: list[int], pixels: torch.Tensor, attention: str
) -> torch.Tensor:
    """transformers' last hidden states of one sequence (L D)."""
    row = torch.tensor([ids])
    more = {}
    if family.name.startswith("paligemma") and attention == "prefix":
        more = {"token_type_ids": torch.isin(row, torch.tensor(SPARE)).long()}
    elif family.name.startswith(
        "paligemma"
    ):  # left to itself, it would let every token see every other
        more = {
            "attention_mask": torch.full(
                (1, 1, len(ids), len(ids)), torch.finfo(torch.float32).min
            ).triu(1)
        }
    return full.model(
        input_ids=row, use_cache=False, **family.pixels(pixels), **more
    ).last_hidden_state[0]


def expected_readout(
    full, family, policy, batch, *, interleaved: bool, attention: str
) -> torch.Tensor:
    """The readout (B T Q D), each sequence alone and without padding."""
    window, prefix = batch.actions.shape[1], policy.text_encoder.prefix
    count = policy.vision_encoder(batch.images, TokenGroup(torch.zeros(1, 1, 1))).tokens.shape[2]
    groups = [list(range(window))] if interleaved else [[t] for t in range(window)]
    readout = []
    for b in range(len(batch.instructions)):
        words = batch.text_ids[b][batch.text_mask[b]].tolist()
        for frames in groups:
            ids = words[:prefix] + [IMAGE] * count + words[prefix:] + list(SPARE)
            for _ in frames[1:]:
                ids += [IMAGE] * count + list(SPARE)
            hidden = hidden_states(full, family, ids, normalised(batch, b, frames), attention)
            readout.append(hidden[[i for i, token in enumerate(ids) if token in SPARE]])
    return torch.stack(readout).view(len(batch.instructions), window, COUNT, -1)


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved", "one_step"])
def test_readout_is_what_transformers_computes(formulation, family, folder_of, tmp_path):
    window = 1 if formulation == "one_step" else 2
    interleaved = formulation == "interleaved"
    attention = "causal" if interleaved else family.attention
    folder = folder_of(family.name)
    keys = (
        f"action_tokens.formulation={formulation}",
        f"data.window={window}",
        f"action_tokens.attention={attention}",
    )
    policy, full = build(tmp_path, folder, *keys), full_model(folder)
    put_action_tokens_into_the_vocabulary(full, policy)
    batch = make_batch(policy, window)
    with torch.no_grad():
        received = read(policy, batch)
        expected = expected_readout(
            full, family, policy, batch, interleaved=interleaved, attention=attention
        )
    assert received.shape == (3, window, COUNT, 32)
    assert (received - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_readout_with_rows_and_columns_is_what_transformers_computes(
    formulation, folder_of, tmp_path
):
    family, folder = FAMILIES["qwen2_5_vl"], folder_of("qwen2_5_vl")
    keys = (f"action_tokens.formulation={formulation}", "backbone.positions=grid")
    policy, full = build(tmp_path, folder, *keys), full_model(folder)
    put_action_tokens_into_the_vocabulary(full, policy)
    batch = make_batch(policy, 2)
    received = read(policy, batch)
    for b in range(3):
        words = batch.text_ids[b][batch.text_mask[b]].tolist()
        groups = [[0, 1]] if formulation == "interleaved" else [[0], [1]]
        hidden = []
        for frames in groups:
            later = ([IMAGE] * 32 + list(SPARE)) * (len(frames) - 1)
            ids = torch.tensor([words[:2] + [IMAGE] * 32 + words[2:] + list(SPARE) + later])
            index = rope_index(full, ids, [(4, 4)] * 2 * len(frames), None)
            pixels = family.pixels(normalised(batch, b, frames))
            states = full.model(
                input_ids=ids, position_ids=index, use_cache=False, **pixels
            ).last_hidden_state[0]
            hidden.append(states[torch.isin(ids[0], torch.tensor(SPARE))])
        expected = torch.cat(hidden).view(2, COUNT, -1)
        assert (received[b] - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (received - read(build(tmp_path, folder, keys[0]), batch)).abs().max() > 1e-3


TRAINING = {
    "full": (),
    "frozen": ("vision_encoder.train=false", "text_encoder.train=false", "backbone.train=false"),
    "lora": ("vision_encoder.train=lora", "backbone.train=lora", "backbone.lora_rank=4"),
}


def should_train(name: str, training: str, family: Family) -> bool:
    """What a recipe says of a weight, without asking the policy."""
    part = name.partition(".")[0]
    if part in ("action_tokens", "policy_head"):
        return True
    if training == "frozen" or any(unused in name for unused in family.unused):
        return False
    return training == "full" or part == "text_encoder" or ".lora_" in name


@pytest.mark.parametrize(
    ("training", "model"),
    [
        *(("full", model) for model in ("llava", "paligemma", "qwen2_5_vl", "smolvlm", "internvl")),
        *(("lora", model) for model in ("llava", "paligemma", "qwen2_5_vl")),
        ("frozen", "smolvlm"),
    ],
)
def test_one_batch_is_learned_by_the_weights_that_train(training, model, folder_of, tmp_path):
    family = FAMILIES[model]
    keys = (
        f"action_tokens.attention={family.attention}",
        "policy_head.hidden_size=64",
        "policy_head.mlp=[64]",
    )
    policy = build(tmp_path, folder_of(family.name), *TRAINING[training], *keys)
    batch, before = (
        make_batch(policy, 2),
        {name: x.clone() for name, x in policy.named_parameters()},
    )
    trained = [x for x in policy.train().parameters() if x.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=1e-2), []
    for _ in range(100 if training == "frozen" else 30):
        losses.append(policy(batch, generator()).losses["total"])
        losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.3 * losses[0]
    expected = {name for name in before if should_train(name, training, family)}
    assert {
        name for name, x in policy.named_parameters() if not torch.equal(x, before[name])
    } == expected
    assert {name for name, x in policy.named_parameters() if x.requires_grad} == expected


@pytest.mark.parametrize("model", ["llava", "qwen2_5_vl", "smolvlm"])
def test_gradient_checkpointing_changes_no_gradient(model, folder_of, tmp_path):
    gradients = []
    for checkpointing in ("false", "true"):
        keys = [
            f"{part}.gradient_checkpointing={checkpointing}"
            for part in ("backbone", "vision_encoder")
        ]
        policy = build(tmp_path, folder_of(model), *keys).train()
        policy(make_batch(policy, 2), generator()).losses["total"].backward()
        gradients.append(
            {name: x.grad for name, x in policy.named_parameters() if x.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_what_was_loaded_comes_back_the_same(family, folder_of, tmp_path):
    folder = folder_of(family.name)
    export_folder(build(tmp_path, folder), tmp_path / "export")
    before, after = full_model(folder), full_model(tmp_path / "export")
    assert type(after) is type(before)
    exported, published = after.model.state_dict(), before.model.state_dict()
    assert exported.keys() == published.keys()
    assert all(torch.equal(tensor, published[name]) for name, tensor in exported.items())
    tied = after.lm_head.weight.data_ptr() == after.get_input_embeddings().weight.data_ptr()
    assert tied == (family.name != "llava")
    again, policy = build(tmp_path, tmp_path / "export"), build(tmp_path, folder)
    state = policy.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(again.vision_encoder.mean, policy.vision_encoder.mean)
    assert torch.equal(again.vision_encoder.std, policy.vision_encoder.std)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    assert "{images}" not in tokenizer.get_vocab()
    for instruction in INSTRUCTIONS:
        ids = policy.text_encoder.tokenize(instruction)
        assert again.text_encoder.tokenize(instruction) == ids


def test_a_checkpoint_has_robovlms_prefix_before_the_published_names(folder_of, tmp_path):
    policy = build(tmp_path, folder_of("smolvlm"))
    export_checkpoint(policy, tmp_path / "policy.ckpt")
    exported = torch.load(tmp_path / "policy.ckpt", weights_only=True)["state_dict"]
    for part in parts_of(policy):
        for name, tensor in part.publish().items():
            assert torch.equal(exported.pop(f"model.backbone.{name}"), tensor)
    assert all(name.startswith(("model.action_token", "model.act_head.")) for name in exported)


def test_merged_adapters_are_published_as_weights(folder_of, tmp_path):
    folder = folder_of("smolvlm")
    policy = build(tmp_path, folder, "backbone.train=lora")
    for name, weight in policy.backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    batch = make_batch(policy, 2)
    with torch.no_grad():
        expected = read(policy, batch)
        export_folder(policy, tmp_path / "export")
        again = build(tmp_path, tmp_path / "export")
        torch.testing.assert_close(read(again, batch), expected, atol=1e-5, rtol=1e-5)


def test_parts_of_other_widths_join(folder_of, tmp_path):
    """SmolVLM sees, and the rest learns from scratch."""
    text = """
[data]
path = "unused.zarr"
[vision_encoder]
name = "huggingface"
model = "smolvlm"
pretrained = true
train = false
[text_encoder]
name = "sentencepiece"
[backbone]
name = "transformer"
width = 24
depth = 1
heads = 4
[action_tokens]
name = "learned"
[policy_head]
name = "lstm"
"""
    (tmp_path / "recipe.toml").write_text(text)
    (tmp_path / "smolvlm").symlink_to(folder_of("smolvlm"))
    recipe = load_recipe(tmp_path / "recipe.toml", ["data.window=2"], load_plugins())
    policy = build_policy(
        recipe, CAMERAS, ActionSpec(window=2, horizon=3, dim=4, binary=(3,)), proprio_dim=0
    )
    assert read(policy, make_batch(policy, 2)).shape == (3, 2, 1, 24)


def parts_of(policy: Policy):
    return policy.vision_encoder, policy.text_encoder, policy.backbone


def test_a_folder_is_relative_to_the_recipe(folder_of, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(folder_of("smolvlm"))
    monkeypatch.chdir("/")
    policy = build(tmp_path, "models/mine")
    assert {part.source for part in parts_of(policy)} == {str(tmp_path / "models" / "mine")}
