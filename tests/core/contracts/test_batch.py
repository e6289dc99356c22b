"""Sequences whose columns change together, and batches that move to a device."""

from dataclasses import fields, replace

import pytest
import torch

from core import Batch, ConfigError, Memory, TokenGroup, TokenSequence

SEQUENCE = TokenSequence(
    tokens=torch.arange(12.0).view(2, 3, 2),
    mask=None,
    frame=torch.tensor([[0, 0, 1], [0, 1, 1]]),
    kind=torch.tensor([[0, 1, 3], [0, 1, 3]]),
    readout=torch.tensor([[[2]], [[5]]]),
    grid=torch.arange(12).view(2, 3, 2),
    position_embedding=torch.arange(12.0).view(2, 3, 2),
)
BATCH = Batch(
    images={"top": torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8)},
    instructions=["open the drawer"],
    text_ids=torch.zeros(1, 4, dtype=torch.int64),
    text_mask=None,
    proprio=torch.zeros(1, 1, 2),
    actions=torch.zeros(1, 1, 2, 3),
    action_mask=torch.ones(1, 1, 2, 3, dtype=torch.bool),
    episodes=["first"],
    features={"force": torch.zeros(1, 1, 6)},
    present={"top": torch.ones(1, dtype=torch.bool)},
    embodiment=torch.zeros(1, dtype=torch.int64),
)


def test_all_columns_change_together_and_nothing_else():
    changed = SEQUENCE.map_columns(lambda x: x.flip(1))
    for name in ("tokens", "frame", "kind", "grid", "position_embedding"):
        assert torch.equal(getattr(changed, name), getattr(SEQUENCE, name).flip(1))
    assert changed.mask is changed.block is changed.private is None
    assert changed.readout is SEQUENCE.readout


def test_every_label_is_a_column():
    labels = {name: torch.ones(2, 3, dtype=torch.bool) for name in ("mask", "block", "private")}
    changed = replace(SEQUENCE, **labels).map_columns(lambda x: x[:, :1])
    for name in ("tokens", "mask", "frame", "kind", "block", "private", "grid"):
        assert getattr(changed, name).shape[:2] == (2, 1), name


def test_a_field_of_the_first_edition_names_what_replaced_it():
    with pytest.raises(ConfigError, match=r"sequence\.kind says what a token is"):
        _ = SEQUENCE.is_action


def test_every_tensor_of_a_batch_moves_to_the_device():
    moved = BATCH.to(torch.device("meta"))
    for entry in fields(Batch):
        value = getattr(moved, entry.name)
        tensors = list(value.values()) if isinstance(value, dict) else [value]
        for x in tensors:
            assert not isinstance(x, torch.Tensor) or x.device.type == "meta", entry.name
    assert moved.instructions == BATCH.instructions
    assert moved.episodes == BATCH.episodes
    assert moved.text_mask is None


@pytest.mark.parametrize("contract", [TokenGroup, TokenSequence, Memory, Batch])
def test_every_field_is_described(contract):
    for entry in fields(contract):
        assert entry.name in contract.__doc__, entry.name
