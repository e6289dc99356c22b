"""Masks and positions, compared with the rule token by token in plain Python."""

import torch
from hypothesis import given, strategies as st

from core import TokenSequence, attention_mask, token_positions
from core.contracts.attention import blocks_of, make_memory


@st.composite
def sequences(draw, count=None, masked=None):
    """Draw labels of two packed sequences: frames in order, padding last."""
    length = count or draw(st.integers(1, 6))

    def rows(values):
        return torch.tensor([[draw(values) for _ in range(length)] for _ in range(2)])

    real = torch.tensor(
        [[i < n for i in range(length)] for n in (length, draw(st.integers(1, length)))]
    )
    frame = rows(st.integers(0, 2)).sort(dim=1).values
    return TokenSequence(
        tokens=torch.zeros(2, length, 1),
        mask=draw(st.sampled_from([None, real])) if masked is None else real,
        frame=frame,
        kind=torch.zeros_like(frame),
        readout=torch.zeros(2, 1, 0, dtype=torch.int64),
        block=draw(st.sampled_from([None, rows(st.integers(0, 3))])),
        private=draw(st.sampled_from([None, rows(st.booleans())])),
    )


def is_real(sequence, s, j):
    return sequence.mask is None or bool(sequence.mask[s, j])


def can_ever_see(row, i, column, j, s):
    """Whether token i of `row` can see token j of `column`, whatever their blocks."""
    frame_i, frame_j = int(row.frame[s, i]), int(column.frame[s, j])
    private = column.private is not None and bool(column.private[s, j])
    return is_real(column, s, j) and frame_j <= frame_i and (not private or frame_j == frame_i)


def sees(row, i, column, j, s):
    return can_ever_see(row, i, column, j, s) and int(blocks_of(column)[s, j]) <= int(
        blocks_of(row)[s, i]
    )


@given(sequences())
def test_a_mask_is_the_rule(sequence):
    mask, length = attention_mask(sequence), sequence.tokens.shape[1]
    if mask is None:
        assert sequence.block is None
        assert sequence.private is None
        mask = torch.ones(length, length, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    for s in range(2):
        for i in filter(lambda i: is_real(sequence, s, i), range(length)):
            expected = [sees(sequence, i, sequence, j, s) or i == j for j in range(length)]
            assert mask[s, 0, i].tolist() == expected


@given(sequences(), sequences())
def test_the_past_is_seen_by_the_same_rule(past, sequence):
    mask, length = attention_mask(sequence, past), sequence.tokens.shape[1]
    before = past.tokens.shape[1]
    for s in range(2):
        for i in range(length):
            assert mask[s, 0, i, :before].tolist() == [
                sees(sequence, i, past, j, s) for j in range(before)
            ]
            assert mask[s, 0, i].any(), "a row of nothing would be NaN after a softmax"


@given(sequences(), sequences())
def test_a_position_counts_the_real_tokens_before_that_can_ever_be_seen(past, sequence):
    plain = token_positions(sequence)
    behind = token_positions(sequence, past)
    for s in range(2):
        for i in filter(lambda i: is_real(sequence, s, i), range(sequence.tokens.shape[1])):
            before = sum(can_ever_see(sequence, i, sequence, j, s) for j in range(i))
            assert int(plain[s, i]) == (i if sequence.private is None else before)
            earlier = sum(
                can_ever_see(sequence, i, past, j, s) for j in range(past.tokens.shape[1])
            )
            assert int(behind[s, i]) == earlier + before


@given(sequences(), sequences(), sequences())
def test_a_memory_of_two_sequences_is_seen_as_one_after_the_other(first, second, third):
    def memory(sequence, past=None):
        return make_memory(sequence, sequence.tokens, (), (), (sequence.tokens,), past)

    joined = memory(second, memory(first))
    length = first.tokens.shape[1] + second.tokens.shape[1]
    assert (
        joined.tokens.shape[1]
        == joined.hidden_states[0].shape[1]
        == joined.sequence.tokens.shape[1]
        == length
    )
    expected = torch.cat(
        [attention_mask(third, part)[..., : part.tokens.shape[1]] for part in (first, second)],
        dim=-1,
    )
    assert torch.equal(attention_mask(third, joined.sequence)[..., :length], expected)
