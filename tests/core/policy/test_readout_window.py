"""The readouts that a head keeps while it acts."""

import torch

from core import ReadoutWindow


def test_the_newest_frames_are_kept_in_their_order():
    memory = ReadoutWindow(window=3, width=1)
    state = memory.empty(2, torch.zeros(()))
    seen = torch.arange(1.0, 6.0)
    for t, number in enumerate(seen):
        state = memory.push(state, torch.full((2, 1, 1), float(number)))
        kept = seen[max(0, t - 2) : t + 1]
        assert state["readouts"][0, : len(kept), 0].tolist() == kept.tolist()
        assert memory.newest(state, state["readouts"])[:, 0].tolist() == [number, number]


def test_rows_are_filled_one_by_one():
    memory = ReadoutWindow(window=2, width=1)
    full = memory.push(memory.push(memory.empty(1, torch.zeros(())), readout(1)), readout(2))
    fresh = memory.empty(1, torch.zeros(()))
    state = {name: torch.cat([full[name], fresh[name]]) for name in full}
    state = memory.push(state, readout(3).expand(2, 1, 1))
    assert state["readouts"][:, :, 0].tolist() == [[2.0, 3.0], [3.0, 0.0]]
    assert state["count"].tolist() == [2, 1]
    assert memory.newest(state, state["readouts"]).tolist() == [[3.0], [3.0]]


def readout(number):
    return torch.full((1, 1, 1), float(number))
