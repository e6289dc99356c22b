"""The vision encoder: its contract, its grid, and the weights that it takes."""

import json

import pytest
import torch
from safetensors.torch import save_file

from core import ConfigError, TokenGroup
from core.testing import Setup, checks_for
from core.weights import Pretrained
from core.weights.lerobot import PROCESSOR
from plugins.policies.act.names import PROJECTION, RESNET
from plugins.policies.act.vision import ACTVision, ACTVisionConfig

SMALL = ACTVisionConfig(model="test_resnet", width=16)
CAMERAS = {"wrist": (3, 64, 32), "static": (3, 32, 64)}
SETTINGS = [
    (SMALL, Setup(cameras=CAMERAS)),
    (ACTVisionConfig(model="test_resnet", width=16, norm="group", image_size=64), Setup()),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(SETTINGS)
    for check in checks_for("vision_encoder", ACTVision, config, given)
]
NO_TEXT = TokenGroup(torch.zeros(1, 0, 0))


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def encoder(config=SMALL, cameras=CAMERAS):
    torch.manual_seed(0)
    return ACTVision(config, cameras=cameras)


def images(cameras=CAMERAS):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randint(256, (1, 1, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in cameras.items()
    }


def test_every_token_has_its_row_and_column():
    group = encoder()(images(), NO_TEXT)
    assert group.tokens.shape == (1, 1, 4, 16)
    assert group.grid.tolist() == [[0, 0], [0, 1], [0, 0], [1, 0]]  # static, then wrist


def test_frozen_norms_are_no_parameters_and_do_not_follow_the_images():
    module = encoder().train()
    before = {name: x.clone() for name, x in module.model.named_buffers()}
    module(images(), NO_TEXT).tokens.sum().backward()
    assert not [name for name, _ in module.named_parameters() if "bn" in name]
    assert all(torch.equal(x, before[name]) for name, x in module.model.named_buffers())


def test_a_frozen_norm_is_torchs_batch_norm_in_evaluation():
    norm = torch.nn.BatchNorm2d(48).eval()
    ours = encoder().model.layer2[0].bn1
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(48, generator=generator) + 0.5
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    norm.load_state_dict(state, strict=False)
    ours.load_state_dict(state)
    x = torch.randn(2, 48, 3, 5, generator=generator)
    torch.testing.assert_close(ours(x), norm(x), rtol=1e-5, atol=1e-5)


def published(folder, *, resnet=True, statistics=None, config=None):
    """Write LeRobot's file of an encoder's weights, or a ResNet alone, with torchvision's names."""
    source = encoder()
    with torch.no_grad():
        for weight in source.state_dict().values():
            weight += 0.1
    if resnet:
        tensors = dict(source.model.state_dict())
        tensors |= {"fc.weight": torch.zeros(10, 96), "bn1.num_batches_tracked": torch.tensor(7)}
    else:
        tensors = {f"{RESNET}{name}": x for name, x in source.model.state_dict().items()}
        tensors |= {f"{PROJECTION}{name}": x for name, x in source.projection.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    if statistics is not None:
        save_file(statistics, folder / PROCESSOR.replace("*", "3"))
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"normalization_mapping": config}))
    return source, Pretrained(str(folder))


def test_a_published_resnet_leaves_the_projection_random(tmp_path):
    source, weights = published(tmp_path)
    module = encoder()
    projection = module.projection.weight.clone()
    module.load_pretrained(weights)
    assert all(
        torch.equal(x, source.model.state_dict()[name])
        for name, x in module.model.state_dict().items()
    )
    assert torch.equal(module.projection.weight, projection)
    assert module.extra_parameters == ("projection.weight", "projection.bias")


def test_lerobots_weights_bring_projection_and_pixel_statistics(tmp_path):
    statistics = {
        f"observation.images.{name}.{kind}": torch.full((3, 1, 1), value)
        for name, values in {"wrist": (0.1, 0.2), "static": (0.3, 0.4)}.items()
        for kind, value in zip(("mean", "std"), values, strict=True)
    }
    source, weights = published(tmp_path, resnet=False, statistics=statistics)
    module = encoder()
    module.load_pretrained(weights)
    assert torch.equal(module.projection.weight, source.projection.weight)
    assert not module.extra_parameters
    assert module.cameras == ["static", "wrist"]
    assert module.mean[:, 0].flatten().tolist() == pytest.approx([0.3, 0.1])
    assert module.std[:, 0].flatten().tolist() == pytest.approx([0.4, 0.2])


def test_pixel_statistics_follow_their_cameras_into_another_run():
    former, module = encoder(), encoder(cameras={"front": (3, 32, 64), "wrist": (3, 64, 32)})
    former.mean[1] = 0.25  # wrist
    adapted = module.adapt(former, former.state_dict())
    module.load_state_dict(adapted)
    assert module.cameras == ["front", "wrist"]
    assert (module.mean[1] == 0.25).all()
    assert torch.equal(module.mean[0], encoder().mean[0])


def test_pixels_that_were_not_normalised_stay_so(tmp_path):
    _, weights = published(tmp_path, resnet=False, config={"VISUAL": "IDENTITY"})
    module = encoder()
    module.load_pretrained(weights)
    assert not module.mean.any()
    assert (module.std == 1).all()


@pytest.mark.parametrize(
    ("statistics", "config", "message"),
    [
        (["left", "right"], None, "statistics of the cameras left, right, and none of static, wr"),
        ([], {"VISUAL": "MIN_MAX"}, "normalises pixels by MIN_MAX"),
    ],
)
def test_other_statistics_are_refused(tmp_path, statistics, config, message):
    tensors = {
        f"observation.images.{name}.{kind}": torch.full((3, 1, 1), 0.1 + i)
        for i, name in enumerate(statistics)
        for kind in ("mean", "std")
    }
    _, weights = published(tmp_path, resnet=False, statistics=tensors, config=config)
    with pytest.raises(ConfigError, match=message):
        encoder().load_pretrained(weights)


@pytest.mark.parametrize(
    ("shape", "mean", "std"), [((4,), 0.1, 0.1), ((3, 1, 1), 0.1, 0.0), ((3,), float("inf"), 0.1)]
)
def test_statistics_that_are_none_of_colours_are_refused(tmp_path, shape, mean, std):
    camera = "observation.images.static"
    tensors = {f"{camera}.mean": torch.full(shape, mean), f"{camera}.std": torch.full(shape, std)}
    _, weights = published(tmp_path, resnet=False, statistics=tensors)
    with pytest.raises(ConfigError, match=r"pretrained: .* no mean and standard deviation of thr"):
        encoder().load_pretrained(weights)


def test_batch_norms_are_not_loaded_into_group_norms(tmp_path):
    _, weights = published(tmp_path)
    group = ACTVisionConfig(model="test_resnet", width=16, norm="group")
    with pytest.raises(ConfigError, match=r'pretrained: .* set norm = "frozen_batch"'):
        encoder(group).load_pretrained(weights)


def test_cameras_with_other_numbers_of_cells_are_refused():
    with pytest.raises(ConfigError, match=r"vision_encoder\.image_size: .*\(static 2, wrist 1\)"):
        encoder(cameras={"static": (3, 64, 32), "wrist": (3, 32, 32)})


def test_an_unknown_resnet_is_refused():
    with pytest.raises(ConfigError, match=r"vision_encoder\.model: .* no ResNet 'resnet_18'"):
        encoder(ACTVisionConfig(model="resnet_18"))
