"""The encoder: its contract, and positions that reach queries and keys alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from core.testing import checks_for
from core.testing.backbone import sequence
from plugins.policies.act.backbone import ACTBackbone, ACTBackboneConfig

SMALL = ACTBackboneConfig(width=32, depth=2, heads=4, mlp_width=24)
CHECKS = checks_for("backbone", ACTBackbone, SMALL)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_contract(check):
    check()


def test_a_layer_without_positions_is_torchs():
    torch.manual_seed(0)
    ours = ACTBackbone(replace(SMALL, depth=1, dropout=0.0)).layers[0]
    theirs = nn.TransformerEncoderLayer(32, 4, 24, dropout=0.0, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(ours(x, torch.zeros(5, 32), None), theirs(x), rtol=1e-5, atol=1e-5)


def test_positions_say_where_to_look_and_are_not_looked_at():
    """With one token there is nothing to choose from, so its position has no effect."""
    torch.manual_seed(0)
    backbone = ACTBackbone(SMALL).eval()
    whole = sequence(32, 1, padded=False, causal=False)
    moved = replace(whole, position_embedding=torch.randn(whole.tokens.shape))
    assert not torch.allclose(backbone(moved), backbone(whole), atol=1e-3)
    single, moved = (x.map_columns(lambda y: y[:, :1]) for x in (whole, moved))
    torch.testing.assert_close(backbone(moved), backbone(single))


@pytest.mark.parametrize("sizes", [{"width": 33}, {"heads": 5}])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match="choose"):
        replace(SMALL, **sizes)
