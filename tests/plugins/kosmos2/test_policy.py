"""All three parts together, against transformers' own model with the same random weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from core import ActionSpec, Batch, ContextSpec, import_library
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.policy.recomputation import recompute_blocks
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.testing.common import generator
from plugins.heads.lstm import LSTMConfig, LSTMHead
from plugins.text.sentencepiece import SHIPPED
from plugins.vlms.kosmos2 import (
    Kosmos2Backbone,
    Kosmos2BackboneConfig,
    Kosmos2Text,
    Kosmos2TextConfig,
    Kosmos2Vision,
    Kosmos2VisionConfig,
)
from tests.plugins.kosmos2.models import (
    CAMERAS,
    PARTS,
    SIZES,
    batch_of,
    largest_difference,
    make,
    perturb,
    reference_model,
    sequence_of,
)

RECIPE = Path(__file__).parents[3] / "recipes" / "robovlms_kosmos_calvin.toml"


def expected_hidden_states(model, policy: Policy, batch: Batch) -> tuple[Tensor, Tensor]:
    """transformers' hidden states of <s>, images, words, [LRN], padding; the index of [LRN]."""
    rows, ends = [], []
    embed = model.get_input_embeddings()
    window = policy.policy_head.memory.window
    for b in range(len(batch.text_ids)):
        words = embed(batch.text_ids[b][batch.text_mask[b]])
        for t in range(window):
            pixels = torch.cat(
                [
                    policy.vision_encoder._prepare(batch.images[name][b, t : t + 1])
                    for name in CAMERAS
                ]
            )
            images = model.get_image_features(pixels).pooler_output.flatten(0, 1)
            rows.append(torch.cat([words[:1], images, words[1:], policy.action_tokens.action]))
            ends.append(len(rows[-1]) - 1)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    hidden = model.text_model(inputs_embeds=padded, attention_mask=mask).last_hidden_state
    return hidden, torch.tensor(ends)


@pytest.mark.parametrize("name", SIZES)
def test_hidden_states_and_gradients_are_transformers_own(name, tmp_path):
    policy = make(SIZES[name])
    perturb(policy)
    model, batch = reference_model(policy, tmp_path), batch_of(policy)
    sequence = sequence_of(policy, batch)
    hidden = policy.backbone(sequence)
    expected, ends = expected_hidden_states(model, policy, batch)
    assert hidden.shape == expected.shape
    assert not bool(sequence.mask.all())  # the batch is padded
    assert largest_difference(hidden[sequence.mask], expected[sequence.mask]) < 1e-5
    readout = policy.backbone.read(sequence)
    assert largest_difference(readout.flatten(0, 2), expected[torch.arange(len(ends)), ends]) < 1e-5

    weights = (
        torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
        * sequence.mask[..., None]
    )
    (hidden * weights).sum().backward()
    action = policy.action_tokens.action.grad.clone()
    policy.action_tokens.action.grad = None
    (expected * weights).sum().backward()
    assert largest_difference(action, policy.action_tokens.action.grad) < 1e-4
    received = {}
    for part in PARTS:
        module = getattr(policy, part)
        names = {"vision_encoder": "VISION", "text_encoder": "TEXT", "backbone": "BACKBONE"}[part]
        table = getattr(import_library("plugins.vlms.kosmos2.names"), f"{names}_NAMES")
        received |= table.publish({name: p.grad for name, p in module.named_parameters()})
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert received.keys() == gradients.keys()
    scale = max(float(x.abs().max()) for x in gradients.values())
    for key, gradient in gradients.items():
        # a key's bias shifts all scores of a query alike, so its true gradient is zero, and both
        # have rounding
        floor = 1e-6 * scale if key.endswith("k_proj.bias") else 0.0
        assert (
            float((received[key] - gradient).abs().max())
            <= 1e-4 * float(gradient.abs().max()) + floor
        ), key


def test_the_full_size_has_every_parameter_of_kosmos_2(tmp_path):
    transformers = import_library("transformers")
    with torch.device("meta"):
        vision = Kosmos2Vision(Kosmos2VisionConfig(), cameras=CAMERAS)
        text = Kosmos2Text(Kosmos2TextConfig(SHIPPED))
        backbone = Kosmos2Backbone(Kosmos2BackboneConfig())
        action = ActionSpec(window=8, horizon=10, dim=7, binary=(6,))
        head = LSTMHead(
            LSTMConfig(), context=ContextSpec(width=2048, action_tokens=1), action=action
        )
        model = transformers.Kosmos2ForConditionalGeneration(transformers.Kosmos2Config())
    assert (
        sum(p.numel() for part in (vision, text, backbone) for p in part.parameters())
        == 1_664_485_376
    )
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 2) == 41.21
    published = vision.publish() | text.publish() | backbone.publish()
    names = [name for part in (vision, text, backbone) for name in part.publish()]
    assert len(names) == len(set(names))
    state = model.state_dict()
    tied = {"text_model.lm_head.weight"}
    assert len(state) == 886
    assert {name: x.shape for name, x in published.items()} == {
        n: x.shape for n, x in state.items() if n not in tied
    }


def test_the_recipe_of_robovlms_is_kosmos_2_whole():
    """Built on the meta device; all of it trains."""
    pretrained = [f"{part}.pretrained=false" for part in PARTS]
    recipe = load_recipe(RECIPE, [*pretrained, f"text_encoder.model={SHIPPED}"], load_plugins())
    action = ActionSpec(
        window=recipe.data.window, horizon=recipe.action.horizon, dim=7, binary=(6,)
    )
    with torch.device("meta"):
        cameras = dict.fromkeys(recipe.data.cameras, (3, 200, 200))
        policy = build_policy(recipe, cameras, action, proprio_dim=0)
    assert policy.vision_encoder.cameras == ["wrist", "static"]
    count = {
        name: sum(p.numel() for p in part.parameters()) for name, part in policy.named_children()
    }
    assert count["action_tokens"] == 2048
    assert count["projections"] == 0
    assert sum(count[part] for part in PARTS) == 1_664_485_376
    assert round(count["policy_head"] / 1e6, 2) == 41.21
    assert all(p.requires_grad for p in policy.parameters())


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_gradient_checkpointing_changes_no_gradient(formulation):
    gradients = []
    for recomputing in (False, True):
        policy = make(formulation=formulation).train()
        for part in ("vision_encoder", "backbone") if recomputing else ():
            recompute_blocks(getattr(policy, part), part)
        policy(batch_of(policy), generator()).losses["total"].backward()
        gradients.append({name: p.grad for name, p in policy.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
