"""Weights under LeRobot's names: what is taken, what is refused, and what is said."""

import json

import pytest
import torch
from safetensors.torch import save_file

from core import ConfigError
from core.policy.weight_sources import assumptions_of
from plugins.policies.act.names import (
    ACTION_TOKEN_NAMES,
    BACKBONE_NAMES,
    HEAD_NAMES,
    PROJECTION,
    RESNET,
)
from tests.plugins.act.policies import ACTION, build

PARTS = ("vision_encoder", "backbone", "action_tokens", "policy_head")
# what files of weights hold besides the parts' own
TABLE = {"model.vae_encoder_pos_enc": torch.zeros(1, 7, 32)}
BUFFERS = {
    f"{group}.buffer_{feature}.{kind}": value
    for group, feature, sizes in (
        ("normalize_inputs", "observation_state", (3,)),
        ("normalize_inputs", "observation_images_top", (3, 1, 1)),
        ("normalize_targets", "action", (2,)),
        ("unnormalize_outputs", "action", (2,)),
    )
    for kind, value in (("mean", torch.full(sizes, 0.5)), ("std", torch.full(sizes, 0.25)))
}


def published(policy):
    """Return a policy's weights under their published names."""
    vision = policy.vision_encoder
    tensors = {f"{RESNET}{name}": x for name, x in vision.model.state_dict().items()}
    tensors |= {f"{PROJECTION}{name}": x for name, x in vision.projection.state_dict().items()}
    for part, names in (
        ("backbone", BACKBONE_NAMES),
        ("action_tokens", ACTION_TOKEN_NAMES),
        ("policy_head", HEAD_NAMES),
    ):
        tensors |= names.publish(policy.get_submodule(part).state_dict())
    return tensors | TABLE


def load(folder, tensors, *, parts=PARTS, modes=None, settings=None, **arguments):
    """Write a file of weights, and build a policy that begins with them."""
    weights = folder / "weights"
    weights.mkdir()
    save_file({name: x.clone() for name, x in tensors.items()}, weights / "model.safetensors")
    if modes is not None:
        settings = {"normalization_mapping": modes}
    if settings is not None:
        (weights / "config.json").write_text(json.dumps(settings))
    overrides = [f"{part}.pretrained={weights / 'model.safetensors'}" for part in parts]
    return build(folder, *overrides, **arguments)


@pytest.fixture
def source(tmp_path):
    """A policy whose weights differ from those that `build` draws."""
    policy = build(tmp_path)
    with torch.no_grad():
        for weight in policy.state_dict().values():
            weight += 0.1
    return policy


def test_every_part_takes_its_weights(source, tmp_path):
    loaded = load(tmp_path, published(source))
    expected = source.state_dict()
    for name, weight in loaded.state_dict().items():
        is_pixels = name in ("vision_encoder.mean", "vision_encoder.std")
        assert is_pixels or torch.equal(weight, expected[name]), name


def test_buffers_of_older_files_scale_pixels_and_are_said_for_the_rest(source, tmp_path):
    loaded = load(tmp_path, published(source) | BUFFERS)
    assert (loaded.vision_encoder.mean == 0.5).all()
    assert (loaded.vision_encoder.std == 0.25).all()
    tokens, head = assumptions_of(loaded)
    assert tokens.startswith("action_tokens: the published weights were trained on proprioception")
    assert "actions with mean (0.5, 0.5) and standard deviation (0.25, 0.25)" in head


def test_weights_without_statistics_say_nothing(source, tmp_path):
    assert not [*assumptions_of(load(tmp_path, published(source)))]


def test_a_policy_that_also_reads_the_scenes_state_is_refused(source, tmp_path):
    scene = {"model.encoder_env_state_input_proj.bias": torch.zeros(32)}
    with pytest.raises(ConfigError, match=r"unexpected: model\.encoder_env_state"):
        load(tmp_path, published(source) | scene)


def test_a_policy_with_norms_before_each_layer_is_refused(source, tmp_path):
    norm = {"model.encoder.norm.weight": torch.zeros(32)}
    with pytest.raises(ConfigError, match=r"unexpected: model\.encoder\.norm"):
        load(tmp_path, published(source) | norm)


def test_chunks_of_another_length_are_refused(source, tmp_path):
    tensors = published(source) | {"model.decoder_pos_embed.weight": torch.zeros(7, 32)}
    with pytest.raises(ConfigError, match=r"misshapen: model\.decoder_pos_embed\.weight \(7, 32\)"):
        load(tmp_path, tensors)


@pytest.mark.parametrize(
    ("modes", "bounded", "advice"),
    [
        (None, True, 'set action.normalization = "mean_std"'),
        ({"ACTION": "MIN_MAX"}, False, 'set action.normalization = "min_max"'),
        ({"ACTION": "QUANTILES"}, True, "QUANTILES"),
    ],
)
def test_actions_in_other_numbers_are_refused(source, tmp_path, modes, bounded, advice):
    action = type(ACTION)(window=1, horizon=5, dim=2, bounded=bounded)
    with pytest.raises(ConfigError, match=f"policy_head.pretrained: .*{advice}"):
        load(tmp_path, published(source), parts=("policy_head",), modes=modes, action=action)


def test_actions_between_minimum_and_maximum_are_taken(source, tmp_path):
    action = type(ACTION)(window=1, horizon=5, dim=2, bounded=True)
    modes = {"ACTION": "MIN_MAX"}
    load(tmp_path, published(source), parts=("policy_head",), modes=modes, action=action)


def test_a_damaged_configuration_is_said_in_one_line(source, tmp_path):
    with pytest.raises(ConfigError, match=r"policy_head\.pretrained: cannot read '.*config\.json'"):
        load(tmp_path, published(source), parts=("policy_head",), settings=[1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"feedforward_activation": "gelu"}, 'feedforward_activation = "gelu" .* "relu"; choose'),
        ({"replace_final_stride_with_dilation": True}, "dilation = true .* false; choose"),
    ],
)
@pytest.mark.parametrize("part", ["vision_encoder", "backbone"])
def test_what_weights_do_not_show_is_refused(source, tmp_path, settings, said, part):
    with pytest.raises(ConfigError, match=f"{part}.pretrained: .* has .*{said}"):
        load(tmp_path, published(source), parts=(part,), settings=settings)
