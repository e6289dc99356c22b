"""Tiny vision-language models of transformers with random weights, and policies made of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core import ActionSpec, Batch, import_library
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.policy.recomputation import recompute_blocks
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.testing import Setup, checks_for
from core.testing.common import generator
from plugins.vlms.huggingface.backbone import BackboneConfig, HuggingFaceBackbone
from plugins.vlms.huggingface.text import HuggingFaceText, TextConfig
from plugins.vlms.huggingface.vision import HuggingFaceVision, VisionConfig

transformers = import_library("transformers")


SIZE = 32  # pixels of every image's side


CAMERAS = {
    "wrist": (3, SIZE, SIZE),
    "static": (3, SIZE, SIZE),
}  # in another order than that of their names


INSTRUCTIONS = ("open the drawer", "push the red block to the left", "lift")


SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "<fence>", "<spare0>", "<spare1>")


WORDS = (
    *sorted({word for line in INSTRUCTIONS for word in line.split()}),
    "in",
    "pick",
    "up",
    "turn",
    "on",
)


IMAGE, SPARE = SPECIAL.index("<image>"), (SPECIAL.index("<spare0>"), SPECIAL.index("<spare1>"))


PROMPT = "<s><fence>{images}<fence>{instruction}"


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


COUNT = 2  # action tokens per frame


SETUP = Setup(cameras={"static": (3, 48, 64), "wrist": (3, SIZE, SIZE)})


LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 8,
}


def stacked(pixels):
    return {"pixel_values": pixels}


def in_one_list(pixels):
    return {"pixel_values": pixels.unsqueeze(0)}


def as_qwens_processor_does(pixels):
    """transformers' own layout of pixels that are normalised already."""
    processor = transformers.Qwen2VLImageProcessor(
        do_resize=False,
        do_rescale=False,
        do_normalize=False,
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
    )
    return dict(processor(list(pixels), return_tensors="pt"))


@dataclass(frozen=True)
class Family:
    """A kind of model: its configuration, how it takes images, and how the tests use it."""

    name: str
    config: dict[str, Any]
    pixels: Callable[[torch.Tensor], dict[str, torch.Tensor]] = stacked
    attention: str = "causal"
    size: int | None = None  # of images, if the model names none of its own
    unused: tuple[str, ...] = ()  # weights on which no token depends

    def __str__(self) -> str:
        return self.name


def rope(sections):
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}


GEMMA = {**LANGUAGE, "model_type": "gemma", "head_dim": 8}


GEMMA2 = {
    **LANGUAGE,
    "model_type": "gemma2",
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 256,
}


PALIGEMMA = {
    "model_type": "paligemma",
    "image_token_index": IMAGE,
    "projection_dim": 32,
    "hidden_size": 32,
    "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
    "text_config": GEMMA,
}


QWEN = {
    "model_type": "qwen2_5_vl",
    "image_token_id": IMAGE,
    "tie_word_embeddings": True,
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 32,
    },
    "text_config": {
        **LANGUAGE,
        "model_type": "qwen2_5_vl_text",
        "rope_parameters": rope([1, 1, 2]),
    },
}


def idefics(model_type):
    return {
        "model_type": model_type,
        "image_token_id": IMAGE,
        "tie_word_embeddings": True,
        "vision_config": VISION,
        "text_config": {**LANGUAGE, "model_type": "llama"},
    }


FAMILIES = {
    family.name: family
    for family in (
        Family(
            # its tokens are those of the last layer but one, and its output layer is not the
            # embedding
            "llava",
            {
                "model_type": "llava",
                "image_token_index": IMAGE,
                "vision_config": {
                    **VISION,
                    "num_hidden_layers": 3,
                    "model_type": "clip_vision_model",
                },
                "text_config": {**LANGUAGE, "model_type": "llama"},
            },
            unused=(
                "vision_tower.layers.2.",
                "vision_tower.encoder.layers.2.",
                "vision_tower.post_layernorm.",
            ),
        ),
        Family("paligemma", PALIGEMMA, attention="prefix"),
        Family("paligemma2", {**PALIGEMMA, "text_config": GEMMA2}, attention="prefix"),
        Family("qwen2_5_vl", QWEN, as_qwens_processor_does, size=SIZE),
        Family("idefics3", idefics("idefics3"), in_one_list),
        Family("smolvlm", idefics("smolvlm"), in_one_list),
        Family(
            "internvl",
            {
                "model_type": "internvl",
                "image_token_id": IMAGE,
                "vision_config": {**VISION, "use_mean_pooling": False},
                "text_config": {**LANGUAGE, "model_type": "qwen2"},
            },
        ),
    )
}


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, which adds a token for the beginning by default."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    table = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    words = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(list(SPECIAL))
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(
        folder
    )


def save_model(folder: Path, config: dict[str, Any], *, weights: bool = True) -> Path:
    """A folder as on the hub: configuration, tokenizer, image statistics and random weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": MEAN, "image_std": STD})
    )
    save_tokenizer(folder)
    if weights:
        torch.manual_seed(3)
        model = full_model(folder, random=True)
        with torch.no_grad():
            for weight in model.parameters():  # no norm of ones, no bias of zeros
                weight += 0.05 * torch.randn_like(weight)
        model.tie_weights()
        model.save_pretrained(folder)
    return folder


def full_model(folder: Path, *, random: bool = False):
    """transformers' own model."""
    auto = transformers.AutoModelForImageTextToText
    if random:
        return auto.from_config(transformers.AutoConfig.from_pretrained(folder)).eval()
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert report["missing_keys"] <= {"lm_head.weight"}
    return model.eval()


def copy_with(folder: Path, target: Path, change: Callable[[dict], None]) -> Path:
    """A copy of a model's folder with other tensors in it."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def build(tmp_path: Path, folder: Path, *overrides: str, pretrained: bool = True) -> Policy:
    """A policy whose three parts are of one folder."""
    recipe = f"""
[data]
path = "unused.zarr"
[vision_encoder]
name = "huggingface"
model = "{folder}"
image_size = {SIZE}
pretrained = {str(pretrained).lower()}
[text_encoder]
name = "huggingface"
model = "{folder}"
prompt = "{PROMPT}"
pretrained = {str(pretrained).lower()}
[backbone]
name = "huggingface"
model = "{folder}"
pretrained = {str(pretrained).lower()}
[action_tokens]
name = "learned"
count = {COUNT}
init_std = 1.0
[policy_head]
name = "lstm"
hidden_size = 16
layers = 1
mlp = [16]
"""
    path = tmp_path / "recipe.toml"
    path.write_text(recipe)
    loaded = load_recipe(path, ["data.window=2", *overrides], load_plugins())
    torch.manual_seed(0)
    spec = ActionSpec(window=loaded.data.window, horizon=3, dim=4, binary=(3,))
    return build_policy(loaded, CAMERAS, spec, proprio_dim=0).eval()


def load_part(part: str, folder: Path, weights: Path, tmp_path: Path) -> Policy:
    """A policy of which one part has weights of another folder."""
    return build(tmp_path, folder, f"{part}.pretrained={weights}", pretrained=False)


def make_batch(policy: Policy, window: int, instructions=INSTRUCTIONS) -> Batch:
    """Random frames, padded instructions, and actions to learn."""
    generator = torch.Generator().manual_seed(1)
    rows = [policy.text_encoder.tokenize(line) for line in instructions]
    longest, size = max(map(len, rows)), len(rows)
    frames = {
        name: torch.randint(256, (size, window, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in CAMERAS.items()
    }
    actions = torch.rand(size, window, 3, 4, generator=generator) * 2 - 1
    actions[..., 3] = (actions[..., 3] > 0).float()
    return Batch(
        images=frames,
        instructions=instructions,
        text_ids=torch.tensor([list(row) + [0] * (longest - len(row)) for row in rows]),
        text_mask=torch.tensor([[i < len(row) for i in range(longest)] for row in rows]),
        proprio=None,
        actions=actions,
        action_mask=torch.ones(size, window, 3, 4, dtype=torch.bool),
        episodes=[""] * size,
    )


def read(policy: Policy, batch: Batch) -> torch.Tensor:
    """What a policy head reads of the action tokens (B T Q D)."""
    return policy.context(batch, generator()).readout


def normalised(batch: Batch, b: int, frames: list[int]) -> torch.Tensor:
    """The images of some frames (n C Y X), cameras in the order of their names."""
    images = [
        batch.images[name][b, t].permute(1, 2, 0).numpy()
        for t in frames
        for name in sorted(CAMERAS)
    ]
    pixels = (np.stack(images) / 255.0 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(pixels).float().permute(0, 3, 1, 2)


def put_action_tokens_into_the_vocabulary(full, policy: Policy) -> None:
    """Let the spare words of transformers' model be the action tokens of a policy."""
    embedding = full.get_input_embeddings()
    with torch.no_grad():
        scale = embedding(torch.tensor(SPARE)) / embedding.weight[list(SPARE)]
        embedding.weight[list(SPARE)] = policy.action_tokens.action / scale


def rope_index(
    full, ids: torch.Tensor, grids: list[tuple[int, int]], mask: torch.Tensor | None
) -> torch.Tensor:
    """Positions (3 S L) of Qwen2.5-VL's own model; images stand where <image> does.

    The model takes adjacent image tokens for one image. So every second image is declared to be a
    video of one frame.

    grids: rows and columns of each image.
    """
    kinds = torch.zeros_like(ids)
    for i, row in enumerate(ids):
        image_tokens = (row == IMAGE).nonzero().flatten()
        number = torch.repeat_interleave(
            torch.arange(len(grids)), torch.tensor([r * c for r, c in grids])
        )
        kinds[i, image_tokens] = 1 + number % 2
    sizes = torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in grids])
    images, videos = sizes[::2].repeat(len(ids), 1), sizes[1::2].repeat(len(ids), 1)
    positions, _ = full.model.get_rope_index(ids, kinds, images, videos, attention_mask=mask)
    return positions


def build_text(folder, prompt=PROMPT) -> HuggingFaceText:
    return HuggingFaceText(TextConfig(str(folder), prompt))


def build_vision(folder, cameras=CAMERAS, **keys) -> HuggingFaceVision:
    return HuggingFaceVision(VisionConfig(str(folder), **keys), cameras=cameras)


def checkpointed_backbone(config: BackboneConfig) -> HuggingFaceBackbone:
    """A backbone with gradient checkpointing."""
    backbone = HuggingFaceBackbone(config)
    recompute_blocks(backbone, "backbone")
    return backbone


def make_backbone(model: str, folder_of, *, checkpointed: bool = False) -> HuggingFaceBackbone:
    """The backbone of a family in training mode, with gradient checkpointing or without."""
    torch.manual_seed(0)
    build_backbone = checkpointed_backbone if checkpointed else HuggingFaceBackbone
    return build_backbone(BackboneConfig(str(folder_of(model)))).train()


def single_line(caught: pytest.ExceptionInfo) -> str:
    """The message of an error, which must be one line."""
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run_check(
    kind: str, build_part: Any, config: Any, name: str, setup: Setup | None = None
) -> None:
    """Run the contract check of one name on a part."""
    checks = checks_for(kind, build_part, config, *([setup] if setup else []))
    next(check for check in checks if check.name == name)()
