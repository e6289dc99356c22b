"""How images are arranged, and their statistics, against transformers' own image processors."""

import json
from types import SimpleNamespace

import pytest
import torch

from core import ConfigError, import_library
from plugins.vlms.huggingface.pixels import arrangement, as_patches, statistics
from tests.plugins.huggingface.families import (
    MEAN,
    STD,
    as_qwens_processor_does,
    build_vision,
    copy_with,
)


def test_patches_are_laid_out_as_qwens_processor_does():
    pixels = torch.randn(3, 3, 24, 40)
    expected = as_qwens_processor_does(pixels)
    received = as_patches(pixels, patch=4, merge=2, frames=2)
    assert torch.equal(received["pixel_values"], expected["pixel_values"])
    assert torch.equal(received["image_grid_thw"], expected["image_grid_thw"])


def test_patches_of_unknown_size_are_refused():
    class Model:
        def get_image_features(self, pixel_values, image_grid_thw=None): ...

    vision = SimpleNamespace(patch_size=14, spatial_merge_size=2)
    with pytest.raises(ConfigError, match=r"a Model takes patches, .* of what temporal_patch_size"):
        arrangement(Model(), SimpleNamespace(vision_config=vision))


def test_statistics_come_from_the_recipe_or_the_folder(folder_of, tmp_path):
    folder = folder_of("smolvlm")
    assert build_vision(folder).mean.flatten().tolist() == pytest.approx(MEAN)
    assert build_vision(folder, std=(1.0, 2.0, 3.0)).std.flatten().tolist() == [1.0, 2.0, 3.0]
    bare = copy_with(folder, tmp_path / "bare", lambda tensors: None)
    (bare / "preprocessor_config.json").unlink()
    assumed = build_vision(bare)
    assert assumed.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert "are 0.5: " in assumed.assumptions[0]
    assert not build_vision(bare, mean=MEAN, std=STD).assumptions
    nested = {"image_processor": {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}}
    (bare / "processor_config.json").write_text(json.dumps(nested))
    part = build_vision(bare)
    assert part.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert part.std.dtype == torch.float32
    with pytest.raises(ConfigError, match=r"'nobody/nothing'; set vision_encoder\.mean and std"):
        statistics(None, None, "nobody/nothing")
    given = statistics(MEAN, STD, "nobody/nothing")
    assert (given.mean, given.std) == (MEAN, STD)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "do_normalize": False},
    ],
)
def test_pixels_are_those_of_the_image_processor(settings, tmp_path):
    """The oracle is transformers' own CLIPImageProcessor, without its resizing."""
    settings = {"image_mean": MEAN, "image_std": STD, **settings}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = import_library("transformers").CLIPImageProcessor(
        do_resize=False, do_center_crop=False, do_convert_rgb=False, **settings
    )
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    expected = processor(image, return_tensors="pt")["pixel_values"][0].float()
    used = statistics(None, None, str(tmp_path))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (used.mean, used.std))
    assert torch.allclose((image / 255 - mean) / std, expected, rtol=1e-5, atol=1e-5)
    again = tmp_path / "again"
    again.mkdir()
    (again / "preprocessor_config.json").write_text(json.dumps(used.as_processor_config()))
    exported = statistics(None, None, str(again))
    assert exported.mean == pytest.approx(used.mean)
    assert exported.std == pytest.approx(used.std)
