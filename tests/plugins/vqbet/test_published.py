"""Weights under LeRobot's names: what is refused, and what is said."""

import json

import pytest
import torch
from safetensors.torch import save_file

from core import ConfigError
from core.policy.weight_sources import assumptions_of
from plugins.policies.vqbet.names import ACTION_TOKEN_NAMES, BACKBONE_NAMES, CODEBOOK, HEAD_NAMES
from tests.plugins.vqbet.policies import build

PARTS = {
    "backbone": BACKBONE_NAMES,
    "action_tokens": ACTION_TOKEN_NAMES,
    "policy_head": HEAD_NAMES,
}
# what files hold besides the weights
FURTHER = {
    "vqbet.select_target_actions_indices": torch.zeros(3, 3),
    "vqbet.policy.transformer.h.0.attn.bias": torch.ones(1, 1, 20, 20),
    "vqbet.action_head.vqvae_model.discretized": torch.tensor(True),
    "vqbet.action_head.vqvae_model.vq_layer.freeze_codebook": torch.tensor(True),
    "vqbet.action_head.vqvae_model.vq_layer.layers.0._codebook.initted": torch.ones(1),
    "normalize_targets.buffer_action.min": torch.tensor([-1.0, -2.0]),
    "normalize_targets.buffer_action.max": torch.tensor([1.0, 2.0]),
}


def load(folder, *, further=None, parts=PARTS, **settings):
    """Write the weights of a small policy, and build one that begins with them."""
    source = build(folder)
    with torch.no_grad():
        for weight in source.state_dict().values():
            weight += 0.1
    tensors = {
        name: x[None] if CODEBOOK in name else x
        for part, names in PARTS.items()
        for name, x in names.publish(source.get_submodule(part).state_dict()).items()
    }
    weights = folder / "weights"
    weights.mkdir()
    written = {name: x.clone() for name, x in {**tensors, **FURTHER, **(further or {})}.items()}
    save_file(written, weights / "model.safetensors")
    if settings:
        (weights / "config.json").write_text(json.dumps(settings))
    return source, build(folder, *(f"{part}.pretrained={weights}" for part in parts))


def test_every_part_takes_its_weights(tmp_path):
    source, loaded = load(tmp_path)
    for part in PARTS:
        own = loaded.get_submodule(part).state_dict()
        for name, weight in source.get_submodule(part).state_dict().items():
            assert torch.equal(own[name], weight), name


def test_the_range_of_actions_is_said(tmp_path):
    (line,) = assumptions_of(load(tmp_path)[1])
    assert "trained on actions with minimum (-1, -2) and maximum (1, 2)" in line


@pytest.mark.parametrize(
    ("part", "settings", "said"),
    [
        ("action_tokens", {"n_obs_steps": 5}, r"n_obs_steps = 5 .* for 2; change data\.window"),
        (
            "action_tokens",
            {"n_action_pred_token": 3},
            r"n_action_pred_token = 3 .* for 2; change action_tokens\.queries",
        ),
        (
            "policy_head",
            {"normalization_mapping": {"ACTION": "MEAN_STD"}},
            r'set action\.normalization = "mean_std"',
        ),
        (
            "policy_head",
            {"normalization_mapping": {"STATE": "MEAN_STD", "ACTION": "MIN_MAX"}},
            r'set data\.proprio_normalization = "mean_std"',
        ),
    ],
)
def test_settings_that_weights_do_not_show_are_refused(tmp_path, part, settings, said):
    with pytest.raises(ConfigError, match=rf"{part}\.pretrained: .*{said}"):
        load(tmp_path, parts=(part,), **settings)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("policy_head", "vqbet.action_head.map_to_cbet_preds_primary_bin.0.bias"),
        ("action_tokens", "vqbet.env_state_projector.0.bias"),
    ],
)
def test_weights_of_another_build_are_refused(tmp_path, part, name):
    with pytest.raises(ConfigError, match=rf"{part}\.pretrained: .*unexpected: {name}"):
        load(tmp_path, parts=(part,), further={name: torch.zeros(4)})
