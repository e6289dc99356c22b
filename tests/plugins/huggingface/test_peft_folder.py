"""Adapters in peft's own layout: peft loads them on the published model, with the same numbers."""

import json

import pytest
import torch

from core import ConfigError, import_library
from core.policy.peft_folder import export_adapters, load_adapters
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.registry.part_settings import PartSettings
from tests.plugins.huggingface.families import build, full_model, make_batch, read

LORA = (
    "backbone.train=lora",
    "backbone.lora_rank=4",
    "backbone.lora_train=['*norm*']",
    "vision_encoder.train=lora",
    "vision_encoder.lora_rank=2",
    "vision_encoder.lora_alpha=3",
    "text_encoder.train=false",
)
# peft asks the model of transformers for an attribute that has a new name
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def trained_policy(tmp_path, folder, *overrides):
    """A policy whose adapters, and what trains beside them, are as after training."""
    policy = build(tmp_path, folder, *LORA, *overrides)
    torch.manual_seed(5)
    with torch.no_grad():
        for kind in ("vision_encoder", "text_encoder", "backbone"):
            for weight in getattr(policy, kind).parameters():
                if weight.requires_grad:
                    weight += 0.1 * torch.randn_like(weight)
    return policy


def recipe_of(tmp_path, *overrides):
    return load_recipe(tmp_path / "recipe.toml", [*LORA, *overrides], load_plugins())


@pytest.fixture
def exported(folder_of, tmp_path):
    """A trained policy, and the folder of its adapters."""
    policy = trained_policy(tmp_path, folder_of("smolvlm"))
    policy.requires_grad_(False)  # as that of an actor
    export_adapters(policy, recipe_of(tmp_path), tmp_path / "adapters")
    return policy, tmp_path / "adapters"


def test_peft_loads_the_adapters_on_the_published_model(exported, folder_of):
    policy, folder = exported
    peft = import_library("peft")
    model = peft.PeftModel.from_pretrained(full_model(folder_of("smolvlm")), folder).eval()
    language = model.base_model.model.model.text_model
    with torch.no_grad():
        tokens = torch.randn(2, 7, policy.backbone.width)
        expected = policy.backbone.model(inputs_embeds=tokens, use_cache=False).last_hidden_state
        received = language(inputs_embeds=tokens, use_cache=False).last_hidden_state
        torch.testing.assert_close(received, expected, atol=1e-5, rtol=1e-5)
        pixels = torch.randn(2, 1, 3, 32, 32)
        images = (
            each.get_image_features(pixel_values=pixels).pooler_output
            for each in (policy.vision_encoder.model, model.base_model.model.model)
        )
        torch.testing.assert_close(*(torch.stack(tuple(x)) for x in images), atol=1e-5, rtol=1e-5)
        plain = full_model(folder_of("smolvlm")).model.text_model
        unadapted = plain(inputs_embeds=tokens, use_cache=False).last_hidden_state
    assert (unadapted - expected).abs().max() > 1e-2
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder_of("smolvlm"))


def test_a_policy_begins_with_adapters(exported, folder_of, tmp_path):
    policy, folder = exported
    start = [f"{kind}.lora_pretrained={folder}" for kind in ("backbone", "vision_encoder")]
    again = build(tmp_path, folder_of("smolvlm"), *LORA, *start)
    batch = make_batch(policy, 2)
    with torch.no_grad():
        for head in ("action_tokens", "policy_head"):
            getattr(again, head).load_state_dict(getattr(policy, head).state_dict())
        assert torch.equal(read(again, batch), read(policy, batch))


def test_adapters_that_peft_itself_wrote_are_read(folder_of, tmp_path):
    peft, folder = import_library("peft"), folder_of("smolvlm")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(full_model(folder), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight += torch.randn_like(weight)
    model.save_pretrained(tmp_path / "adapters")
    keys = ("train=lora", "lora_rank=4", "lora_targets=['q_proj', 'v_proj']")
    keys = [f"backbone.{key}" for key in (*keys, f"lora_pretrained={tmp_path / 'adapters'}")]
    policy = build(tmp_path, folder, *keys)
    tokens = torch.randn(2, 7, policy.backbone.width)
    with torch.no_grad():
        expected = model.base_model.model.model.text_model.eval()(inputs_embeds=tokens)
        received = policy.backbone.model(inputs_embeds=tokens, use_cache=False)
    torch.testing.assert_close(received[0], expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone.lora_rank=8"], r"misshapen: .*; choose lora_rank, .*\(rank 4\)|choose lora_r"),
        (
            ["backbone.lora_alpha=5"],
            "are scaled by 8 / 4; set lora_alpha = 8",
        ),
        (["backbone.lora_train=['layers.0.*norm*']"], "unexpected: .*norm"),
        (["backbone.lora_targets=['q_proj']"], "unexpected: "),
    ],
)
def test_adapters_that_do_not_fit_are_refused(exported, folder_of, tmp_path, overrides, message):
    _, folder = exported
    start = f"backbone.lora_pretrained={folder}"
    with pytest.raises(ConfigError, match=message) as caught:
        build(tmp_path, folder_of("smolvlm"), *LORA, start, *overrides)
    assert caught.value.mistakes[0].startswith("backbone.lora_pretrained: ")


def test_a_folder_without_adapters_is_refused(tmp_path):
    settings = PartSettings(train="lora", lora_pretrained=str(tmp_path))
    with pytest.raises(ConfigError, match=r"backbone\.lora_pretrained: cannot read adapter_config"):
        load_adapters(torch.nn.Linear(2, 2), settings, "backbone")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["vision_encoder.train=true"], "vision_encoder trains as a whole"),
        (["vision_encoder.pretrained=false"], "vision_encoder begins with no published weights"),
    ],
)
def test_policies_that_adapters_alone_do_not_make_are_refused(
    folder_of, tmp_path, overrides, reason
):
    base = [key for key in LORA if "vision" not in key]
    more = [*base, "vision_encoder.train=false", *overrides]
    policy = build(tmp_path, folder_of("smolvlm"), *more)
    recipe = load_recipe(tmp_path / "recipe.toml", more, load_plugins())
    with pytest.raises(ConfigError, match=reason):
        export_adapters(policy, recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
