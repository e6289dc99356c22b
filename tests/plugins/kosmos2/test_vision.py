"""The vision encoder's contract, and the names of its weights."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from core import import_library
from core.testing import checks_for
from core.weights import Pretrained
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


def test_weights_of_another_image_size_are_resized_as_timm_does(tmp_path):
    small = make().vision_encoder
    torch.nn.init.normal_(small.clip.pos_embed)
    tensors = {name: x.contiguous() for name, x in small.publish().items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    size = 2 * TINY.vision.image_size
    config = replace(TINY.vision, image_size=size)
    large = Kosmos2Vision(config, cameras={"front": (3, size, size)})
    large.load_pretrained(Pretrained(str(tmp_path / "weights.safetensors")))
    resize = import_library("timm.layers").resample_abs_pos_embed
    expected = resize(small.clip.pos_embed, large.clip.patch_embed.grid_size)
    torch.testing.assert_close(large.clip.pos_embed, expected)
    assert torch.equal(large.dense.weight, small.dense.weight)
    adapted = large.adapt(small, small.state_dict())["clip.pos_embed"]
    torch.testing.assert_close(adapted, expected)
