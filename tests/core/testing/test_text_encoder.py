"""Contract tests of text encoders: a sound one passes, each broken one fails its check."""

import pytest
from torch import nn

from core import TextEncoder, TokenGroup
from tests.core.testing.failing import assert_fails, failures


class Text(TextEncoder):
    """Letters, embedded."""

    width = 6

    def __init__(self, config):
        super().__init__()
        self.embedding = nn.Embedding(128, self.width)

    def tokenize(self, instruction):
        return [ord(letter) for letter in instruction]

    def forward(self, ids, mask):
        return TokenGroup(self.embedding(ids), mask)


class TextMixesPadding(Text):
    def forward(self, ids, mask):
        x = self.embedding(ids)
        return TokenGroup(x - x.mean(1, keepdim=True), mask)


class TextDropsMask(Text):
    def forward(self, ids, mask):
        return TokenGroup(self.embedding(ids))


class TextWithoutIds(Text):
    def tokenize(self, instruction):
        return [] if "light" in instruction else super().tokenize(instruction)


BROKEN = [
    (TextMixesPadding, {"padding_is_not_seen"}),
    (TextDropsMask, {"mask_is_passed_on"}),
    (TextWithoutIds, {"tokens_are_ids"}),
]
# What these compute is so wrong that other checks fail as well.
FAIL_OTHERS_TOO = {TextWithoutIds}


def test_a_sound_text_encoder_passes_every_check():
    assert not failures("text_encoder", Text)


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_text_encoder_fails_the_checks_of_its_rule(build, expected):
    assert_fails("text_encoder", build, expected, others_too=build in FAIL_OTHERS_TOO)
