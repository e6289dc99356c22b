"""All instructions are tokenised before training: refusals, unknown words, texts told apart."""

import re

import pytest

from core.errors import DataError
from core.loading.instructions import doubtful_tokens, tokenize_instructions
from plugins.text.none import NoText, NoTextConfig
from plugins.text.sentencepiece import SentencePieceConfig, SentencePieceEncoder


class Words:
    """A text encoder of a few words; id 0 stands for all others."""

    unknown_id = 0

    def __init__(self, *words):
        self.words = ["<unk>", *words]

    def tokenize(self, instruction):
        ids = [self.words.index(w) if w in self.words else 0 for w in instruction.split()]
        if len(ids) > 4:
            raise DataError(f"the instruction {instruction!r} has {len(ids)} tokens")
        return ids


def test_ids_are_those_of_the_encoder():
    encoder = SentencePieceEncoder(SentencePieceConfig())
    instructions = {"push the red block", "open the drawer"}
    tokens = tokenize_instructions(instructions, encoder)
    assert tokens == {line: encoder.tokenize(line) for line in instructions}
    assert not list(doubtful_tokens(tokens, encoder)), "it falls back to bytes"


def test_all_refused_instructions_are_listed_the_longest_first():
    long = [" ".join(["very"] * count) for count in (5, 7, 6)]
    with pytest.raises(DataError) as caught:
        tokenize_instructions({"open it", *long}, Words("open"))
    counts = re.findall(r"has (\d) tokens", str(caught.value))
    assert counts == ["7", "6", "5"]


def test_many_refused_instructions_are_counted():
    long = {f"put object {number} into the pot" for number in range(20)}
    with pytest.raises(DataError) as caught:
        tokenize_instructions(long, Words())
    lines = str(caught.value).splitlines()
    assert len(lines) == 9
    assert lines[-1] == "12 further instructions are refused by the text encoder"


def test_the_share_of_unknown_tokens_is_told():
    encoder = Words("open", "the", "door")
    tokens = tokenize_instructions({"open the door", "wipe the door", "open the box"}, encoder)
    (line,) = doubtful_tokens(tokens, encoder)
    assert "22.2% of the instructions' tokens are unknown to it, in 2 of 3 instructions" in line


def test_instructions_of_unknown_words_alone_are_refused():
    with pytest.raises(DataError, match="it knows no word by which the 2 instructions differ"):
        tokenize_instructions({"wipe the table", "ouvre the porte"}, Words("the"))
    assert tokenize_instructions({"wipe"}, Words("the")), "one instruction has nothing to tell"


def test_instructions_with_the_same_tokens_are_doubted():
    class Deaf(Words):
        def tokenize(self, instruction):
            return [1]

    tokens = tokenize_instructions({"push", "pull"}, Deaf())
    (line,) = doubtful_tokens(tokens, Deaf())
    assert "gives the 2 different instructions the same tokens" in line
    tokens = tokenize_instructions({"Push", "push "}, Deaf())
    assert not list(doubtful_tokens(tokens, Deaf())), "they are one instruction, written twice"


def test_an_encoder_that_is_to_give_no_tokens_is_not_doubted():
    encoder = NoText(NoTextConfig())
    tokens = tokenize_instructions({"push", "pull"}, encoder)
    assert not list(doubtful_tokens(tokens, encoder))
