"""The vision encoder's contract, and the names of its weights."""

import pytest

from core.testing import checks_for
from plugins.vlms.kosmos2 import Kosmos2Vision
from tests.plugins.kosmos2.models import (
    TINY,
    make,
)


@pytest.mark.parametrize("check", checks_for("vision_encoder", Kosmos2Vision, TINY.vision), ids=str)
def test_contract(check):
    check()


def test_names_of_weights_are_those_of_older_checkpoints():
    names = set(make().vision_encoder.state_dict())
    assert len(names) == 42
    assert {
        "clip.cls_token",
        "clip.blocks.1.attn.qkv.weight",
        "dense.bias",
        "resampler.latents",
    } <= names
