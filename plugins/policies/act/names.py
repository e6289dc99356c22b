"""LeRobot's files of ACT's weights: the names of the parts' tensors, and settings."""

from collections.abc import Mapping

from torch import Tensor

from core.weights import LeRobotFiles, NameMap, Pretrained, filter_keys

RESNET = "model.backbone."
PROJECTION = "model.encoder_img_feat_input_proj."
BACKBONE = "model.encoder."
HEAD = ("model.decoder.", "model.decoder_pos_embed.", "model.action_head.")
# a constant table, and the statistics of older files
IGNORED = (
    "model.vae_encoder_pos_enc",
    "normalize_inputs.",
    "normalize_targets.",
    "unnormalize_outputs.",
)

# settings of which only one value is supported
ONLY = {
    "feedforward_activation": "relu",
    "pre_norm": False,
    "replace_final_stride_with_dilation": False,
}

# settings of which only one value is supported
ONLY = {
    "feedforward_activation": "relu",
    "pre_norm": False,
    "replace_final_stride_with_dilation": False,
}

_ATTENTION = ("self_attn", "self_attn.out_proj")
_CROSS_ATTENTION = ("multihead_attn", "multihead_attn.out_proj")
_MLP = ("linear1", "linear2", "norm1", "norm2")


def _layer(own: str, published: str, modules: tuple[str, ...]) -> dict[str, str | tuple[str, ...]]:
    """Return the names of the modules of every layer, which are called alike in both."""
    return {f"{own}.*.{name}": f"{published}.*.{name}" for name in modules}


BACKBONE_NAMES = NameMap(_layer("layers", "model.encoder.layers", (*_ATTENTION, *_MLP)))
ACTION_TOKEN_NAMES = NameMap(
    {
        "latent_projection": "model.encoder_latent_input_proj",
        "proprio_projection": "model.encoder_robot_state_input_proj",
        "positions": "model.encoder_1d_feature_pos_embed.weight",
        "cvae.cls": "model.vae_encoder_cls_embed.weight",
        "cvae.proprio": "model.vae_encoder_robot_state_input_proj",
        "cvae.actions": "model.vae_encoder_action_input_proj",
        "cvae.distribution": "model.vae_encoder_latent_output_proj",
        **_layer("cvae.layers", "model.vae_encoder.layers", (*_ATTENTION, *_MLP)),
    }
)
HEAD_NAMES = NameMap(
    {
        "queries": "model.decoder_pos_embed.weight",
        "norm": "model.decoder.norm",
        "output": "model.action_head",
        **_layer(
            "layers",
            "model.decoder.layers",
            (*_ATTENTION, *_CROSS_ATTENTION, *_MLP, "norm3"),
        ),
    }
)


def check_settings(weights: Pretrained) -> None:
    """Raise ConfigError if the weights are of an ACT that is built in another way."""
    for key, value in ONLY.items():
        LeRobotFiles(weights).check_setting(key, value)


def vision_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the tensors of the ResNet and of the projection of its map."""
    return filter_keys(weights.tensors, lambda name: name.startswith((RESNET, PROJECTION)))


def backbone_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the tensors of the encoder."""
    return filter_keys(weights.tensors, lambda name: name.startswith(BACKBONE))


def head_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the tensors of the decoder."""
    return filter_keys(weights.tensors, lambda name: name.startswith(HEAD))


def action_token_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the tensors of latent, proprioception and CVAE, and all that belong to no part.

    Loading reports those that belong to no part as unexpected.
    """
    others = (RESNET, PROJECTION, BACKBONE, *HEAD, *IGNORED)
    return filter_keys(weights.tensors, lambda name: not name.startswith(others))
