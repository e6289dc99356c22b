"""Gradient checkpointing over a part's blocks: the same numbers, less memory, and a clear no."""

import pytest
import torch
from torch import nn

from core import ConfigError
from core.policy.recomputation import recompute_blocks


class Part(nn.Module):
    """Three blocks that count their runs."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Tanh()) for _ in range(3)
        )
        self.runs = 0
        for block in self.blocks:
            block[0].register_forward_hook(self._count)

    def _count(self, *_):
        self.runs += 1

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def gradients(recomputes):
    torch.manual_seed(0)
    part, x = Part(), torch.randn(5, 4)
    if recomputes:
        recompute_blocks(part, "backbone")
    torch.manual_seed(1)  # the same dropout
    part(x).square().sum().backward()
    return [p.grad for p in part.parameters()], part.runs


def test_gradients_are_the_same_and_every_block_runs_twice():
    (plain, once), (recomputed, twice) = gradients(False), gradients(True)
    assert all(map(torch.equal, plain, recomputed))
    assert (once, twice) == (3, 6)


def test_nothing_is_recomputed_where_no_backward_pass_follows():
    part = Part()
    recompute_blocks(part, "backbone")
    with torch.no_grad():
        part(torch.randn(5, 4))
    assert part.runs == 3


def test_names_of_weights_stay():
    part = Part()
    names = list(part.state_dict())
    recompute_blocks(part, "backbone")
    assert list(part.state_dict()) == names


def test_a_part_without_blocks_is_refused():
    with pytest.raises(
        ConfigError, match=r"text_encoder\.gradient_checkpointing: this part has no repeated blocks"
    ):
        recompute_blocks(nn.Linear(2, 2), "text_encoder")
