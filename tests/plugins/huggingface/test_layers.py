"""Keys, values and hidden states of every layer: what is recorded, and when it is freed."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from core import ConfigError, LayerSpec
from core.testing import backbone as backbone_checks
from core.testing.common import normal
from plugins.vlms.huggingface.backbone import BackboneConfig, HuggingFaceBackbone
from tests.plugins.huggingface.families import (
    FAMILIES,
    LANGUAGE,
    build_vision,
    make_backbone,
    save_model,
    single_line,
)


@pytest.mark.parametrize("model", ["llava", "paligemma", "qwen2_5_vl", "internvl"])
def test_layers_are_those_of_the_configuration(model, folder_of):
    backbone = make_backbone(model, folder_of)
    assert backbone.layer_spec == LayerSpec(depth=2, heads=4, key_heads=2, head_width=8)
    assert len(backbone.blocks) == 2
    vision = build_vision(folder_of(model))
    assert len(vision.blocks) == (3 if model == "llava" else 2)
    assert all(any(block is module for module in vision.modules()) for block in vision.blocks)


@pytest.mark.parametrize("model", ["llava", "paligemma", "internvl"])
def test_gradients_through_keys_and_values_are_the_same_with_gradient_checkpointing(
    model, folder_of
):
    """A head that attends to every layer sends gradients into the middle of each block.

    Those of later tokens go through the memory, too.
    """
    gradients = []
    for checkpointed in (False, True):
        backbone = make_backbone(model, folder_of, checkpointed=checkpointed)
        first = backbone.remember(backbone_checks.sequence(32, 2, padded=False, causal=False))
        again = replace(first.sequence, tokens=normal(*first.tokens.shape, seed=6))
        memory = backbone.remember(again, first)
        parts = [*memory.keys, *memory.values, *memory.hidden_states]
        torch.stack(
            [(x * normal(*x.shape, seed=i)).sum() for i, x in enumerate(parts)]
        ).sum().backward()
        gradients.append(
            {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_layers_are_recorded_once_and_freed_with_their_memory(checkpointed, folder_of):
    """Checkpointed blocks hold what they need to run again.

    If the recorded tensors were among it, no memory would ever be freed.
    """
    backbone = make_backbone("llava", folder_of, checkpointed=checkpointed)
    runs = []
    for block in backbone.blocks:
        block.self_attn.register_forward_hook(lambda *_: runs.append(1))
    memory = backbone.remember(backbone_checks.sequence(32, 2))
    references = [weakref.ref(x) for x in (*memory.keys, *memory.hidden_states)]
    keys = [x.detach().clone() for x in memory.keys]
    memory.keys[0].sum().backward()  # the last layer has no backward pass that would free anything
    assert len(runs) == (3 if checkpointed else 2)
    assert len(memory.keys) == len(memory.values) == 2
    assert all(torch.equal(x, same) for x, same in zip(memory.keys, keys, strict=True))
    del memory
    assert not [reference for reference in references if reference() is not None]


@torch.no_grad()
def test_threads_remember_at_once(folder_of):
    backbone = make_backbone("paligemma", folder_of).eval()
    sequences = [backbone_checks.sequence(32, window, causal=False) for window in (1, 2, 3, 4)] * 10
    expected = [backbone.remember(sequence) for sequence in sequences]
    with ThreadPoolExecutor(8) as pool:
        received = list(pool.map(backbone.remember, sequences))
    for memory, other in zip(expected, received, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(memory.keys, other.keys, strict=True))
        assert torch.equal(memory.tokens, other.tokens)


def test_a_model_whose_attention_a_head_cannot_compute_keeps_no_layers(folder_of):
    backbone = make_backbone("paligemma2", folder_of)
    sequence = backbone_checks.sequence(32, 2)
    assert backbone.offers == frozenset()
    assert backbone.layer_spec is None
    assert backbone(sequence).isfinite().all()
    assert backbone.read(sequence).isfinite().all()
    for call in (
        lambda: backbone.remember(sequence),
        lambda: backbone.rotate(sequence.tokens, sequence.frame),
    ):
        with pytest.raises(
            ConfigError, match=r"backbone\.model: .* caps its scores.*; choose another model"
        ) as caught:
            call()
        single_line(caught)


SMOLLM3 = {"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SMOLLM3, "do not all turn their keys alike"),
        (
            {"model_type": "gemma3_text", "head_dim": 8},
            "cannot be tried out",
        ),  # local and global layers turn otherwise
        ({"model_type": "phi"}, "cannot be tried out"),  # a part of each head is turned
    ],
)
def test_models_that_rotate_some_layers_otherwise_keep_none(text, reason, tmp_path):
    config = {**FAMILIES["llava"].config, "text_config": {**LANGUAGE, **text}}
    folder = save_model(tmp_path / "model", config, weights=False)
    backbone, sequence = (
        HuggingFaceBackbone(BackboneConfig(str(folder))),
        backbone_checks.sequence(32, 2),
    )
    assert backbone.offers == frozenset()
    assert backbone(sequence).isfinite().all()
    with pytest.raises(ConfigError, match=reason) as caught:
        backbone.remember(sequence)
    single_line(caught)
