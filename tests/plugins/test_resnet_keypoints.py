"""The encoder of keypoints: its contract, crops, and LeRobot's encoder and weights."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from core import ConfigError, TokenGroup, import_library
from core.policy.augmentation import shift
from core.testing import Setup, checks_for
from core.weights import Pretrained
from plugins.vision.resnet_keypoints.encoder import (
    ResNetKeypoints,
    ResNetKeypointsConfig,
    cut_middle,
)
from plugins.vision.resnet_keypoints.lerobot import published_names
from tests.lerobot_policies import load_policy, needs_lerobot

SMALL = ResNetKeypointsConfig(model="test_resnet", keypoints=6, width=12)
CAMERAS = {"top": (3, 64, 96), "wrist": (3, 64, 96)}
SETTINGS = [
    SMALL,
    replace(SMALL, norm="frozen_batch", per_camera=True),
    replace(SMALL, image_size=(64, 96), crop_size=(48, 80)),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, config in enumerate(SETTINGS)
    for check in checks_for(
        "vision_encoder",
        ResNetKeypoints,
        config,
        Setup(cameras={"b": (3, 64, 64), "a": (3, 48, 80)}),
    )
]
NO_TEXT = TokenGroup(torch.zeros(1, 0, 0))


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def make(config=SMALL, cameras=CAMERAS, seed=0):
    torch.manual_seed(seed)
    return ResNetKeypoints(config, cameras=cameras).eval()


def images(cameras=CAMERAS):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randint(256, (2, 1, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in cameras.items()
    }


# -------------------------------------------------------------------------------------------- crops


@needs_lerobot
@pytest.mark.parametrize("size", [(84, 84), (95, 90), (96, 93)])
def test_the_middle_is_torchvisions(size):
    transforms = import_library("torchvision.transforms")
    x = torch.arange(96.0 * 96).view(1, 1, 96, 96)
    assert torch.equal(cut_middle(x, size), transforms.CenterCrop(size)(x))


def test_a_shift_before_the_middle_is_cut_out_is_a_crop_at_that_place():
    x = torch.arange(96 * 96).view(1, 1, 1, 96, 96)
    moved = shift(x, torch.tensor([[[-6, 4]]]))  # up and to the right
    assert torch.equal(cut_middle(moved[0], (84, 84)), x[0, ..., 12:96, 2:86])


def test_a_crop_larger_than_the_images_is_refused():
    with pytest.raises(
        ConfigError, match=r"vision_encoder\.crop_size: \[65, 8\] is larger .*'top'"
    ):
        make(replace(SMALL, crop_size=(65, 8)))


# ------------------------------------------------------------------------------------------ weights


def publish(folder, module, *, order=None, policy="diffusion.", settings=None, **further):
    """Write an encoder's weights as LeRobot does; `order` lists its cameras, if it has several."""
    names = [name for name in module.state_dict() if name not in ("mean", "std")]
    places = order and [order.index(camera) for camera in module.cameras]
    published = published_names(names, places)
    tensors = {policy + published[name]: module.state_dict()[name].clone() for name in names}
    save_file(tensors | further, folder / "model.safetensors")
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    return Pretrained(str(folder))


@pytest.mark.parametrize(("policy", "width"), [("diffusion.", None), ("vqbet.", 40)])
def test_lerobots_weights_are_loaded(tmp_path, policy, width):
    config = replace(SMALL, project_to=width)
    source, module = make(config, seed=1), make(config)
    unused = {
        f"{policy}rgb_encoder.pool.{name}": torch.ones(1) for name in ("pos_grid", "nets.bias")
    }
    module.load_pretrained(publish(tmp_path, source, policy=policy, **unused))
    assert not module.extra_parameters
    assert torch.equal(module(images(), NO_TEXT).tokens, source(images(), NO_TEXT).tokens)


def test_each_camera_takes_its_own_weights_whatever_their_order(tmp_path):
    config = replace(SMALL, per_camera=True)
    source, module, order = make(config, seed=1), make(config), ["wrist", "top"]
    features = {f"observation.images.{name}": {} for name in order}
    settings = {"input_features": {"observation.state": {}} | features}
    module.load_pretrained(publish(tmp_path, source, order=order, settings=settings))
    assert torch.equal(module(images(), NO_TEXT).tokens, source(images(), NO_TEXT).tokens)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crop_shape": [48, 48]}, r"crop_shape = \[48, 48\] .*change vision_encoder\.crop_size"),
        ({"resize_shape": [48, 48]}, r"resize_shape = .*change vision_encoder\.image_size"),
        ({"use_separate_rgb_encoder_per_camera": True}, r"change vision_encoder\.per_camera"),
        (
            {"input_features": {"observation.images.a": {}, "observation.images.b": {}}},
            "sees the cameras a, b, and the data have top, wrist; name",
        ),
    ],
)
def test_what_weights_do_not_show_is_refused(tmp_path, settings, said):
    with pytest.raises(ConfigError, match=said):
        make().load_pretrained(publish(tmp_path, make(), settings=settings))


def test_a_resnet_alone_is_loaded_for_every_camera(tmp_path):
    config = replace(SMALL, norm="frozen_batch", per_camera=True)
    source, module = make(config, seed=1), make(config)
    tensors = dict(source.encoders[0].resnet.state_dict())
    save_file(tensors | {"fc.weight": torch.zeros(10, 96)}, tmp_path / "model.safetensors")
    module.load_pretrained(Pretrained(str(tmp_path)))
    for encoder in module.encoders:
        for name, x in source.encoders[0].resnet.state_dict().items():
            assert torch.equal(encoder.resnet.state_dict()[name], x), name
    assert set(module.extra_parameters) == {
        f"encoders.{i}.{name}"
        for i in range(2)
        for name in ("maps.weight", "output.weight", "output.bias")
    }
    with pytest.raises(
        ConfigError, match='has batch norms, and norm is "group"; set norm = "frozen'
    ):
        make().load_pretrained(Pretrained(str(tmp_path)))


def test_weights_follow_their_cameras_into_another_run():
    config = replace(SMALL, per_camera=True)
    former = make(config, seed=1)
    former.mean[1] = 0.25  # wrist
    module = make(config, {"front": (3, 64, 96), "wrist": (3, 64, 96)})
    own = module.encoders[0].maps.weight.clone()
    module.load_state_dict(module.adapt(former, former.state_dict()))
    assert torch.equal(module.encoders[0].maps.weight, own)
    assert torch.equal(module.encoders[1].maps.weight, former.encoders[1].maps.weight)
    assert (module.mean[1] == 0.25).all()


@needs_lerobot
@pytest.mark.filterwarnings("ignore:.*autocast:FutureWarning")
@pytest.mark.parametrize("policy", ["diffusion", "vqbet"])
def test_the_encoder_is_lerobots(tmp_path, policy):
    pytest.importorskip("diffusers", reason="needs diffusers: pip install diffusers")
    _, modeling = load_policy(policy)
    build = {"diffusion": "DiffusionRgbEncoder", "vqbet": "VQBeTRgbEncoder"}[policy]
    torch.manual_seed(1)
    theirs = getattr(modeling, build)(
        SimpleNamespace(
            resize_shape=None,
            crop_shape=(60, 76),
            crop_is_random=False,
            vision_backbone="resnet18",
            pretrained_backbone_weights=None,
            use_group_norm=True,
            image_features={"observation.image": SimpleNamespace(shape=(3, 64, 96))},
            spatial_softmax_num_keypoints=32,
        )
    )
    tensors = {f"{policy}.rgb_encoder.{name}": x for name, x in theirs.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    statistics = torch.full((3, 1, 1), 0.4), torch.full((3, 1, 1), 0.3)
    save_file(
        {f"observation.image.{k}": x for k, x in zip(("mean", "std"), statistics, strict=True)},
        tmp_path / "policy_preprocessor_step_3_normalizer_processor.safetensors",
    )
    camera = {"top": CAMERAS["top"]}
    ours = make(ResNetKeypointsConfig(crop_size=(60, 76)), camera)
    ours.load_pretrained(Pretrained(str(tmp_path)))
    given = images(camera)
    received = ours(given, NO_TEXT).tokens[:, 0, 0]
    expected = theirs((given["top"][:, 0] / 255 - 0.4) / 0.3)
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-5)
