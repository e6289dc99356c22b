"""The last frames of every row, against Python lists; and rows that start a new episode."""

import torch
from hypothesis import given, strategies as st

from core import PastActions, TokenGroup, push_frame
from core.policy.state import PolicyState, add_frame


@given(st.integers(1, 5), st.integers(0, 12), st.data())
def test_frames_move_up_as_in_a_list(capacity, steps, data):
    keep = data.draw(st.one_of(st.none(), st.integers(0, capacity - 1)))
    frames, count = torch.zeros(2, capacity, 1), torch.tensor([0, capacity])
    expected = [[], [0.0] * capacity]
    for step in range(1, steps + 1):
        frames = push_frame(frames, count, torch.full((2, 1, 1), float(step)), keep)
        for row in expected:
            if len(row) == capacity:
                del row[: capacity - (capacity - 1 if keep is None else keep)]
            row.append(float(step))
        count = torch.tensor([len(row) for row in expected])
        for row, received in zip(expected, frames[..., 0].tolist(), strict=True):
            assert received[: len(row)] == row


def test_a_frame_takes_the_type_of_those_before_it():
    frames = push_frame(torch.zeros(1, 2, 1), torch.zeros(1).long(), torch.ones(1, 1, 1).bfloat16())
    assert frames.dtype == torch.float32


def frame(value: float, mask: bool | None = None) -> TokenGroup:
    tokens = torch.full((2, 1, 3, 4), value)
    return TokenGroup(tokens, None if mask is None else torch.full((2, 1, 3), mask))


def test_a_window_knows_its_newest_frame_and_what_was_dropped():
    history = {}
    expected = [(0, True, False), (1, False, False), (2, False, False), (1, False, True)]
    for step, (newest, is_first, is_shifted) in enumerate(expected):
        window = add_frame(history, frame(step), torch.full((2, 1, 5), step * 1.0), 3, keep=1)
        history = window.history
        assert window.newest.tolist() == [newest] * 2
        assert window.is_first.tolist() == [is_first] * 2
        assert window.is_shifted.tolist() == [is_shifted] * 2
        assert window.vision.tokens[:, newest].unique().item() == step
        assert window.proprio[:, newest].unique().item() == step
    assert window.vision.tokens[:, 0].unique().item() == 2  # the one that was kept


def test_past_actions_stay_with_their_frames():
    history = {}
    for step in range(4):
        past = PastActions(torch.full((2, 1, 3), step * 1.0), torch.tensor([[step > 0]] * 2))
        window = add_frame(history, frame(step), None, 3, keep=1, past=past)
        history = window.history
        assert window.past.actions[:, window.newest[0]].unique().item() == step
        assert window.past.known[:, window.newest[0]].tolist() == [step > 0] * 2
    assert window.past.actions[:, 0].unique().item() == 2  # of the one that was kept
    seeds = torch.zeros(2, dtype=torch.int64)
    state = PolicyState(seeds, seeds, history, head={}, memory={})
    emptied = state.reset(torch.tensor([True, False]), state).history
    assert emptied["past_known"].any(dim=1).tolist() == [False, True]


def test_frames_with_and_without_a_mask_share_a_window():
    first = add_frame({}, frame(1.0), None, 2, keep=1)
    second = add_frame(first.history, frame(2.0, mask=False), None, 2, keep=1)
    assert second.vision.mask.tolist() == [[[True] * 3, [False] * 3]] * 2
    assert second.proprio is None


def test_a_window_of_one_frame_without_padding_has_no_mask():
    assert add_frame({}, frame(1.0), None, 1, keep=0).vision.mask is None


def state(value: int) -> PolicyState:
    numbers = torch.full((3,), value)
    return PolicyState(
        seed=numbers,
        step=numbers,
        history={"tokens": torch.full((3, 2), value), "count": numbers},
        head={"total": torch.full((3, 2), float(value))},
        memory={"keys": numbers},
    )


def test_reset_rows_take_the_initial_state_and_the_others_keep_theirs():
    rows = torch.tensor([False, True, False])
    received = state(7).reset(rows, state(0))
    assert received.seed.tolist() == received.step.tolist() == [7, 0, 7]
    assert received.history["count"].tolist() == [7, 0, 7]
    assert received.head["total"].tolist() == [[7.0] * 2, [0.0] * 2, [7.0] * 2]
    assert received.keys == [(7, 7), (0, 0), (7, 7)]


def test_a_state_before_its_first_step_can_be_reset():
    before = PolicyState(torch.ones(3), torch.ones(3), {}, {}, {})
    received = before.reset(torch.ones(3, dtype=torch.bool), state(0))
    assert received.history == received.memory == {}


def test_nothing_that_is_not_finite_is_left_in_a_row_that_was_reset():
    frames = {
        "tokens": torch.full((3, 2, 4), torch.nan),
        "mask": torch.ones(3, 2, dtype=torch.bool),
    }
    memory = {"keys": torch.full((3, 1, 2), torch.inf)}
    broken = PolicyState(torch.ones(3), torch.ones(3), frames, {}, memory)
    received = broken.reset(torch.tensor([False, True, False]), state(0))
    for name, x in {**received.history, **received.memory}.items():
        assert x.dtype == {**frames, **memory}[name].dtype
        assert not x[1].any()
        assert x[[0, 2]].any(dim=-1).all()
