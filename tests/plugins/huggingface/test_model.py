"""A model is split into three parts, which hold all its weights and refuse those of others."""

import json
import pickle
import sys

import pytest
import torch
from safetensors.torch import load_file

from core import ConfigError
from core.weights import Pretrained
from plugins.vlms.huggingface.backbone import BackboneConfig, HuggingFaceBackbone
from plugins.vlms.huggingface.model import build_part, load_parts
from plugins.vlms.huggingface.text import HuggingFaceText, TextConfig
from tests.plugins.huggingface.families import (
    FAMILIES,
    LANGUAGE,
    PROMPT,
    build,
    build_vision,
    copy_with,
    full_model,
    load_part,
    save_model,
    single_line,
    transformers,
)


@pytest.mark.parametrize("role", ["vision", "text", "backbone"])
def test_buffers_are_those_of_a_model_that_was_built_whole(role, family, folder_of):
    """Rotary frequencies, positions and scales are in no state dict, and first made on "meta"."""
    folder = folder_of(family.name)
    part, base = build_part(str(folder), role), full_model(folder, random=True).model
    whole = {f"model.{name}": buffer for name, buffer in base.named_buffers()}
    buffers = {part.prefix + name: buffer for name, buffer in part.module.named_buffers()}
    assert all(torch.equal(buffer, whole[name]) for name, buffer in buffers.items())
    rotary = {
        name for name in whole if "inv_freq" in name and ("vis" in name) == (role == "vision")
    }
    assert rotary <= set(buffers) or role == "text"


def test_every_weight_belongs_to_exactly_one_part(family, folder_of):
    folder = folder_of(family.name)
    parts = [build_part(str(folder), role).publish() for role in ("vision", "text", "backbone")]
    names = [name for part in parts for name in part]
    whole = full_model(folder).state_dict()
    assert sorted(names) == sorted(name for name in whole if not name.startswith("lm_head"))
    assert all(tensor.shape == whole[name].shape for part in parts for name, tensor in part.items())


def test_without_pretrained_the_seed_makes_the_weights(folder_of, tmp_path):
    folder = folder_of("smolvlm")
    first, again = (build(tmp_path, folder, pretrained=False) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    published = load_file(folder / "model.safetensors")
    assert not torch.equal(
        first.text_encoder.embedding.weight, published["model.text_model.embed_tokens.weight"]
    )
    spread = first.text_encoder.embedding.weight[1:].std()
    assert 0.018 < spread < 0.022


def test_parts_are_made_on_the_cpu_whatever_the_default_device(folder_of):
    """Core makes a policy while the device that it trains on is the default, and moves it there."""
    folder = str(folder_of("smolvlm"))
    with torch.device("meta"):
        parts = (
            build_vision(folder),
            HuggingFaceText(TextConfig(folder, PROMPT)),
            HuggingFaceBackbone(BackboneConfig(folder)),
        )
        weights = Pretrained(folder)
        for part in parts:
            part.load_pretrained(weights)
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


def test_weights_are_loaded_once_for_three_parts_and_belong_to_one_policy(
    folder_of, tmp_path, monkeypatch
):
    folder, loaded = folder_of("smolvlm"), []
    load = transformers.PreTrainedModel.from_pretrained.__func__

    def counted(kind, *words, **more):
        loaded.append(kind.__name__)
        return load(kind, *words, **more)

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(counted))
    first = build(tmp_path, folder)
    assert loaded == ["SmolVLMForConditionalGeneration"]
    second = build(tmp_path, folder)
    assert len(loaded) == 2
    kept = [weight.clone() for weight in second.parameters()]
    with torch.no_grad():
        for weight in first.parameters():
            weight.fill_(7.0)
    assert all(
        torch.equal(weight, old) for weight, old in zip(second.parameters(), kept, strict=True)
    )
    published = load_file(folder / "model.safetensors")
    assert not any((tensor == 7.0).all() for tensor in published.values())


def test_weights_that_do_not_fit_are_all_listed(folder_of, tmp_path):
    def damage(tensors):
        tensors["model.text_model.norm.bias"] = tensors.pop("model.text_model.norm.weight")
        tensors["model.connector.modality_projection.proj.weight"] = torch.zeros(3, 3)

    folder = folder_of("smolvlm")
    with pytest.raises(ConfigError) as caught:
        load_part("backbone", folder, copy_with(folder, tmp_path / "damaged", damage), tmp_path)
    assert single_line(caught) == (
        f"backbone.pretrained: '{tmp_path / 'damaged'}' does not fit; "
        "missing: model.text_model.norm.weight; "
        "unexpected: model.text_model.norm.bias; "
        "misshapen: model.connector.modality_projection.proj.weight (3, 3) instead of (32, 128)"
    )


def test_weights_of_another_model_do_not_fit(folder_of, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_part("vision_encoder", folder_of("llava"), folder_of("smolvlm"), tmp_path)
    assert "missing: model.vision_tower." in single_line(caught)
    assert "unexpected: model.vision_model." in single_line(caught)


def test_an_output_layer_may_be_missing(folder_of, tmp_path):
    folder = folder_of("llava")

    def drop(tensors):
        assert [tensors.pop(name) for name in list(tensors) if "lm_head" in name]

    weights = copy_with(folder, tmp_path / "headless", drop)
    published = load_part("backbone", folder, weights, tmp_path).backbone.publish()
    state = full_model(folder).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in published.items())


class Exploit:
    def __reduce__(self):
        return print, ("exploited",)


def test_pickles_that_run_code_are_refused(folder_of, tmp_path, capsys):
    folder = copy_with(folder_of("smolvlm"), tmp_path / "evil", lambda tensors: None)
    (folder / "model.safetensors").unlink()
    torch.save(
        {"model.text_model.norm.weight": Exploit()},
        folder / "pytorch_model.bin",
        pickle_module=pickle,
    )
    with pytest.raises(
        ConfigError, match=r"backbone\.pretrained: transformers cannot load"
    ) as caught:
        load_part("backbone", folder, folder, tmp_path)
    single_line(caught)
    assert "exploited" not in capsys.readouterr().out


@pytest.mark.parametrize("key", ["attn_implementation", "experts_implementation"])
def test_code_of_a_repository_is_not_asked_for(key, folder_of, tmp_path):
    folder = copy_with(folder_of("smolvlm"), tmp_path / "evil", lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    config[key] = "somebody/kernel"
    (folder / "config.json").write_text(json.dumps(config))
    refusal = f"asks for {key} = 'somebody/kernel', whose code would be fetched and run"
    with pytest.raises(ConfigError, match=refusal):
        HuggingFaceBackbone(BackboneConfig(str(folder)))
    with pytest.raises(ConfigError, match=refusal):
        load_parts(folder)


@pytest.mark.parametrize("missing", ["nowhere", "nobody/nothing", "file"])
def test_a_model_that_is_not_there_is_named(missing, tmp_path):
    (tmp_path / "file").write_text("no model")
    name = str(tmp_path / missing) if missing != "nobody/nothing" else missing
    with pytest.raises(
        ConfigError, match=f"text_encoder.model: '{name}' is no folder of a model"
    ) as caught:
        build(tmp_path, name)
    single_line(caught)


def test_weights_that_are_not_there_are_named(folder_of, tmp_path):
    folder = save_model(tmp_path / "bare", FAMILIES["smolvlm"].config, weights=False)
    with pytest.raises(
        ConfigError, match=f"vision_encoder.pretrained: transformers cannot load '{folder}'"
    ) as caught:
        load_part("vision_encoder", folder, folder, tmp_path)
    single_line(caught)
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        load_part("vision_encoder", folder, folder_of("smolvlm") / "model.safetensors", tmp_path)


BERT = {**LANGUAGE, "model_type": "bert"}


MODELS = {
    "no vision": (BERT, "is a 'bert', which is no vision-language model"),
    "images among the words": (
        {"model_type": "git"},
        "is a GitForCausalLM and has no get_image_features",
    ),
    "an encoder and a decoder": (
        {"model_type": "florence2"},
        "asks for more than embeddings .*encoder_outputs",
    ),
    "layers that see": (
        {"model_type": "qwen3_vl"},
        "asks for more than embeddings .*deepstack_visual_embeds",
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_models_of_other_pieces_are_refused(model, tmp_path):
    config, reason = MODELS[model]
    folder = save_model(tmp_path / "model", config, weights=False)
    with pytest.raises(ConfigError, match=rf"backbone.model: .*{reason}") as caught:
        HuggingFaceBackbone(BackboneConfig(str(folder)))
    single_line(caught)


def test_without_transformers_the_extra_is_named(folder_of, tmp_path, monkeypatch):
    folder = folder_of("smolvlm")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'joinery\[vlm\]'") as caught:
        build(tmp_path, folder)
    single_line(caught)
