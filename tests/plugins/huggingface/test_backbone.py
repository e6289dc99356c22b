"""The backbone: its contract, and its hidden states against transformers' own."""

import pytest
import torch

from core import ConfigError, TokenSequence
from core.testing import backbone as backbone_checks, checks_for
from core.testing.common import normal
from core.weights import Pretrained
from plugins.vlms.huggingface.backbone import BackboneConfig, HuggingFaceBackbone
from tests.plugins.huggingface.families import (
    FAMILIES,
    LANGUAGE,
    SETUP,
    build,
    checkpointed_backbone,
    full_model,
    make_batch,
    read,
    run_check,
    save_model,
    single_line,
)

CHECKS = [
    check.name for check in checks_for("backbone", HuggingFaceBackbone, BackboneConfig("unused"))
]


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("model", ["llava", "paligemma", "paligemma2", "qwen2_5_vl"])
def test_contract(model, name, folder_of):
    run_check("backbone", HuggingFaceBackbone, BackboneConfig(str(folder_of(model))), name, SETUP)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("model", ["paligemma", "smolvlm"])
def test_contract_with_gradient_checkpointing(model, name, folder_of):
    run_check("backbone", checkpointed_backbone, BackboneConfig(str(folder_of(model))), name)


@torch.no_grad()
@pytest.mark.parametrize("model", sorted(FAMILIES.keys() - {"paligemma2"}))  # which keeps no layers
def test_hidden_states_of_every_layer_are_transformers_own(model, folder_of):
    folder = folder_of(model)
    backbone, full = HuggingFaceBackbone(BackboneConfig(str(folder))).eval(), full_model(folder)
    backbone.load_pretrained(Pretrained(str(folder)))
    tokens, labels = normal(2, 6, 32, seed=5), torch.zeros(2, 6, dtype=torch.int64)
    memory = backbone.remember(
        TokenSequence(tokens, None, labels, labels, torch.empty(2, 1, 0, dtype=torch.int64))
    )
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    language_model = full.model.get_decoder()
    expected = language_model(inputs_embeds=tokens, attention_mask=mask, output_hidden_states=True)
    assert len(memory.hidden_states) == 3
    torch.testing.assert_close(memory.tokens, expected.last_hidden_state, rtol=1e-5, atol=1e-5)
    for received, states in zip(
        memory.hidden_states[:-1], expected.hidden_states[:-1], strict=True
    ):
        torch.testing.assert_close(received, states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        language_model.norm(memory.hidden_states[-1]), memory.tokens, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(memory.tokens, backbone(memory.sequence), rtol=1e-5, atol=1e-5)


def test_rows_and_columns_are_refused_where_there_are_none(folder_of):
    with pytest.raises(
        ConfigError, match=r"backbone\.positions: .* is a 'llava', .*; set it to \"index\""
    ) as caught:
        HuggingFaceBackbone(BackboneConfig(str(folder_of("llava")), positions="grid"))
    single_line(caught)
    backbone = HuggingFaceBackbone(BackboneConfig(str(folder_of("qwen2_5_vl")), positions="grid"))
    with pytest.raises(
        ConfigError, match=r"backbone\.positions: .* give no rows and columns"
    ) as caught:
        backbone(backbone_checks.sequence(32, 2))
    single_line(caught)
    with pytest.raises(
        ConfigError, match=r"gives tokens places that a head does not know"
    ) as caught:
        backbone.remember(backbone_checks.sequence(32, 2))
    single_line(caught)


def test_a_window_that_layers_slide_limits_prefix_attention(tmp_path):
    text = {**LANGUAGE, "model_type": "mistral", "sliding_window": 8}
    folder = save_model(
        tmp_path / "sliding", {**FAMILIES["llava"].config, "text_config": text}, weights=False
    )
    policy = build(tmp_path, folder, "action_tokens.attention=prefix", pretrained=False)
    with pytest.raises(
        ConfigError, match=r"action_tokens\.attention: a sequence has \d+ tokens, .* window of 8"
    ):
        read(policy, make_batch(policy, 2))
    with pytest.raises(ConfigError, match="window of 8"):
        policy.backbone.remember(backbone_checks.sequence(32, 3))
    causal = build(tmp_path, folder, pretrained=False)
    assert read(causal, make_batch(causal, 2)).isfinite().all()


def test_a_sequence_beyond_the_models_positions_is_refused(tmp_path):
    """transformers itself would compute with positions that the model has never seen."""
    text = {**LANGUAGE, "model_type": "llama", "max_position_embeddings": 12}
    config = {**FAMILIES["smolvlm"].config, "text_config": text}
    folder = save_model(tmp_path / "short", config, weights=False)
    policy = build(tmp_path, folder, pretrained=False)
    line = r"backbone.model: a sequence has \d+ tokens, and '.*' has 12 positions; use fewer"
    with pytest.raises(ConfigError, match=line) as caught:
        read(policy, make_batch(policy, 2))
    single_line(caught)


def test_weights_have_the_default_type(folder_of):
    torch.set_default_dtype(torch.bfloat16)
    try:
        part = HuggingFaceBackbone(BackboneConfig(str(folder_of("llava"))))
        part.load_pretrained(Pretrained(part.source))
    finally:
        torch.set_default_dtype(torch.float32)
    assert {weight.dtype for weight in part.parameters()} == {torch.bfloat16}
    assert part.describe()["text_config"]["dtype"] == "bfloat16"
