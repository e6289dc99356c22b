"""Vision-language models of transformers, tiny and random, of six families: against transformers'
own forward pass.
"""

import json
import pickle
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core import (
    ActionSpec,
    Batch,
    ConfigError,
    DataError,
    LayerSpec,
    TokenGroup,
    TokenSequence,
    import_library,
)
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.policy.publishing import export_folder
from core.policy.recomputation import recompute_blocks
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.testing import Setup, backbone as backbone_checks, checks_for
from core.testing.common import generator, normal
from core.weights import Pretrained
from plugins.vlms.huggingface.backbone import BackboneConfig, HuggingFaceBackbone
from plugins.vlms.huggingface.grid import grid_positions, token_grid
from plugins.vlms.huggingface.model import build_share
from plugins.vlms.huggingface.pixels import arrangement, as_patches, statistics
from plugins.vlms.huggingface.text import HuggingFaceText, TextConfig
from plugins.vlms.huggingface.vision import HuggingFaceVision, VisionConfig

transformers = import_library("transformers")
peft = import_library("peft")
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


# ------------------------------------------------------------------------------------- the families


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
    """A kind of model: its configuration, how it takes the images of one sequence, and how it is
    used here.
    """

    name: str
    config: dict[str, Any]
    pixels: Callable[[torch.Tensor], dict[str, torch.Tensor]] = stacked
    attention: str = "causal"
    size: int | None = None  # where the model names none of its own
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
    """A tokenizer of whole words, with a token for the beginning that it adds unless told not to."""
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
    """A folder as it lies on the hub: configuration, tokenizer, image statistics and random
    weights.
    """
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


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a family, made when it is first asked for."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save_model(root / name, FAMILIES[name].config)
        return made[name]

    return folder


@pytest.fixture(params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> None:
    """No test asks the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


# ----------------------------------------------------------------------------------------- policies


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


# ------------------------------------------------------------------------------------ the contracts

CONTRACTS = {  # of each kind, the families that differ in it
    "vision_encoder": (
        HuggingFaceVision,
        ("llava", "paligemma", "qwen2_5_vl", "smolvlm", "internvl"),
    ),
    "text_encoder": (HuggingFaceText, ("paligemma", "smolvlm")),
    "backbone": (HuggingFaceBackbone, ("llava", "paligemma", "paligemma2", "qwen2_5_vl")),
}
SETUP = Setup(cameras={"static": (3, 48, 64), "wrist": (3, SIZE, SIZE)})


def config_of(kind: str, family: Family, folder: str) -> Any:
    if kind == "vision_encoder":
        return VisionConfig(folder, image_size=family.size)
    return TextConfig(folder, PROMPT) if kind == "text_encoder" else BackboneConfig(folder)


def names_of(kind: str) -> list[str]:
    part, families = CONTRACTS[kind]
    return [
        check.name
        for check in checks_for(kind, part, config_of(kind, FAMILIES[families[0]], "unused"))
    ]


@pytest.mark.parametrize(
    ("kind", "name", "model"),
    [
        (kind, name, model)
        for kind, (_, models) in CONTRACTS.items()
        for model in models
        for name in names_of(kind)
    ],
)
def test_contract(kind, name, model, folder_of):
    config = config_of(kind, FAMILIES[model], str(folder_of(model)))
    next(
        check for check in checks_for(kind, CONTRACTS[kind][0], config, SETUP) if check.name == name
    )()


def recomputing_backbone(config: BackboneConfig) -> HuggingFaceBackbone:
    backbone = HuggingFaceBackbone(config)
    recompute_blocks(backbone, "backbone")
    return backbone


@pytest.mark.parametrize("model", ["paligemma", "smolvlm"])
@pytest.mark.parametrize("name", names_of("backbone"))
def test_contract_of_the_backbone_with_gradient_checkpointing(name, model, folder_of):
    config = BackboneConfig(str(folder_of(model)))
    next(c for c in checks_for("backbone", recomputing_backbone, config) if c.name == name)()


# --------------------------------------------------------------------------------- the same numbers


def put_action_tokens_into_the_vocabulary(full, policy: Policy) -> None:
    embedding = full.get_input_embeddings()
    with torch.no_grad():
        scale = embedding(torch.tensor(SPARE)) / embedding.weight[list(SPARE)]
        embedding.weight[list(SPARE)] = policy.action_tokens.action / scale


def normalised(batch: Batch, b: int, frames: list[int]) -> torch.Tensor:
    """The images of some frames (n C Y X), cameras in the order of their names."""
    images = [
        batch.images[name][b, t].permute(1, 2, 0).numpy()
        for t in frames
        for name in sorted(CAMERAS)
    ]
    pixels = (np.stack(images) / 255.0 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(pixels).float().permute(0, 3, 1, 2)


@torch.no_grad()
def hidden_states(
    full, family: Family, ids: list[int], pixels: torch.Tensor, attention: str
) -> torch.Tensor:
    """transformers' last hidden states of one sequence (L D)."""
    row = torch.tensor([ids])
    more = {}
    if family.name.startswith("paligemma") and attention == "prefix":
        more = {"token_type_ids": torch.isin(row, torch.tensor(SPARE)).long()}
    elif family.name.startswith(
        "paligemma"
    ):  # left to itself, it would let every token see every other
        more = {
            "attention_mask": torch.full(
                (1, 1, len(ids), len(ids)), torch.finfo(torch.float32).min
            ).triu(1)
        }
    return full.model(
        input_ids=row, use_cache=False, **family.pixels(pixels), **more
    ).last_hidden_state[0]


def expected_readout(
    full, family, policy, batch, *, interleaved: bool, attention: str
) -> torch.Tensor:
    """The readout (B T Q D), each sequence alone and without padding."""
    window, prefix = batch.actions.shape[1], policy.text_encoder.prefix
    count = policy.vision_encoder(batch.images, TokenGroup(torch.zeros(1, 1, 1))).tokens.shape[2]
    groups = [list(range(window))] if interleaved else [[t] for t in range(window)]
    readout = []
    for b in range(len(batch.instructions)):
        words = batch.text_ids[b][batch.text_mask[b]].tolist()
        for frames in groups:
            ids = words[:prefix] + [IMAGE] * count + words[prefix:] + list(SPARE)
            for _ in frames[1:]:
                ids += [IMAGE] * count + list(SPARE)
            hidden = hidden_states(full, family, ids, normalised(batch, b, frames), attention)
            readout.append(hidden[[i for i, token in enumerate(ids) if token in SPARE]])
    return torch.stack(readout).view(len(batch.instructions), window, COUNT, -1)


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved", "one_step"])
def test_readout_is_what_transformers_computes(formulation, family, folder_of, tmp_path):
    window = 1 if formulation == "one_step" else 2
    interleaved = formulation == "interleaved"
    attention = "causal" if interleaved else family.attention
    folder = folder_of(family.name)
    keys = (
        f"action_tokens.formulation={formulation}",
        f"data.window={window}",
        f"action_tokens.attention={attention}",
    )
    policy, full = build(tmp_path, folder, *keys), full_model(folder)
    put_action_tokens_into_the_vocabulary(full, policy)
    batch = make_batch(policy, window)
    with torch.no_grad():
        received = read(policy, batch)
        expected = expected_readout(
            full, family, policy, batch, interleaved=interleaved, attention=attention
        )
    assert received.shape == (3, window, COUNT, 32)
    assert (received - expected).abs().max() <= 1e-5 * expected.abs().max()


def rope_index(
    full, ids: torch.Tensor, grids: list[tuple[int, int]], mask: torch.Tensor | None
) -> torch.Tensor:
    """Positions (3 S L) as Qwen2.5-VL's own model has them: images of rows and columns stand where
    <image> does.

    It takes image tokens that touch for one image, so every second image is called a film, of one
    picture.
    """
    kinds = torch.zeros_like(ids)
    for i, row in enumerate(ids):
        places = (row == IMAGE).nonzero().flatten()
        which = torch.repeat_interleave(
            torch.arange(len(grids)), torch.tensor([r * c for r, c in grids])
        )
        kinds[i, places] = 1 + which % 2
    sizes = torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in grids])
    images, films = sizes[::2].repeat(len(ids), 1), sizes[1::2].repeat(len(ids), 1)
    positions, _ = full.model.get_rope_index(ids, kinds, images, films, attention_mask=mask)
    return positions


@pytest.mark.parametrize("grids", [[(2, 3)], [(4, 2), (3, 3)], [(1, 5), (5, 1), (2, 2), (1, 1)]])
def test_positions_of_rows_and_columns_are_transformers_own(grids, folder_of):
    images = [IMAGE] * sum(rows * columns for rows, columns in grids)
    ids = torch.tensor([[1, 9, *images, 10, 11, 12], [1, *images, 10, 0, 0, 0]])
    mask = ids != 0
    places = torch.cat([token_grid(rows, columns) for rows, columns in grids])
    grid = torch.full((*ids.shape, 2), -1)
    for i in range(2):
        grid[i, ids[i] == IMAGE] = places
    expected = rope_index(full_model(folder_of("qwen2_5_vl"), random=True), ids, grids, mask)
    assert torch.equal(grid_positions(grid)[:, mask], expected[:, mask])


@torch.no_grad()
@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_readout_with_rows_and_columns_is_what_transformers_computes(
    formulation, folder_of, tmp_path
):
    family, folder = FAMILIES["qwen2_5_vl"], folder_of("qwen2_5_vl")
    keys = (f"action_tokens.formulation={formulation}", "backbone.positions=grid")
    policy, full = build(tmp_path, folder, *keys), full_model(folder)
    put_action_tokens_into_the_vocabulary(full, policy)
    batch = make_batch(policy, 2)
    received = read(policy, batch)
    for b in range(3):
        words = batch.text_ids[b][batch.text_mask[b]].tolist()
        groups = [[0, 1]] if formulation == "interleaved" else [[0], [1]]
        hidden = []
        for frames in groups:
            later = ([IMAGE] * 32 + list(SPARE)) * (len(frames) - 1)
            ids = torch.tensor([words[:2] + [IMAGE] * 32 + words[2:] + list(SPARE) + later])
            index = rope_index(full, ids, [(4, 4)] * 2 * len(frames), None)
            pixels = family.pixels(normalised(batch, b, frames))
            states = full.model(
                input_ids=ids, position_ids=index, use_cache=False, **pixels
            ).last_hidden_state[0]
            hidden.append(states[torch.isin(ids[0], torch.tensor(SPARE))])
        expected = torch.cat(hidden).view(2, COUNT, -1)
        assert (received[b] - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (received - read(build(tmp_path, folder, keys[0]), batch)).abs().max() > 1e-3


def test_rows_and_columns_are_refused_where_there_are_none(folder_of):
    with pytest.raises(
        ConfigError, match=r"backbone\.positions: .* is a 'llava', .*; set it to \"index\""
    ) as caught:
        HuggingFaceBackbone(BackboneConfig(str(folder_of("llava")), positions="grid"))
    one_line_of(caught)
    backbone = HuggingFaceBackbone(BackboneConfig(str(folder_of("qwen2_5_vl")), positions="grid"))
    with pytest.raises(
        ConfigError, match=r"backbone\.positions: .* give no rows and columns"
    ) as caught:
        backbone(backbone_checks.sequence(32, 2))
    one_line_of(caught)
    with pytest.raises(
        ConfigError, match=r"gives tokens places that a head does not know"
    ) as caught:
        backbone.remember(backbone_checks.sequence(32, 2))
    one_line_of(caught)


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
    theirs = (
        full.model.language_model
        if hasattr(full.model, "language_model")
        else full.model.text_model
    )
    expected = theirs(inputs_embeds=tokens, attention_mask=mask, output_hidden_states=True)
    assert len(memory.hidden_states) == 3
    torch.testing.assert_close(memory.tokens, expected.last_hidden_state, rtol=1e-5, atol=1e-5)
    for received, states in zip(
        memory.hidden_states[:-1], expected.hidden_states[:-1], strict=True
    ):
        torch.testing.assert_close(received, states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        theirs.norm(memory.hidden_states[-1]), memory.tokens, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(memory.tokens, backbone(memory.sequence), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_scores_of_words_are_transformers_own(family, folder_of):
    folder = folder_of(family.name)
    encoder = HuggingFaceText(TextConfig(str(folder), PROMPT, output=True))
    encoder.load_pretrained(Pretrained(str(folder)))
    full, tokens = full_model(folder), normal(2, 6, 32, seed=5)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    if family.name == "paligemma2":
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    expected = full(inputs_embeds=tokens, attention_mask=mask, output_hidden_states=True)
    torch.testing.assert_close(
        encoder.logits(expected.hidden_states[-1]), expected.logits, rtol=1e-5, atol=1e-5
    )
    assert (encoder.output is None) == (family.name != "llava")


def test_an_output_layer_of_its_own_must_be_asked_for(folder_of):
    encoder = build_text(folder_of("llava"))
    assert list(encoder.state_dict()) == ["embedding.weight"]
    with pytest.raises(
        ConfigError, match=r"text_encoder\.output: .* is not its token embedding; set output"
    ) as caught:
        encoder.logits(torch.zeros(1, 32))
    one_line_of(caught)


def test_an_output_layer_of_its_own_is_loaded_strictly_and_published(folder_of, tmp_path):
    folder = folder_of("llava")
    policy = build(tmp_path, folder, "text_encoder.output=true")
    assert list(policy.text_encoder.state_dict()) == ["embedding.weight", "output.weight"]
    export_folder(policy, tmp_path / "export")
    before, after = full_model(folder).state_dict(), full_model(tmp_path / "export").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    headless = copy_with(
        folder, tmp_path / "headless", lambda tensors: tensors.pop("language_model.lm_head.weight")
    )
    with pytest.raises(ConfigError, match=r"missing: lm_head\.weight") as caught:
        build(
            tmp_path,
            folder,
            "text_encoder.output=true",
            f"text_encoder.pretrained={headless}",
            pretrained=False,
        )
    one_line_of(caught)


# --------------------------------------------------------------------------------- what layers keep


def remembering(model: str, folder_of, *, recomputed: bool = False) -> HuggingFaceBackbone:
    torch.manual_seed(0)
    build_backbone = recomputing_backbone if recomputed else HuggingFaceBackbone
    return build_backbone(BackboneConfig(str(folder_of(model)))).train()


@pytest.mark.parametrize("model", ["llava", "paligemma", "qwen2_5_vl", "internvl"])
def test_layers_are_those_of_the_configuration(model, folder_of):
    backbone = remembering(model, folder_of)
    assert backbone.layer_spec == LayerSpec(depth=2, heads=4, key_heads=2, head_width=8)
    assert len(backbone.blocks) == 2
    vision = build_vision(folder_of(model))
    assert len(vision.blocks) == (3 if model == "llava" else 2)
    assert all(any(block is module for module in vision.modules()) for block in vision.blocks)


@pytest.mark.parametrize("model", ["llava", "paligemma", "internvl"])
def test_gradients_through_keys_and_values_are_the_same_with_gradient_checkpointing(
    model, folder_of
):
    """A head that attends to every layer sends gradients into the middle of each block, later
    tokens through both.
    """
    gradients = []
    for recomputed in (False, True):
        backbone = remembering(model, folder_of, recomputed=recomputed)
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


@pytest.mark.parametrize("recomputed", [False, True])
def test_layers_are_recorded_once_and_freed_with_their_memory(recomputed, folder_of):
    """Checkpointed blocks hold what they need to run again: were the record among it, no memory was
    ever freed.
    """
    backbone = remembering("llava", folder_of, recomputed=recomputed)
    runs = []
    for block in backbone.blocks:
        block.self_attn.register_forward_hook(lambda *_: runs.append(1))
    memory = backbone.remember(backbone_checks.sequence(32, 2))
    kept = [weakref.ref(x) for x in (*memory.keys, *memory.hidden_states)]
    keys = [x.detach().clone() for x in memory.keys]
    memory.keys[0].sum().backward()  # the last layer has no backward pass that would free anything
    assert len(runs) == (3 if recomputed else 2)
    assert len(memory.keys) == len(memory.values) == 2
    assert all(torch.equal(x, same) for x, same in zip(memory.keys, keys, strict=True))
    del memory
    assert not [x for x in kept if x() is not None]


@torch.no_grad()
def test_threads_remember_at_once(folder_of):
    backbone = remembering("paligemma", folder_of).eval()
    sequences = [backbone_checks.sequence(32, window, causal=False) for window in (1, 2, 3, 4)] * 10
    expected = [backbone.remember(sequence) for sequence in sequences]
    with ThreadPoolExecutor(8) as pool:
        received = list(pool.map(backbone.remember, sequences))
    for memory, other in zip(expected, received, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(memory.keys, other.keys, strict=True))
        assert torch.equal(memory.tokens, other.tokens)


def test_a_model_of_which_no_head_can_know_the_attention_keeps_no_layers(folder_of):
    backbone = remembering("paligemma2", folder_of)
    sequence = backbone_checks.sequence(32, 2)
    assert backbone.offers == frozenset()
    assert backbone.layer_spec is None
    assert backbone(sequence).isfinite().all()
    assert backbone.read(sequence).isfinite().all()
    for ask in (
        lambda: backbone.remember(sequence),
        lambda: backbone.rotate(sequence.tokens, sequence.frame),
    ):
        with pytest.raises(
            ConfigError, match=r"backbone\.model: .* caps its scores.*; choose another model"
        ) as caught:
            ask()
        one_line_of(caught)


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
def test_models_that_turn_layers_in_ways_of_their_own_keep_none(text, reason, tmp_path):
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
    one_line_of(caught)


@pytest.mark.parametrize("role", ["vision", "text", "backbone"])
def test_buffers_are_those_of_a_model_that_was_built_whole(role, family, folder_of):
    """Rotary frequencies, positions and scales are in no state dict, and made on no device at
    first.
    """
    folder = folder_of(family.name)
    share, base = build_share(str(folder), role), full_model(folder, random=True).model
    whole = {f"model.{name}": buffer for name, buffer in base.named_buffers()}
    buffers = {share.prefix + name: buffer for name, buffer in share.module.named_buffers()}
    assert all(torch.equal(buffer, whole[name]) for name, buffer in buffers.items())
    rotary = {
        name for name in whole if "inv_freq" in name and ("vis" in name) == (role == "vision")
    }
    assert rotary <= set(buffers) or role == "text"


def test_a_part_holds_its_share_alone(family, folder_of):
    folder = folder_of(family.name)
    shares = [build_share(str(folder), role).publish() for role in ("vision", "text", "backbone")]
    names = [name for share in shares for name in share]
    whole = full_model(folder).state_dict()
    assert sorted(names) == sorted(name for name in whole if not name.startswith("lm_head"))
    assert all(
        tensor.shape == whole[name].shape for share in shares for name, tensor in share.items()
    )


def test_without_pretrained_the_seed_makes_the_weights(folder_of, tmp_path):
    folder = folder_of("smolvlm")
    first, again = (build(tmp_path, folder, pretrained=False) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    published = load_file(folder / "model.safetensors")
    assert not torch.equal(
        first.text_encoder.embedding.weight, published["model.text_model.embed_tokens.weight"]
    )
    spread = first.text_encoder.embedding.weight[1:].std()
    assert 0.018 < spread < 0.022


def test_parts_are_made_on_the_cpu_whatever_the_default_device(folder_of):
    """Core makes a policy while the device that it trains on is the default, and moves it there."""
    folder = str(folder_of("smolvlm"))
    with torch.device("meta"):
        parts = (
            build_vision(folder),
            HuggingFaceText(TextConfig(folder, PROMPT)),
            HuggingFaceBackbone(BackboneConfig(folder)),
        )
        weights = Pretrained(folder)
        for part in parts:
            part.load_pretrained(weights)
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


def test_weights_have_the_default_type(folder_of):
    torch.set_default_dtype(torch.bfloat16)
    try:
        part = HuggingFaceBackbone(BackboneConfig(str(folder_of("llava"))))
        part.load_pretrained(Pretrained(part.source))
    finally:
        torch.set_default_dtype(torch.float32)
    assert {weight.dtype for weight in part.parameters()} == {torch.bfloat16}
    assert part.describe()["text_config"]["dtype"] == "bfloat16"


# ----------------------------------------------------------------------------------------- training

TRAINING = {
    "full": (),
    "frozen": ("vision_encoder.train=false", "text_encoder.train=false", "backbone.train=false"),
    "lora": ("vision_encoder.train=lora", "backbone.train=lora", "backbone.lora_rank=4"),
}


def should_train(name: str, training: str, family: Family) -> bool:
    """What a recipe says of a weight, without asking the policy."""
    part = name.partition(".")[0]
    if part in ("action_tokens", "policy_head"):
        return True
    if training == "frozen" or any(unused in name for unused in family.unused):
        return False
    return training == "full" or part == "text_encoder" or ".lora_" in name


@pytest.mark.parametrize(
    ("training", "model"),
    [
        *(("full", model) for model in ("llava", "paligemma", "qwen2_5_vl", "smolvlm", "internvl")),
        *(("lora", model) for model in ("llava", "paligemma", "qwen2_5_vl")),
        ("frozen", "smolvlm"),
    ],
)
def test_one_batch_is_learned_by_the_weights_that_train(training, model, folder_of, tmp_path):
    family = FAMILIES[model]
    keys = (
        f"action_tokens.attention={family.attention}",
        "policy_head.hidden_size=64",
        "policy_head.mlp=[64]",
    )
    policy = build(tmp_path, folder_of(family.name), *TRAINING[training], *keys)
    batch, before = (
        make_batch(policy, 2),
        {name: x.clone() for name, x in policy.named_parameters()},
    )
    trained = [x for x in policy.train().parameters() if x.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=1e-2), []
    for _ in range(100 if training == "frozen" else 30):
        losses.append(policy(batch, generator())["total"])
        losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.3 * losses[0]
    expected = {name for name in before if should_train(name, training, family)}
    assert {
        name for name, x in policy.named_parameters() if not torch.equal(x, before[name])
    } == expected
    assert {name for name, x in policy.named_parameters() if x.requires_grad} == expected


def test_weights_behind_the_tokens_do_not_train(folder_of):
    part = HuggingFaceVision(VisionConfig(str(folder_of("llava"))), cameras=CAMERAS)
    resting = {name for name, weight in part.named_parameters() if not weight.requires_grad}
    assert len(resting) == 18  # a layer of 16, and the norm behind it
    assert all(any(unused in name for unused in FAMILIES["llava"].unused) for name in resting)
    part.load_pretrained(Pretrained(part.source))
    assert resting == {name for name, weight in part.named_parameters() if not weight.requires_grad}


@pytest.mark.parametrize("model", ["llava", "qwen2_5_vl", "smolvlm"])
def test_gradient_checkpointing_changes_no_gradient(model, folder_of, tmp_path):
    gradients = []
    for checkpointing in ("false", "true"):
        keys = [
            f"{part}.gradient_checkpointing={checkpointing}"
            for part in ("backbone", "vision_encoder")
        ]
        policy = build(tmp_path, folder_of(model), *keys).train()
        policy(make_batch(policy, 2), generator())["total"].backward()
        gradients.append(
            {name: x.grad for name, x in policy.named_parameters() if x.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


# -------------------------------------------------------------------------------- weights of others


def parts_of(policy: Policy):
    return policy.vision_encoder, policy.text_encoder, policy.backbone


def test_what_was_loaded_comes_back_the_same(family, folder_of, tmp_path):
    folder = folder_of(family.name)
    export_folder(build(tmp_path, folder), tmp_path / "export")
    before, after = full_model(folder), full_model(tmp_path / "export")
    assert type(after) is type(before)
    written, given = after.model.state_dict(), before.model.state_dict()
    assert written.keys() == given.keys()
    assert all(torch.equal(tensor, given[name]) for name, tensor in written.items())
    tied = after.lm_head.weight.data_ptr() == after.get_input_embeddings().weight.data_ptr()
    assert tied == (family.name != "llava")
    again = build(tmp_path, tmp_path / "export", f"text_encoder.model={folder}")
    state = build(tmp_path, folder).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


def test_merged_adapters_are_published_as_weights(folder_of, tmp_path):
    folder = folder_of("smolvlm")
    policy = build(tmp_path, folder, "backbone.train=lora")
    for name, weight in policy.backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    batch = make_batch(policy, 2)
    with torch.no_grad():
        expected = read(policy, batch)
        export_folder(policy, tmp_path / "export")
        again = build(
            tmp_path,
            tmp_path / "export",
            f"text_encoder.model={folder}",
            f"vision_encoder.model={folder}",
        )
        torch.testing.assert_close(read(again, batch), expected, atol=1e-5, rtol=1e-5)


def test_weights_are_loaded_once_for_three_parts_and_belong_to_one_policy(
    folder_of, tmp_path, monkeypatch
):
    folder, loaded = folder_of("smolvlm"), []
    load = transformers.PreTrainedModel.from_pretrained.__func__

    def counted(kind, *words, **more):
        loaded.append(kind.__name__)
        return load(kind, *words, **more)

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(counted))
    first = build(tmp_path, folder)
    assert loaded == ["SmolVLMForConditionalGeneration"]
    second = build(tmp_path, folder)
    assert len(loaded) == 2
    kept = [weight.clone() for weight in second.parameters()]
    with torch.no_grad():
        for weight in first.parameters():
            weight.fill_(7.0)
    assert all(
        torch.equal(weight, old) for weight, old in zip(second.parameters(), kept, strict=True)
    )
    published = load_file(folder / "model.safetensors")
    assert not any((tensor == 7.0).all() for tensor in published.values())


def copy_with(folder: Path, target: Path, change: Callable[[dict], None]) -> Path:
    """A copy of a model's folder with other tensors in it."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def load(part: str, folder: Path, weights: Path, tmp_path: Path) -> Policy:
    return build(tmp_path, folder, f"{part}.pretrained={weights}", pretrained=False)


def one_line_of(caught: pytest.ExceptionInfo) -> str:
    """What a reader sees: one line."""
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_do_not_fit_are_all_listed(folder_of, tmp_path):
    def damage(tensors):
        tensors["model.text_model.norm.bias"] = tensors.pop("model.text_model.norm.weight")
        tensors["model.connector.modality_projection.proj.weight"] = torch.zeros(3, 3)

    folder = folder_of("smolvlm")
    with pytest.raises(ConfigError) as caught:
        load("backbone", folder, copy_with(folder, tmp_path / "damaged", damage), tmp_path)
    assert one_line_of(caught) == (
        f"backbone.pretrained: '{tmp_path / 'damaged'}' does not fit; missing: model.text_model.norm.weight; "
        "unexpected: model.text_model.norm.bias; "
        "misshapen: model.connector.modality_projection.proj.weight (3, 3) instead of (32, 128)"
    )


def test_weights_of_another_model_do_not_fit(folder_of, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load("vision_encoder", folder_of("llava"), folder_of("smolvlm"), tmp_path)
    assert "missing: model.vision_tower." in one_line_of(caught)
    assert "unexpected: model.vision_model." in one_line_of(caught)


def test_an_output_layer_may_be_missing(folder_of, tmp_path):
    folder = folder_of("llava")

    def drop(tensors):
        assert [tensors.pop(name) for name in list(tensors) if "lm_head" in name]

    weights = copy_with(folder, tmp_path / "headless", drop)
    published = load("backbone", folder, weights, tmp_path).backbone.publish()
    state = full_model(folder).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in published.items())


class Exploit:
    def __reduce__(self):
        return print, ("exploited",)


def test_pickles_that_run_code_are_refused(folder_of, tmp_path, capsys):
    folder = copy_with(folder_of("smolvlm"), tmp_path / "evil", lambda tensors: None)
    (folder / "model.safetensors").unlink()
    torch.save(
        {"model.text_model.norm.weight": Exploit()},
        folder / "pytorch_model.bin",
        pickle_module=pickle,
    )
    with pytest.raises(
        ConfigError, match=r"backbone\.pretrained: transformers cannot load"
    ) as caught:
        load("backbone", folder, folder, tmp_path)
    one_line_of(caught)
    assert "exploited" not in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["nowhere", "nobody/nothing", "file"])
def test_a_model_that_is_not_there_is_named(missing, tmp_path):
    (tmp_path / "file").write_text("no model")
    name = str(tmp_path / missing) if missing != "nobody/nothing" else missing
    with pytest.raises(
        ConfigError, match=f"text_encoder.model: '{name}' is no folder of a model"
    ) as caught:
        build(tmp_path, name)
    one_line_of(caught)


def test_weights_that_are_not_there_are_named(folder_of, tmp_path):
    folder = save_model(tmp_path / "bare", FAMILIES["smolvlm"].config, weights=False)
    with pytest.raises(
        ConfigError, match=f"vision_encoder.pretrained: transformers cannot load '{folder}'"
    ) as caught:
        load("vision_encoder", folder, folder, tmp_path)
    one_line_of(caught)
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        load("vision_encoder", folder, folder_of("smolvlm") / "model.safetensors", tmp_path)


BERT = {**LANGUAGE, "model_type": "bert"}
MODELS = {
    "no vision": (BERT, "is a 'bert', which is no vision-language model"),
    "images among the words": (
        {"model_type": "git"},
        "is a GitForCausalLM and has no get_image_features",
    ),
    "an encoder and a decoder": (
        {"model_type": "florence2"},
        "asks for more than embeddings .*encoder_outputs",
    ),
    "layers that see": (
        {"model_type": "qwen3_vl"},
        "asks for more than embeddings .*deepstack_visual_embeds",
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_models_of_other_pieces_are_refused(model, tmp_path):
    config, reason = MODELS[model]
    folder = save_model(tmp_path / "model", config, weights=False)
    with pytest.raises(ConfigError, match=rf"backbone.model: .*{reason}") as caught:
        HuggingFaceBackbone(BackboneConfig(str(folder)))
    one_line_of(caught)


def test_a_model_that_sees_by_more_than_pixels_is_refused(tmp_path):
    config = {**FAMILIES["llava"].config, "model_type": "llava_next"}
    folder = save_model(tmp_path / "model", config, weights=False)
    with pytest.raises(
        ConfigError,
        match=r"vision_encoder\.model: a LlavaNextModel sees by pixel_values, image_sizes",
    ):
        build_vision(folder)


def test_patches_of_unknown_size_are_refused():
    class Model:
        def get_image_features(self, pixel_values, image_grid_thw=None): ...

    vision = SimpleNamespace(patch_size=14, spatial_merge_size=2)
    with pytest.raises(ConfigError, match=r"a Model takes patches, .* of what temporal_patch_size"):
        arrangement(Model(), SimpleNamespace(vision_config=vision))


def test_without_transformers_the_extra_is_named(folder_of, tmp_path, monkeypatch):
    folder = folder_of("smolvlm")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'joinery\[vlm\]'") as caught:
        build(tmp_path, folder)
    one_line_of(caught)


# -------------------------------------------------------------------------------------------- words


def build_text(folder, prompt=PROMPT) -> HuggingFaceText:
    return HuggingFaceText(TextConfig(str(folder), prompt))


def words_of(encoder: HuggingFaceText, instruction="lift") -> list[str]:
    return encoder.tokenizer.convert_ids_to_tokens(encoder.tokenize(instruction))


@pytest.mark.parametrize(
    ("prompt", "prefix", "words"),
    [
        (PROMPT, 2, ["<s>", "<fence>", "<fence>", "lift"]),
        ("{images}{instruction}", 0, ["lift"]),
        ("<s>{instruction}</s>", 0, ["<s>", "lift", "</s>"]),
        (
            "<s>push the{images}<fence>in {instruction} up",
            3,
            ["<s>", "push", "the", "<fence>", "in", "lift", "up"],
        ),
    ],
)
def test_prompts_become_ids_with_nothing_added(prompt, prefix, words, folder_of):
    encoder = build_text(folder_of("smolvlm"), prompt)
    assert encoder.prefix == prefix
    assert words_of(encoder) == words


@pytest.mark.parametrize("legacy", [True, False])
def test_words_around_the_images_are_those_of_the_models_processor(legacy, folder_of):
    """SentencePiece puts a space before a text; the processor's text goes on behind the image."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "\u2581",
        *dict.fromkeys("USER:lift \n"),
        "US",
        "\u2581US",
        "\u2581l",
    ]
    merges = [("U", "S"), ("\u2581", "US"), ("\u2581", "l")]
    table = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = transformers.LlamaTokenizer(vocab=table, merges=merges, legacy=legacy)
    tokenizer.add_tokens([transformers.AddedToken("<image>", normalized=False, special=True)])
    expected = [1, *tokenizer("USER: <image>\nlift", add_special_tokens=False)["input_ids"]]
    encoder = build_text(folder_of("smolvlm"), "<s> USER: {images}\n{instruction}")
    tokenizer.add_tokens([transformers.AddedToken("{images}", normalized=False, special=True)])
    encoder.tokenizer, encoder.marker = tokenizer, tokenizer.convert_tokens_to_ids("{images}")
    received = encoder._ids("lift")
    assert [
        tokenizer.convert_tokens_to_ids("<image>") if i == encoder.marker else i for i in received
    ] == expected


@pytest.mark.parametrize(
    ("prompt", "mistake"),
    [
        ("{images}", "must hold {instruction} once"),
        ("{instruction}{images}", "before it {images} at most once"),
        ("{images}{images}{instruction}", "before it {images} at most once"),
        ("{instruction} or {instruction}", "must hold {instruction} once"),
        ("{image}{instruction}", "knows {images} and {instruction}, got {image}"),
    ],
)
def test_a_bad_prompt_is_a_mistake_of_the_recipe(prompt, mistake, folder_of, tmp_path):
    with pytest.raises(ConfigError) as caught:
        build(tmp_path, folder_of("smolvlm"), f"text_encoder.prompt={prompt}")
    assert "text_encoder: prompt " in one_line_of(caught)
    assert mistake in one_line_of(caught)


def test_a_token_without_a_row_is_refused(folder_of, tmp_path):
    """PaliGemma's image token lies behind its vocabulary."""
    config = {
        **FAMILIES["smolvlm"].config,
        "text_config": {**LANGUAGE, "model_type": "llama", "vocab_size": 10},
    }
    folder = save_model(tmp_path / "few", config, weights=False)
    assert build_text(folder, "<image>{images}<fence>{instruction}").prefix == 1
    with pytest.raises(
        ConfigError, match=r"text_encoder\.prompt: 'the' has no row in the embedding of 10 words"
    ):
        build_text(folder, "{images}the {instruction}")
    with pytest.raises(DataError, match="has a token that is no word of the model"):
        build_text(folder).tokenize("push the block")


@pytest.mark.parametrize("instruction", ["", "  "])
def test_an_empty_instruction_is_refused(instruction, folder_of):
    with pytest.raises(DataError, match="is empty"):
        build_text(folder_of("smolvlm")).tokenize(instruction)


def test_loader_threads_tokenize_at_once(folder_of):
    encoder = build_text(folder_of("smolvlm"))
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(encoder.tokenize, INSTRUCTIONS * 50))
    assert rows == [encoder.tokenize(instruction) for instruction in INSTRUCTIONS] * 50


def test_an_instruction_cannot_move_the_images(folder_of):
    with pytest.raises(DataError, match="no word of the model"):
        build_text(folder_of("smolvlm")).tokenize("lift {images}")


def test_a_model_without_tokenizer_is_named(tmp_path, folder_of):
    (tmp_path / "config.json").write_bytes((folder_of("smolvlm") / "config.json").read_bytes())
    with pytest.raises(
        ConfigError, match=f"text_encoder.model: '{tmp_path}' has no tokenizer"
    ) as caught:
        build_text(tmp_path)
    one_line_of(caught)


# ------------------------------------------------------------------------------------------- pixels


def build_vision(folder, cameras=CAMERAS, **keys) -> HuggingFaceVision:
    return HuggingFaceVision(VisionConfig(str(folder), **keys), cameras=cameras)


def test_patches_are_laid_out_as_qwens_processor_does():
    pixels = torch.randn(3, 3, 24, 40)
    expected = as_qwens_processor_does(pixels)
    received = as_patches(pixels, patch=4, merge=2, frames=2)
    assert torch.equal(received["pixel_values"], expected["pixel_values"])
    assert torch.equal(received["image_grid_thw"], expected["image_grid_thw"])


def test_statistics_come_from_the_recipe_or_the_folder(folder_of, tmp_path):
    folder = folder_of("smolvlm")
    assert build_vision(folder).mean.flatten().tolist() == pytest.approx(MEAN)
    assert build_vision(folder, std=(1.0, 2.0, 3.0)).std.flatten().tolist() == [1.0, 2.0, 3.0]
    bare = copy_with(folder, tmp_path / "bare", lambda tensors: None)
    (bare / "preprocessor_config.json").unlink()
    assert build_vision(bare).mean.flatten().tolist() == [0.5, 0.5, 0.5]
    nested = {"image_processor": {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}}
    (bare / "processor_config.json").write_text(json.dumps(nested))
    part = build_vision(bare)
    assert part.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert part.std.dtype == torch.float32
    with pytest.raises(ConfigError, match=r"'nobody/nothing'; set vision_encoder\.mean and std"):
        statistics(None, None, "nobody/nothing")
    assert statistics(MEAN, STD, "nobody/nothing") == (MEAN, STD)


@torch.no_grad()
def test_an_image_of_zeros_keeps_its_tokens(folder_of):
    """Where the mean is 0, a black frame is nothing but zeros, which Idefics3 takes for padding."""
    part = build_vision(folder_of("idefics3"), mean=(0.0, 0.0, 0.0)).eval()
    frames = {name: torch.zeros(1, 2, *shape, dtype=torch.uint8) for name, shape in CAMERAS.items()}
    tokens = part(frames, TokenGroup(torch.zeros(1, 1, 1))).tokens
    assert tokens.shape == (1, 2, 8, 32)
    assert tokens.isfinite().all()


@torch.no_grad()
def test_images_are_resized_without_overshooting(folder_of):
    part = build_vision(folder_of("smolvlm"))
    edge = torch.zeros(1, 3, 48, 64, dtype=torch.uint8)
    edge[..., 32:] = 255
    resized = part._resize(edge)
    assert resized.shape == (1, 3, SIZE, SIZE)
    assert resized.min() == 0
    assert resized.max() == 255
    same = torch.randint(256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    assert torch.equal(part._resize(same), same.float())


@pytest.mark.parametrize(
    ("model", "size", "mistake"),
    [
        ("smolvlm", 36, "36 is no multiple of this model's 8"),
        ("qwen2_5_vl", 36, "36 is no multiple of this model's 8"),
        ("llava", 64, "does not take images of 64 x 64 pixels"),
        (
            "smolvlm",
            24,
            "does not take images of 24 x 24 pixels",
        ),  # an odd number of patches cannot be shuffled
    ],
)
def test_an_image_size_that_does_not_fit_is_refused(model, size, mistake, folder_of):
    with pytest.raises(ConfigError, match=rf"vision_encoder\.image_size: .*{mistake}") as caught:
        build_vision(folder_of(model), image_size=size)
    one_line_of(caught)


def test_cameras_must_have_three_colours(folder_of):
    with pytest.raises(ConfigError, match=r"data\.cameras: .*'depth' has 1 channels"):
        build_vision(folder_of("smolvlm"), cameras={"depth": (1, 8, 8), **CAMERAS})


# --------------------------------------------------------------------------------------- the recipe


def test_parts_of_other_widths_join(folder_of, tmp_path):
    """SmolVLM sees, and the rest learns from scratch."""
    text = """
[data]
path = "unused.zarr"
[vision_encoder]
name = "huggingface"
model = "smolvlm"
pretrained = true
train = false
[text_encoder]
name = "sentencepiece"
[backbone]
name = "transformer"
width = 24
depth = 1
heads = 4
[action_tokens]
name = "learned"
[policy_head]
name = "lstm"
"""
    (tmp_path / "recipe.toml").write_text(text)
    (tmp_path / "smolvlm").symlink_to(folder_of("smolvlm"))
    recipe = load_recipe(tmp_path / "recipe.toml", ["data.window=2"], load_plugins())
    policy = build_policy(
        recipe, CAMERAS, ActionSpec(window=2, horizon=3, dim=4, binary=(3,)), proprio_dim=0
    )
    assert read(policy, make_batch(policy, 2)).shape == (3, 2, 1, 24)


def test_a_folder_is_relative_to_the_recipe(folder_of, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(folder_of("smolvlm"))
    monkeypatch.chdir("/")
    policy = build(tmp_path, "models/mine")
    assert {part.source for part in parts_of(policy)} == {str(tmp_path / "models" / "mine")}


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
