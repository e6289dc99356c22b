"""The vision encoder: its contract, its images, and which of its weights train."""

import pytest
import torch
from torch.nn import functional as F

from core import ConfigError, TokenGroup
from core.testing import checks_for
from core.weights import Pretrained
from plugins.vlms.huggingface.vision import HuggingFaceVision, VisionConfig
from tests.plugins.huggingface.families import (
    CAMERAS,
    FAMILIES,
    SETUP,
    SIZE,
    build_vision,
    full_model,
    run_check,
    save_model,
    single_line,
)

CHECKS = [
    check.name for check in checks_for("vision_encoder", HuggingFaceVision, VisionConfig("unused"))
]


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("model", ["llava", "paligemma", "qwen2_5_vl", "smolvlm", "internvl"])
def test_contract(model, name, folder_of):
    config = VisionConfig(str(folder_of(model)), image_size=FAMILIES[model].size)
    run_check("vision_encoder", HuggingFaceVision, config, name, SETUP)


def test_weights_behind_the_tokens_do_not_train(folder_of):
    part = HuggingFaceVision(VisionConfig(str(folder_of("llava"))), cameras=CAMERAS)
    resting = {name for name, weight in part.named_parameters() if not weight.requires_grad}
    assert len(resting) == 18  # a layer of 16, and the norm behind it
    assert all(any(unused in name for unused in FAMILIES["llava"].unused) for name in resting)
    part.load_pretrained(Pretrained(part.source))
    assert resting == {name for name, weight in part.named_parameters() if not weight.requires_grad}


@torch.no_grad()
def test_images_of_other_sizes_are_resized_without_overshooting(folder_of):
    part = build_vision(folder_of("smolvlm"), cameras={"static": (3, 48, 64)}).eval()
    edge = torch.zeros(1, 1, 3, 48, 64, dtype=torch.uint8)
    edge[..., 32:] = 255
    resized = F.interpolate(edge[0].float(), (SIZE, SIZE), mode="bicubic", antialias=True)
    assert resized.max() > 255
    images = (resized.clamp(0, 255) / 255 - part.mean) / part.std
    expected = part.model.get_image_features(**part.arrange(images)).pooler_output
    received = part({"static": edge}, TokenGroup(torch.zeros(1, 1, 1))).tokens
    torch.testing.assert_close(received[0], torch.stack(tuple(expected)))


@torch.no_grad()
def test_an_image_of_zeros_keeps_its_tokens(folder_of):
    """Where the mean is 0, a black frame is nothing but zeros, which Idefics3 takes for padding."""
    part = build_vision(folder_of("idefics3"), mean=(0.0, 0.0, 0.0)).eval()
    frames = {name: torch.zeros(1, 2, *shape, dtype=torch.uint8) for name, shape in CAMERAS.items()}
    tokens = part(frames, TokenGroup(torch.zeros(1, 1, 1))).tokens
    assert tokens.shape == (1, 2, 8, 32)
    assert tokens.isfinite().all()


@pytest.mark.parametrize(
    ("model", "size", "mistake"),
    [
        ("smolvlm", 36, "36 is no multiple of this model's 8"),
        ("qwen2_5_vl", 36, "36 is no multiple of this model's 8"),
        (
            "smolvlm",
            24,
            "does not take images of 24 x 24 pixels",
        ),  # an odd number of patches cannot be shuffled
    ],
)
def test_an_image_size_that_does_not_fit_is_refused(model, size, mistake, folder_of):
    with pytest.raises(ConfigError, match=rf"vision_encoder\.image_size: .*{mistake}") as caught:
        build_vision(folder_of(model), image_size=size)
    single_line(caught)


@pytest.mark.parametrize("model", ["llava", "paligemma", "internvl"])
def test_another_image_size_resizes_the_position_embeddings(model, folder_of):
    """The tokens are those of transformers' own model, which is asked to resize."""
    size = 2 * SIZE
    part = build_vision(folder_of(model), {"front": (3, size, size)}, image_size=size)
    part.load_pretrained(Pretrained(str(folder_of(model))))
    own = full_model(folder_of(model)).base_model
    image = torch.randint(0, 256, (1, 1, 3, size, size), dtype=torch.uint8)
    pixels = (image[0] / 255 - part.mean) / part.std
    options = {} if model == "internvl" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        features = own.get_image_features(pixel_values=pixels, **options).pooler_output
        tokens = part.eval()({"front": image}, TokenGroup(torch.zeros(1, 1, 1))).tokens
    expected = features[0] if features[0].ndim == 2 else features[0].flatten(0, 1)
    torch.testing.assert_close(tokens[0, 0], expected)
    assert tokens.shape[2] > build_vision(folder_of(model))._encode_grey_image().shape[1]


def test_cameras_must_have_three_colours(folder_of):
    with pytest.raises(ConfigError, match=r"data\.cameras: .*'depth' has 1 channels"):
        build_vision(folder_of("smolvlm"), cameras={"depth": (1, 8, 8), **CAMERAS})


def test_a_model_that_sees_by_more_than_pixels_is_refused(tmp_path):
    config = {**FAMILIES["llava"].config, "model_type": "llava_next"}
    folder = save_model(tmp_path / "model", config, weights=False)
    with pytest.raises(
        ConfigError,
        match=r"vision_encoder\.model: a LlavaNextModel sees by pixel_values, image_sizes",
    ):
        build_vision(folder)
