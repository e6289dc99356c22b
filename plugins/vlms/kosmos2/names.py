"""Names of the three parts' tensors, in Kosmos-2 checkpoints of Hugging Face and of RoboVLMs."""

from collections.abc import Mapping

from torch import Tensor

from core.weights import NameMap, Pretrained, filter_keys, strip_prefix

SOURCE = "microsoft/kosmos-2-patch14-224"
# a tensor's name in a checkpoint of RoboVLMs is this prefix plus Hugging Face's name
ROBOVLMS_PREFIX = "model.backbone."
VISION = ("vision_model.", "image_to_text_projection.")
BACKBONE = ("text_model.model.layers.", "text_model.model.layer_norm.")
# tensors that are skipped: the output layer, which is the same tensor as the embedding, and
# constant tables that older versions of transformers stored
IGNORED = (
    "text_model.lm_head.weight",
    "text_model.model.embed_positions.weights",
    "vision_model.model.embeddings.position_ids",
)

_CLIP = "vision_model.model"
_CLIP_LAYER = f"{_CLIP}.encoder.layers.*"
VISION_NAMES = NameMap(
    {
        "clip.cls_token": f"{_CLIP}.embeddings.class_embedding",
        "clip.pos_embed": f"{_CLIP}.embeddings.position_embedding.weight",
        "clip.patch_embed.proj": f"{_CLIP}.embeddings.patch_embedding",
        "clip.norm_pre": f"{_CLIP}.pre_layrnorm",  # (sic)
        "clip.blocks.*.norm1": f"{_CLIP_LAYER}.layer_norm1",
        "clip.blocks.*.attn.qkv": tuple(f"{_CLIP_LAYER}.self_attn.{x}_proj" for x in "qkv"),
        "clip.blocks.*.attn.proj": f"{_CLIP_LAYER}.self_attn.out_proj",
        "clip.blocks.*.norm2": f"{_CLIP_LAYER}.layer_norm2",
        "clip.blocks.*.mlp.fc1": f"{_CLIP_LAYER}.mlp.fc1",
        "clip.blocks.*.mlp.fc2": f"{_CLIP_LAYER}.mlp.fc2",
        "clip.norm": f"{_CLIP}.post_layernorm",
        "dense": "image_to_text_projection.dense",
        "resampler.latents": "image_to_text_projection.latent_query",
        "resampler.q_proj": "image_to_text_projection.x_attn.q_proj",
        "resampler.k_proj": "image_to_text_projection.x_attn.k_proj",
        "resampler.v_proj": "image_to_text_projection.x_attn.v_proj",
        "resampler.out_proj": "image_to_text_projection.x_attn.out_proj",
    },
    squeeze=frozenset({"clip.cls_token", "clip.pos_embed"}),
)
TEXT_NAMES = NameMap({"embedding": "text_model.model.embed_tokens"})
_LAYER = "text_model.model.layers.*"
BACKBONE_NAMES = NameMap(
    {
        "layers.*.attention_norm": f"{_LAYER}.self_attn_layer_norm",
        "layers.*.attention.q_proj": f"{_LAYER}.self_attn.q_proj",
        "layers.*.attention.k_proj": f"{_LAYER}.self_attn.k_proj",
        "layers.*.attention.v_proj": f"{_LAYER}.self_attn.v_proj",
        "layers.*.attention.norm": f"{_LAYER}.self_attn.inner_attn_ln",
        "layers.*.attention.out_proj": f"{_LAYER}.self_attn.out_proj",
        "layers.*.mlp_norm": f"{_LAYER}.final_layer_norm",
        "layers.*.mlp.fc1": f"{_LAYER}.ffn.fc1",
        "layers.*.mlp.norm": f"{_LAYER}.ffn.ffn_layernorm",
        "layers.*.mlp.fc2": f"{_LAYER}.ffn.fc2",
        "norm": "text_model.model.layer_norm",
    }
)


def vision_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the tensors of CLIP and the resampler."""
    return filter_keys(
        _kosmos_tensors(weights), lambda name: name.startswith(VISION) and name not in IGNORED
    )


def backbone_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the tensors of the decoder."""
    return filter_keys(_kosmos_tensors(weights), lambda name: name.startswith(BACKBONE))


def text_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return the token embedding, and all tensors that belong to no part.

    Loading reports the tensors that belong to no part as unexpected.
    """
    return filter_keys(
        _kosmos_tensors(weights),
        lambda name: not name.startswith((*VISION, *BACKBONE)) and name not in IGNORED,
    )


def robovlms_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors from Hugging Face's names to those in RoboVLMs' checkpoints."""
    return {ROBOVLMS_PREFIX + name: tensor for name, tensor in tensors.items()}


def _kosmos_tensors(weights: Pretrained) -> Mapping[str, Tensor]:
    """Return all tensors of Kosmos-2 under Hugging Face's names, from either kind of checkpoint."""
    tensors = weights.tensors
    if any(name.startswith(ROBOVLMS_PREFIX) for name in tensors):
        return strip_prefix(tensors, ROBOVLMS_PREFIX)
    return tensors
