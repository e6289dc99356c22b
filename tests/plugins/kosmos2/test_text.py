"""The text encoder: prompts and ids against transformers' tokenizer, and the scores of words."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core import ConfigError, DataError, TokenSequence, import_library
from core.policy.publishing import export_folder
from core.testing import Setup, checks_for
from core.testing.common import normal
from plugins.text.sentencepiece import SHIPPED
from plugins.vlms.kosmos2 import Kosmos2Text, Kosmos2TextConfig
from plugins.vlms.kosmos2.text import TAGS
from tests.plugins.kosmos2.models import (
    TINY,
    VOCABULARY,
    largest_difference,
    make,
    perturb,
)


@pytest.mark.parametrize("check", checks_for("text_encoder", Kosmos2Text, TINY.text), ids=str)
def test_contract(check):
    check()


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
    assert Setup().text_prefix == make().text_encoder.prefix
