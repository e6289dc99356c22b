"""The text encoder: prompts, words, and the output layer."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from core import ConfigError, DataError
from core.policy.publishing import export_folder
from core.testing import checks_for
from core.testing.common import normal
from core.weights import Pretrained
from plugins.vlms.huggingface.text import HuggingFaceText, TextConfig
from tests.plugins.huggingface.families import (
    FAMILIES,
    INSTRUCTIONS,
    LANGUAGE,
    PROMPT,
    SETUP,
    build,
    build_text,
    copy_with,
    full_model,
    run_check,
    save_model,
    single_line,
    transformers,
)

CHECKS = [
    check.name
    for check in checks_for("text_encoder", HuggingFaceText, TextConfig("unused", PROMPT))
]


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("model", ["paligemma", "smolvlm"])
def test_contract(model, name, folder_of):
    config = TextConfig(str(folder_of(model)), PROMPT)
    run_check("text_encoder", HuggingFaceText, config, name, SETUP)


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
    assert "text_encoder: prompt " in single_line(caught)
    assert mistake in single_line(caught)


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
    single_line(caught)


def test_a_tokenizer_without_words_is_refused(tmp_path, folder_of):
    """transformers makes an empty tokenizer for a Qwen2.5-VL without the tokenizer's files."""
    folder = folder_of("qwen2_5_vl")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ConfigError, match="has no words; put the tokenizer's files") as caught:
        build_text(tmp_path)
    single_line(caught)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    assert words_of(build_text(tmp_path)) == words_of(build_text(folder))


def test_unknown_words_are_told(folder_of):
    encoder = build_text(folder_of("smolvlm"))
    assert words_of(encoder, "lift gadget")[-1] == "<unk>"
    assert encoder.tokenize("lift gadget")[-1] == encoder.unknown_id


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
    single_line(caught)


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
    single_line(caught)
