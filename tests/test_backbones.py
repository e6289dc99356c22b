"""Heads that read or run a backbone's layers or its words, with every built-in backbone."""

from dataclasses import replace

import pytest
import torch

from core import Generator
from plugins.text.sentencepiece import SHIPPED
from tests.plugins.huggingface.families import FAMILIES, save_model
from tests.plugins.kosmos2.models import VOCABULARY
from tests.strangers import PARTS, batch_of, build

SMALL = {
    "expert": 'name = "expert"\nwidth = 16\nsteps = 2',
    "autoregressive": 'name = "autoregressive"\nbins = 8',
    "bins": 'name = "bins"\nbins = 8\nvocabulary = "language_model"',
}
KOSMOS2 = f"""
[data]
path = "unused.zarr"
[vision_encoder]
name = "kosmos2_vision"
width = 32
heads = 4
latents = 5
clip_width = 32
clip_depth = 2
clip_heads = 2
image_size = 28
[text_encoder]
name = "kosmos2_text"
model = "{SHIPPED}"
width = 32
vocabulary = {VOCABULARY}
[backbone]
name = "kosmos2"
width = 32
depth = 3
heads = 4
mlp_width = 64
[action_tokens]
name = "learned"
[policy_head]
"""
HUGGINGFACE = """
[data]
path = "unused.zarr"
[vision_encoder]
name = "huggingface"
model = "paligemma"
image_size = 32
[text_encoder]
name = "huggingface"
model = "paligemma"
[backbone]
name = "huggingface"
model = "paligemma"
[action_tokens]
name = "learned"
[policy_head]
"""
# "bins" scores words, which must then be as wide as the backbone
TRANSFORMER = PARTS.replace('"sentencepiece"\nwidth = 24', '"sentencepiece"\nwidth = 32')
BACKBONES = {"transformer": TRANSFORMER, "kosmos2": KOSMOS2, "huggingface": HUGGINGFACE}


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", SMALL)
def test_a_head_trains_and_acts(tmp_path, head, backbone, formulation):
    if backbone == "huggingface":
        save_model(tmp_path / "paligemma", FAMILIES["paligemma"].config, weights=False)
    tokens = f"action_tokens.formulation={formulation}"
    policy = build(tmp_path, SMALL[head], tokens, parts=BACKBONES[backbone], window=2).train()
    batch = batch_of(policy, window=2)
    before = {name: weight.detach().clone() for name, weight in policy.named_parameters()}
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    losses = policy(batch, Generator.shared((0,), torch.device("cpu"))).losses
    losses["total"].backward()
    optimizer.step()
    changed_parts = {
        name.split(".")[0]
        for name, weight in policy.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert {"vision_encoder", "text_encoder", "backbone", "policy_head"} <= changed_parts
    policy.eval()
    state = policy.initial_state(torch.arange(len(batch.text_ids)))
    for t in range(2):
        images = {name: x[:, t : t + 1] for name, x in batch.images.items()}
        with torch.no_grad():
            actions, state = policy.act(
                replace(batch, images=images, proprio=batch.proprio[:, t : t + 1]), state
            )
        assert actions.shape == (3, 3, 4)
        assert actions.isfinite().all()
        assert actions[..., 3].ge(0).all()
        assert actions[..., 3].le(1).all()
