"""Names of the parts' tensors in LeRobot's files of VQ-BeT's weights, model.safetensors."""

from collections.abc import Mapping

from torch import Tensor

from core.weights import LeRobotFiles, NameMap, Pretrained, filter_keys

# of the vision encoder, which takes these tensors itself
VISION = ("vqbet.rgb_encoder.", "vqbet.rgb_feature_projector.")
BACKBONE = "vqbet.policy."
HEAD = "vqbet.action_head."
# constant tables, and the statistics of older files
IGNORED = (
    "vqbet.select_target_actions_indices",
    "normalize_inputs.",
    "normalize_targets.",
    "unnormalize_outputs.",
)
CAUSAL_MASK = ".attn.bias"
CODEBOOK = "._codebook."
# whether codebooks exist and rest; here, stages say that
FLAGS = (".discretized", ".initted", ".freeze_codebook")

_BLOCK = {
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "mlp_norm": "ln_2",
    "expand": "mlp.0",
    "shrink": "mlp.2",
}
BACKBONE_NAMES = NameMap(
    {
        "input": "vqbet.policy.transformer.wte",
        "positions": "vqbet.policy.transformer.wpe",
        "norm": "vqbet.policy.transformer.ln_f",
        "output": "vqbet.policy.lm_head",
        **{f"layers.*.{ours}": f"vqbet.policy.transformer.h.*.{x}" for ours, x in _BLOCK.items()},
    }
)
ACTION_TOKEN_NAMES = NameMap({"query": "vqbet.action_token", "proprio": "vqbet.state_projector.0"})
_CODEBOOK = "vqbet.action_head.vqvae_model.vq_layer.layers.*._codebook."
HEAD_NAMES = NameMap(
    {
        "code_logits.*": "vqbet.action_head.map_to_cbet_preds_bin.*",
        "offsets.*": "vqbet.action_head.map_to_cbet_preds_offset.*",
        "autoencoder.encoder.*": "vqbet.action_head.vqvae_model.encoder.*",
        "autoencoder.decoder.*": "vqbet.action_head.vqvae_model.decoder.*",
        "autoencoder.codebooks.*.codes": f"{_CODEBOOK}embed",
        "autoencoder.codebooks.*.sums": f"{_CODEBOOK}embed_avg",
        "autoencoder.codebooks.*.counts": f"{_CODEBOOK}cluster_size",
    }
)


def lerobot_files(weights: Pretrained) -> LeRobotFiles:
    """Return the files of a VQ-BeT that LeRobot wrote."""
    return LeRobotFiles(weights, {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"})


def backbone_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the tensors of minGPT."""
    return filter_keys(
        weights.tensors,
        lambda name: name.startswith(BACKBONE) and not name.endswith(CAUSAL_MASK),
    )


def head_tensors(weights: Pretrained) -> dict[str, Tensor]:
    """Return the tensors of the head; those of codebooks are published with an axis of length 1."""
    used = filter_keys(
        weights.tensors, lambda name: name.startswith(HEAD) and not name.endswith(FLAGS)
    )
    return {name: x[0] if CODEBOOK in name else x for name, x in used.items()}


def action_token_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the tensors of queries and proprioception, and all that belong to no part.

    Loading reports those that belong to no part as unexpected.
    """
    others = (*VISION, BACKBONE, HEAD, *IGNORED)
    return filter_keys(weights.tensors, lambda name: not name.startswith(others))
