"""Kosmos-2's parts against transformers' own model with the same random weights: states, gradients,
words, names.
"""

import json
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core import (
    ActionSpec,
    Backbone,
    Batch,
    ConfigError,
    ContextSpec,
    DataError,
    TokenKind,
    TokenSequence,
    import_library,
)
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.policy.publishing import export_folder
from core.policy.recomputation import recompute_blocks
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.testing import Given, backbone as backbone_checks, checks_for
from core.testing.common import generator, normal
from core.weights import Pretrained
from plugins.action_tokens.learned import LearnedConfig, LearnedTokens
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
from plugins.vlms.kosmos2.text import TAGS

RECIPE = Path(__file__).parents[2] / "recipes" / "robovlms_kosmos_calvin.toml"
VOCABULARY = 1000 + 2 + len(TAGS)  # of the shipped model of 1,000 pieces
CAMERAS = {"gripper": (3, 28, 28), "static": (3, 40, 40)}
ACTION = ActionSpec(window=2, horizon=3, dim=7, binary=(6,))


@dataclass(frozen=True)
class Size:
    """Of all three parts together."""

    vision: Kosmos2VisionConfig
    text: Kosmos2TextConfig
    backbone: Kosmos2BackboneConfig


def size(width, depth, heads, mlp, clip=(32, 2, 2), image=28, latents=5) -> Size:
    clip_width, clip_depth, clip_heads = clip
    return Size(
        Kosmos2VisionConfig(width, heads, latents, clip_width, clip_depth, clip_heads, image),
        Kosmos2TextConfig(SHIPPED, width=width, vocabulary=VOCABULARY),
        Kosmos2BackboneConfig(width, depth, heads, mlp, dropout=0.0, attention_dropout=0.0),
    )


SIZES = {
    "tiny": size(32, 3, 4, 64),
    "real head": size(
        128, 2, 2, 256, clip=(128, 2, 2), image=42, latents=7
    ),  # heads of 64, as in Kosmos-2
    "full width": size(2048, 1, 32, 8192, clip=(1024, 1, 16), image=28, latents=64),
}
TINY = SIZES["tiny"]


def checkpointed_backbone(config: Kosmos2BackboneConfig) -> Kosmos2Backbone:
    backbone = Kosmos2Backbone(config)
    recompute_blocks(backbone, "backbone")
    return backbone


CHECKS = [
    *checks_for("vision_encoder", Kosmos2Vision, TINY.vision),
    *checks_for("text_encoder", Kosmos2Text, TINY.text),
    *checks_for("backbone", Kosmos2Backbone, TINY.backbone),
    *checks_for("backbone", checkpointed_backbone, TINY.backbone),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_contract(check):
    check()


def make(
    of: Size = TINY, window: int = 2, formulation="policy_head", attention="causal", cameras=CAMERAS
) -> Policy:
    torch.manual_seed(0)
    text, backbone = Kosmos2Text(of.text), Kosmos2Backbone(of.backbone)
    action, tokens = (
        replace(ACTION, window=window),
        LearnedConfig(formulation=formulation, attention=attention),
    )
    context = ContextSpec(width=backbone.width, action_tokens=1)
    return Policy(
        Kosmos2Vision(of.vision, cameras=cameras),
        text,
        {"vision": torch.nn.Identity(), "text": torch.nn.Identity()},
        backbone,
        LearnedTokens(
            tokens, width=backbone.width, action=action, proprio_dim=0, text_prefix=text.prefix
        ),
        LSTMHead(LSTMConfig(layers=2, hidden_size=16, mlp=(8,)), context=context, action=action),
    ).eval()


def perturb(policy: Policy) -> None:
    """Move every weight off its start: norms of one and biases of zero would hide a mistake."""
    for i, weight in enumerate(policy.parameters()):
        generator = torch.Generator().manual_seed(i)
        weight.data += 0.02 * torch.randn(weight.shape, generator=generator)


PARTS = ("vision_encoder", "text_encoder", "backbone")


def reference_model(policy: Policy, folder: Path):
    """transformers' own model with the weights of a policy."""
    transformers = import_library("transformers")
    export_folder(policy, folder / "kosmos2")
    model = transformers.Kosmos2Model.from_pretrained(
        folder / "kosmos2", attn_implementation="eager"
    )
    return model.eval()


def batch_of(
    policy: Policy, instructions=("open the drawer", "push the red block to the left", "stop")
) -> Batch:
    ids = [torch.tensor(policy.text_encoder.tokenize(text)) for text in instructions]
    pad = torch.nn.utils.rnn.pad_sequence
    generator = torch.Generator().manual_seed(1)
    window = policy.policy_head.window
    shape = (len(ids), window)
    actions = torch.rand(*shape, ACTION.horizon, ACTION.dim, generator=generator)
    return Batch(
        images={
            name: torch.randint(256, (*shape, *size), generator=generator, dtype=torch.uint8)
            for name, size in CAMERAS.items()
        },
        instructions=instructions,
        text_ids=pad(ids, batch_first=True),
        text_mask=pad([torch.ones_like(row, dtype=torch.bool) for row in ids], batch_first=True),
        proprio=None,
        actions=actions,
        action_mask=torch.ones(*shape, ACTION.horizon, ACTION.dim, dtype=torch.bool),
    )


def sequence_of(policy: Policy, batch: Batch) -> TokenSequence:
    """What the backbone reads of a batch."""
    text = policy.encode_text(batch.text_ids, batch.text_mask)
    images = policy._encode_images(batch, text, generator())
    return policy.action_tokens.layout(images.projected, text.projected, None, None, generator())


def expected_hidden_states(model, policy: Policy, batch: Batch) -> tuple[Tensor, Tensor]:
    """transformers' hidden states of <s>, images, words, [LRN], padding; the index of [LRN]."""
    rows, ends = [], []
    embed = model.get_input_embeddings()
    window = policy.policy_head.window
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


def largest_difference(received: Tensor, expected: Tensor) -> float:
    """Relative to the largest expected number."""
    difference = (received - expected).detach().abs().max()
    return float(difference / expected.detach().abs().max())


@pytest.mark.parametrize("attention", ["causal", "prefix"])
@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_a_last_layer_for_the_action_tokens_alone_changes_nothing(formulation, attention):
    policy = make(formulation=formulation, attention=attention)
    perturb(policy)
    batch = batch_of(policy)
    gradients = []
    for read in (Backbone.read, Kosmos2Backbone.read):
        policy.zero_grad()
        readout = read(policy.backbone, sequence_of(policy, batch))
        (
            readout * torch.randn(readout.shape, generator=torch.Generator().manual_seed(2))
        ).sum().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
        )
    expected, received = gradients
    assert expected.keys() == received.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        difference = float((received[name] - gradient).abs().max())
        assert difference <= 1e-4 * float(gradient.abs().max()) + 1e-6 * largest, name


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


# ---------------------------------------------------------------------------------------- the words


@pytest.fixture(scope="module")
def unigram(tmp_path_factory) -> Path:
    """A SentencePiece model of Kosmos-2's kind: unigram, with unknown characters."""
    from sentencepiece import SentencePieceTrainer

    prefix = tmp_path_factory.mktemp("unigram") / "pieces"
    corpus = SHIPPED.with_suffix(".txt")
    options = {
        "model_type": "unigram",
        "vocab_size": 500,
        "character_coverage": 0.9995,
        "minloglevel": 2,
    }
    SentencePieceTrainer.train(input=str(corpus), model_prefix=str(prefix), **options)
    return prefix.with_suffix(".model")


def reference_tokenizer(model: Path):
    """transformers' tokenizer of Kosmos-2, from the same SentencePiece model."""
    import_library("transformers")
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    from transformers import AddedToken, XLMRobertaTokenizer

    schema = sentencepiece_model_pb2.ModelProto()
    schema.ParseFromString(model.read_bytes())
    processor = SentencePieceProcessor(model_file=str(model))
    pieces = [
        (processor.id_to_piece(i), processor.get_score(i))
        for i in range(3, processor.get_piece_size())
    ]
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    made = XLMRobertaTokenizer(
        vocab=[*special, *pieces, ("<mask>", 0.0)],
        _spm_precompiled_charsmap=schema.normalizer_spec.precompiled_charsmap,
    )
    made.add_tokens([AddedToken(tag, lstrip=True, rstrip=False, normalized=False) for tag in TAGS])
    return made


SENTENCE = (
    "push pull lift the red green blue block slide open drawer left right tomé ｶﾞ 42 naïve, "
    "can't — 🤖 zzq"
)


def test_a_thousand_prompts_are_tokenised_as_transformers_does(unigram):
    text, generator = Kosmos2Text(replace(TINY.text, model=unigram)), random.Random(0)
    tokenizer = reference_tokenizer(unigram)
    assert len(tokenizer) == 500 + 2 + len(TAGS)
    for _ in range(1000):
        gap = generator.choice([" ", "  ", " </s> ", "<phrase>", " <patch_index_0007>"])
        sentence = gap.join(generator.choices(SENTENCE.split(), k=generator.randint(1, 12)))
        prompt = f"<s><grounding>An image of a robot {sentence}"
        assert list(text.tokenize(sentence)) == tokenizer.encode(
            prompt, add_special_tokens=False
        ), sentence


def test_images_stand_behind_what_the_prompt_puts_before_them():
    assert make().text_encoder.prefix == 1
    image = Kosmos2Text(replace(TINY.text, prompt="<s><image>{images}</image>{instruction}"))
    assert image.prefix == 2
    assert Kosmos2Text(replace(TINY.text, prompt="<s>{instruction}")).prefix == 0


@pytest.mark.parametrize(
    "prompt", ["no place", "{instruction}{images}", "{images}{images}{instruction}"]
)
def test_a_prompt_without_a_place_is_refused(prompt):
    with pytest.raises(ValueError, match="prompt must hold"):
        Kosmos2TextConfig(SHIPPED, prompt=prompt)


@pytest.mark.parametrize(
    ("instruction", "message"),
    [("  ", "is empty"), ("go " * 300, "shorten"), ("\ud800", "Unicode")],
)
def test_instructions_that_cannot_be_embedded_are_refused(instruction, message):
    with pytest.raises(DataError, match=message):
        make().text_encoder.tokenize(instruction)


def test_a_table_smaller_than_the_vocabulary_is_refused():
    with pytest.raises(ConfigError, match=f"needs {VOCABULARY} rows, got 1000"):
        Kosmos2Text(replace(TINY.text, vocabulary=1000))


def test_a_missing_model_says_where_it_is_to_be_had(tmp_path):
    with pytest.raises(DataError, match=r"sentencepiece\.bpe\.model in microsoft"):
        Kosmos2Text(replace(TINY.text, model=tmp_path / "none.model"))


# -------------------------------------------------------------------------------------- the weights


def load(policy: Policy, source: Path, parts=PARTS) -> None:
    weights = Pretrained(str(source))
    for part in parts:
        getattr(policy, part).load_pretrained(weights)


def hub_folder(folder: Path, **options) -> Path:
    """What transformers itself writes, with random weights."""
    transformers = import_library("transformers")
    torch.manual_seed(7)
    export_folder(make(), folder / "ours")
    config = json.loads((folder / "ours" / "config.json").read_text())
    model = transformers.Kosmos2ForConditionalGeneration(transformers.Kosmos2Config(**config))
    model.save_pretrained(folder / "hub", **options)
    return folder / "hub"


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "50KB"}], ids=["one file", "shards"])
def test_a_folder_of_the_hub_comes_back_bit_for_bit(options, tmp_path):
    transformers = import_library("transformers")
    source = hub_folder(tmp_path, **options)
    assert (len(list(source.glob("*.safetensors"))) > 1) == bool(options)
    policy = make()
    load(policy, source)
    back = tmp_path / "back"
    export_folder(policy, back)
    before = transformers.Kosmos2ForConditionalGeneration.from_pretrained(source).state_dict()
    after = transformers.Kosmos2ForConditionalGeneration.from_pretrained(back).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bin_files_load_too(tmp_path):
    source = hub_folder(tmp_path)
    tensors = load_file(source / "model.safetensors")
    (tmp_path / "bin").mkdir()
    tied = {"text_model.lm_head.weight": tensors["text_model.model.embed_tokens.weight"]}
    torch.save(tensors | tied, tmp_path / "bin" / "pytorch_model.bin")
    policy, other = make(), make()
    load(policy, source)
    load(other, tmp_path / "bin")
    for name, weight in policy.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])


def robovlms(policy: Policy) -> dict[str, Tensor]:
    """The tensors of a RoboVLMs checkpoint."""
    tensors: dict[str, Tensor] = {}
    for part in (*PARTS, "action_tokens", "policy_head"):
        tensors |= getattr(policy, part).publish_checkpoint()
    return tensors


def test_a_robovlms_checkpoint_comes_back_bit_for_bit(tmp_path):
    before = make()
    perturb(before)
    tensors = {name: x.clone() for name, x in robovlms(before).items()}
    assert tensors["model.action_token"].shape == (32,)
    assert "model.act_head.rnn.weight_ih_l1" in tensors
    assert "model.act_head.actions.mlp.2.bias" in tensors
    assert "model.backbone.text_model.model.layers.2.ffn.ffn_layernorm.weight" in tensors
    torch.save({"epoch": 4, "state_dict": tensors}, tmp_path / "policy.ckpt")
    after = make()
    torch.manual_seed(3)
    load(after, tmp_path / "policy.ckpt", (*PARTS, "action_tokens", "policy_head"))
    back = robovlms(after)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(x, tensors[name]) for name, x in back.items())


class Code:
    """A pickle that runs something when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("exploited"),))


def test_a_checkpoint_that_carries_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": robovlms(make()), "hyper_parameters": Code()}, "evil.ckpt")
    with pytest.raises(
        ConfigError, match=r"evil\.ckpt' holds more than weights, and is not loaded"
    ):
        load(make(), Path("evil.ckpt").absolute())
    assert not Path("exploited").exists()


def test_everything_that_does_not_fit_is_listed(tmp_path):
    tensors = load_file(hub_folder(tmp_path) / "model.safetensors")
    tensors["text_model.model.layers.9.ffn.fc1.bias"] = torch.zeros(1)
    tensors["text_model.model.layer_norm.bias"] = torch.zeros(5)
    del tensors["text_model.model.layers.0.self_attn.k_proj.weight"]
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(ConfigError) as caught:
        load(make(), tmp_path / "wrong.safetensors")
    message = str(caught.value)
    assert "missing: text_model.model.layers.0.self_attn.k_proj.weight" in message
    assert "unexpected: text_model.model.layers.9.ffn.fc1.bias" in message
    assert "misshapen: text_model.model.layer_norm.bias (5,) instead of (32,)" in message


def test_what_belongs_to_no_part_is_unexpected(tmp_path):
    tensors = load_file(hub_folder(tmp_path) / "model.safetensors") | {
        "text_model.adapter": torch.zeros(2)
    }
    save_file(tensors, tmp_path / "more.safetensors")
    with pytest.raises(ConfigError, match=r"unexpected: text_model\.adapter"):
        load(make(), tmp_path / "more.safetensors")


# --------------------------------------------------------------------------------------- the policy


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_gradient_checkpointing_changes_no_gradient(formulation):
    gradients = []
    for recomputing in (False, True):
        policy = make(formulation=formulation).train()
        for part in ("vision_encoder", "backbone") if recomputing else ():
            recompute_blocks(getattr(policy, part), part)
        policy(batch_of(policy), generator())["total"].backward()
        gradients.append({name: p.grad for name, p in policy.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_gradients_through_keys_and_values_are_the_same_with_gradient_checkpointing():
    """A head that attends to every layer sends gradients into the middle of each block."""
    gradients = []
    for make_backbone in (Kosmos2Backbone, checkpointed_backbone):
        torch.manual_seed(0)
        backbone = make_backbone(TINY.backbone).train()
        sequence = backbone_checks.sequence(backbone.width, 2, causal=False)
        memory = backbone.remember(sequence)
        parts = [*memory.keys, *memory.values, *memory.hidden_states]
        terms = [(x * normal(*x.shape, seed=i)).sum() for i, x in enumerate(parts)]
        torch.stack(terms).sum().backward()
        gradients.append(
            {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_the_action_token_is_scaled_with_everything_else():
    """RoboVLMs passes [LRN] to Kosmos-2 with the embeddings, all of which are scaled."""
    policy = make(window=1)
    batch = batch_of(policy)
    with torch.no_grad():
        before = policy.context(batch, generator()).readout
        policy.action_tokens.action.mul_(math.sqrt(32))
        sequence = sequence_of(policy, batch)
        torch.testing.assert_close(policy.backbone.read(_unscaled(sequence)), before)


def _unscaled(sequence):
    factor = torch.where(sequence.kind == TokenKind.ACTION, 1 / math.sqrt(32), 1.0)[..., None]
    return replace(sequence, tokens=sequence.tokens * factor)


LAYER = ("attention_norm", "attention.norm", "mlp_norm", "mlp.fc1", "mlp.norm", "mlp.fc2")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def test_names_of_weights_are_those_of_older_checkpoints():
    policy = make()
    modules = (*LAYER, *(f"attention.{name}" for name in PROJECTIONS))
    modules = ("norm", *(f"layers.{i}.{name}" for i in range(3) for name in modules))
    expected = {f"{name}.{kind}" for name in modules for kind in ("weight", "bias")}
    assert set(policy.backbone.state_dict()) == expected
    names = set(policy.vision_encoder.state_dict())
    assert len(names) == 42
    assert {
        "clip.cls_token",
        "clip.blocks.1.attn.qkv.weight",
        "dense.bias",
        "resampler.latents",
    } <= names


def test_scores_of_words_are_transformers_own(tmp_path):
    policy = make()
    perturb(policy)
    transformers = import_library("transformers")
    export_folder(policy, tmp_path / "kosmos2")
    model = transformers.Kosmos2ForConditionalGeneration.from_pretrained(
        tmp_path / "kosmos2"
    ).eval()
    embeddings = normal(2, 5, 32, seed=3)
    with torch.no_grad():
        expected = model.text_model(inputs_embeds=embeddings)
        readout = torch.empty(2, 1, 0, dtype=torch.int64)
        labels = torch.zeros(2, 5, dtype=torch.int64)
        hidden = policy.backbone(TokenSequence(embeddings, None, labels, labels, readout))
        received = policy.text_encoder.logits(hidden)
    assert largest_difference(received, expected.logits) < 1e-5


def test_given_has_what_the_parts_need():
    assert Given().text_prefix == make().text_encoder.prefix
