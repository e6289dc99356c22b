"""Instructions that are encoded one by one, stacked into a batch."""

import torch

from core import TokenGroup
from core.policy.encoded import EncodedText, stack_text


def encoded(length: int, value: float) -> EncodedText:
    return EncodedText(
        TokenGroup(torch.full((1, length, 3), value)),
        TokenGroup(torch.full((1, length, 2), -value)),
    )


def test_instructions_of_one_length_need_no_mask():
    text = stack_text([encoded(2, 1.0), encoded(2, 2.0)])
    assert text.encoded.mask is text.projected.mask is None
    assert text.encoded.tokens.tolist() == [[[1.0] * 3] * 2, [[2.0] * 3] * 2]
    assert text.projected.tokens.shape == (2, 2, 2)


def test_shorter_instructions_are_padded_on_the_right():
    text = stack_text([encoded(1, 1.0), encoded(3, 2.0)])
    assert text.encoded.mask.tolist() == [[True, False, False], [True, True, True]]
    assert text.encoded.tokens[0, 1:].sum() == 0
    assert text.projected.mask.tolist() == text.encoded.mask.tolist()
    assert text.projected.tokens[0].tolist() == [[-1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]
