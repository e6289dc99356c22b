"""Published weights in and out: folders of the hub and checkpoints of RoboVLMs, bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core import ConfigError, import_library
from core.policy.policy import Policy
from core.policy.publishing import export_checkpoint, export_folder
from tests.plugins.kosmos2.models import (
    PARTS,
    load,
    make,
    perturb,
)


def robovlms(policy: Policy) -> dict[str, Tensor]:
    """The tensors of a RoboVLMs checkpoint."""
    tensors: dict[str, Tensor] = {}
    for part in (*PARTS, "action_tokens", "policy_head"):
        tensors |= getattr(policy, part).publish_checkpoint()
    return tensors


def hub_folder(folder: Path, **options) -> Path:
    """What transformers itself writes, with random weights."""
    transformers = import_library("transformers")
    torch.manual_seed(7)
    export_folder(make(), folder / "ours")
    config = json.loads((folder / "ours" / "config.json").read_text())
    model = transformers.Kosmos2ForConditionalGeneration(transformers.Kosmos2Config(**config))
    model.save_pretrained(folder / "hub", **options)
    return folder / "hub"


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "50KB"}], ids=["one file", "shards"])
def test_a_folder_of_the_hub_comes_back_bit_for_bit(options, tmp_path):
    transformers = import_library("transformers")
    source = hub_folder(tmp_path, **options)
    assert (len(list(source.glob("*.safetensors"))) > 1) == bool(options)
    policy = make()
    load(policy, source)
    back = tmp_path / "back"
    export_folder(policy, back)
    before = transformers.Kosmos2ForConditionalGeneration.from_pretrained(source).state_dict()
    after = transformers.Kosmos2ForConditionalGeneration.from_pretrained(back).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bin_files_load_too(tmp_path):
    source = hub_folder(tmp_path)
    tensors = load_file(source / "model.safetensors")
    (tmp_path / "bin").mkdir()
    tied = {"text_model.lm_head.weight": tensors["text_model.model.embed_tokens.weight"]}
    torch.save(tensors | tied, tmp_path / "bin" / "pytorch_model.bin")
    policy, other = make(), make()
    load(policy, source)
    load(other, tmp_path / "bin")
    for name, weight in policy.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])


def test_a_robovlms_checkpoint_comes_back_bit_for_bit(tmp_path):
    before = make()
    perturb(before)
    tensors = {name: x.clone() for name, x in robovlms(before).items()}
    assert tensors["model.action_token"].shape == (32,)
    assert "model.act_head.rnn.weight_ih_l1" in tensors
    assert "model.act_head.actions.mlp.2.bias" in tensors
    assert "model.backbone.text_model.model.layers.2.ffn.ffn_layernorm.weight" in tensors
    torch.save({"epoch": 4, "state_dict": tensors}, tmp_path / "policy.ckpt")
    after = make()
    torch.manual_seed(3)
    load(after, tmp_path / "policy.ckpt", (*PARTS, "action_tokens", "policy_head"))
    export_checkpoint(after, tmp_path / "back.ckpt")
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"]
    assert back.keys() == tensors.keys()
    assert all(torch.equal(x, tensors[name]) for name, x in back.items())


class Code:
    """A pickle that runs something when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("exploited"),))


def test_a_checkpoint_that_carries_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": robovlms(make()), "hyper_parameters": Code()}, "evil.ckpt")
    with pytest.raises(
        ConfigError, match=r"evil\.ckpt' holds more than weights, and is not loaded"
    ):
        load(make(), Path("evil.ckpt").absolute())
    assert not Path("exploited").exists()


def test_everything_that_does_not_fit_is_listed(tmp_path):
    tensors = load_file(hub_folder(tmp_path) / "model.safetensors")
    tensors["text_model.model.layers.9.ffn.fc1.bias"] = torch.zeros(1)
    tensors["text_model.model.layer_norm.bias"] = torch.zeros(5)
    del tensors["text_model.model.layers.0.self_attn.k_proj.weight"]
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(ConfigError) as caught:
        load(make(), tmp_path / "wrong.safetensors")
    message = str(caught.value)
    assert "missing: text_model.model.layers.0.self_attn.k_proj.weight" in message
    assert "unexpected: text_model.model.layers.9.ffn.fc1.bias" in message
    assert "misshapen: text_model.model.layer_norm.bias (5,) instead of (32,)" in message


def test_what_belongs_to_no_part_is_unexpected(tmp_path):
    tensors = load_file(hub_folder(tmp_path) / "model.safetensors") | {
        "text_model.adapter": torch.zeros(2)
    }
    save_file(tensors, tmp_path / "more.safetensors")
    with pytest.raises(ConfigError, match=r"unexpected: text_model\.adapter"):
        load(make(), tmp_path / "more.safetensors")
