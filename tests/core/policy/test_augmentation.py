"""Changes of images, compared with torchvision and numpy; what is random, and what is not."""

import numpy as np
import pytest
import torch

from core import import_library
from core.errors import ConfigError
from core.policy.augmentation import (
    Augmentation,
    brighten,
    contrast,
    crop,
    saturate,
    shift,
    turn_hue,
)
from core.recipe.sections import AugmentationConfig
from tests.contexts import noise

SEED = 3


def images(batch=2, window=3, rows=11, columns=14) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(
        256, (batch, window, 3, rows, columns), generator=generator, dtype=torch.uint8
    )


def smooth() -> torch.Tensor:
    """Return an image whose neighbouring pixels differ little, to compare interpolations."""
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    return torch.stack([rows * 5, columns * 5, (rows + columns) * 3]).to(torch.uint8)[None, None]


def augmented(x: torch.Tensor, train=True, **config) -> torch.Tensor:
    augmentation = Augmentation(AugmentationConfig(**config), ["top"]).train(train)
    return augmentation({"top": x}, noise(SEED))["top"]


@pytest.mark.parametrize("offset", [(0, 0), (2, -3), (-11, 14)])
def test_a_shift_repeats_edges(offset):
    x = images()
    moved = shift(x, torch.tensor(offset).expand(2, 1, 2))
    down, right = offset
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, 0), (14, 14), (14, 14)), mode="edge")
    expected = padded[..., 14 - down : 25 - down, 14 - right : 28 - right]
    np.testing.assert_array_equal(moved.numpy(), expected)


def test_every_shift_within_reach_comes_as_often():
    x = torch.arange(9 * 9, dtype=torch.uint8).view(1, 1, 1, 9, 9).expand(2_000, 1, 3, 9, 9)
    centres = augmented(x, shift=1)[:, 0, 0, 4, 4]
    values, counts = centres.unique(return_counts=True)
    assert values.tolist() == [30, 31, 32, 39, 40, 41, 48, 49, 50]
    assert counts.min() > 2_000 / 9 * 0.8
    assert counts.max() < 2_000 / 9 * 1.2


@pytest.mark.parametrize("change", [{"shift": 3}, {"crop": 0.7}, {"brightness": 0.3}, {"hue": 0.2}])
def test_a_window_is_changed_alike_and_each_on_its_own(change):
    x = images(batch=1, window=1).expand(4, 3, -1, -1, -1)
    once = augmented(x, **change)
    assert all(torch.equal(once[:, 0], once[:, t]) for t in (1, 2))
    assert len({once[i].numpy().tobytes() for i in range(4)}) == 4
    each = augmented(x, per_frame=True, **change)
    assert len({frame.numpy().tobytes() for frame in each.flatten(0, 1)}) > 8


def test_cameras_are_changed_each_on_its_own_and_only_those_named():
    x = images()
    changed = Augmentation(AugmentationConfig(shift={"wrist": 3}), ["top", "wrist"])(
        {"top": x, "wrist": x}, noise(SEED)
    )
    assert torch.equal(changed["top"], x)
    assert not torch.equal(changed["wrist"], x)
    both = Augmentation(AugmentationConfig(shift=3), ["top", "wrist"])(
        {"top": x, "wrist": x}, noise(SEED)
    )
    assert not torch.equal(both["top"], both["wrist"])


def test_acting_sees_the_middle_and_nothing_random():
    x = smooth()
    received = augmented(
        x, train=False, shift=5, crop=0.8, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5
    )
    functional = import_library("torchvision.transforms.v2.functional")
    expected = functional.resize(x[0, 0, :, 4:36, 4:36].float(), [40, 40], antialias=False)
    assert (received[0, 0].float() - expected).abs()[:, 1:-1, 1:-1].max() <= 1
    assert torch.equal(augmented(x, train=False, shift=5, hue=0.5), x)


def test_a_crop_is_where_it_is_asked_for():
    x = smooth()
    received = crop(x, 0.5, torch.tensor([[[0.5, -0.5]]]))  # the upper right quarter
    functional = import_library("torchvision.transforms.v2.functional")
    expected = functional.resize(x[0, 0, :, :20, 20:].float(), [40, 40], antialias=False)
    assert (received[0, 0].float() - expected).abs()[:, 1:-1, 1:-1].max() <= 1


def test_random_crops_stay_inside():
    x = torch.full((50, 1, 3, 16, 16), 7, dtype=torch.uint8)
    x[..., 0, :] = x[..., -1, :] = x[..., 0] = x[..., -1] = 99
    received = augmented(x, crop=0.5)
    assert set(received[..., 5:11, 5:11].unique().tolist()) == {7}
    assert (received == 99).any(dim=-1).any(dim=-1).any(dim=-1).float().mean() > 0.05


@pytest.mark.parametrize("amount", [-0.4, 0.0, 0.3])
@pytest.mark.parametrize(
    ("change", "reference"),
    [
        (brighten, "adjust_brightness"),
        (contrast, "adjust_contrast"),
        (saturate, "adjust_saturation"),
    ],
)
def test_colours_change_as_torchvisions_do(change, reference, amount):
    x = images()
    functional = import_library("torchvision.transforms.v2.functional")
    expected = getattr(functional, reference)(x, 1 + amount)
    changed = change(x, torch.full((2, 1, 1, 1, 1), amount))
    # torchvision rounds towards zero, and rounds grey on the way.
    assert (changed.int() - expected.int()).abs().max() <= 1


def test_a_turn_of_the_hue_keeps_brightness_and_comes_around():
    x = smooth() // 2 + 60
    amount = torch.tensor([0.1, 0.5]).view(2, 1, 1, 1, 1)
    turned = turn_hue(x.expand(2, -1, -1, -1, -1), amount)
    weights = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)
    inside = ((turned > 0) & (turned < 255)).all(dim=2)
    difference = ((turned.float() - x.float()) * weights).sum(dim=2).abs()
    assert difference[inside].max() < 1
    assert (turned[1].int() - x[0].int()).abs().max() > 20
    assert (turn_hue(x, torch.ones(1, 1, 1, 1, 1)).int() - x.int()).abs().max() <= 1
    thrice = x
    for _ in range(3):
        thrice = turn_hue(thrice, torch.full((1, 1, 1, 1, 1), 1 / 3))
    assert (thrice.int() - x.int()).abs().float().mean() < 3


@pytest.mark.parametrize("how", ["autocast", "default type"])
def test_half_precision_around_it_changes_nothing(how):
    x = smooth()
    colours = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}
    config = {"shift": 3, "crop": 0.8, **colours}
    expected = augmented(x, **config)
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(augmented(x, **config), expected)
    else:
        torch.set_default_dtype(torch.bfloat16)  # as Fabric does for "bf16-true"
        try:
            assert torch.equal(augmented(x, **config), expected)
        finally:
            torch.set_default_dtype(torch.float32)


def test_a_camera_that_is_not_there():
    with pytest.raises(
        ConfigError, match=r"augmentation.shift: no camera 'wirst'; did you mean 'wrist'"
    ):
        Augmentation(AugmentationConfig(shift={"wirst": 4}), ["static", "wrist"])
