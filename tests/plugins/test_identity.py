"""No backbone: tokens pass, and the contract holds as far as it speaks of what passes."""

import pytest
import torch

from core.testing import checks_for
from core.testing.backbone import sequence
from plugins.backbones.identity import Identity, IdentityConfig


@pytest.mark.parametrize(
    "check", checks_for("backbone", Identity, IdentityConfig(width=8)), ids=str
)
def test_contract(check):
    check()


def test_tokens_pass_as_they_are():
    whole = sequence(8, 3)
    backbone = Identity(IdentityConfig(width=8))
    assert backbone(whole) is whole.tokens
    assert torch.equal(backbone.read(whole), whole.tokens.flatten(0, 1)[whole.readout])
