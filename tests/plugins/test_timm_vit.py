"""timm encoders of three families; pixels and weights against timm itself."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core import ConfigError, TokenGroup, expected_places, import_library
from core.policy.recomputation import recompute_blocks
from core.testing import Setup, checks_for
from core.weights import Pretrained
from plugins.vision.timm_vit.encoder import TimmConfig, TimmEncoder

timm = import_library("timm")
VIT = TimmConfig(model="test_vit", image_size=32)
CONFIGS = [
    (VIT, Setup()),
    (replace(VIT, tokens="patches"), Setup(cameras={"wrist": (3, 32, 32)})),
    (replace(VIT, tokens="pooled"), Setup()),
    (replace(VIT, model="test_vit4"), Setup()),  # norms after pooling, and has register tokens
    (replace(VIT, model="test_resnet"), Setup()),
    (replace(VIT, model="test_resnet", tokens="pooled"), Setup()),
    (replace(VIT, film=True, tokens="summary", keypoints=4), Setup()),
]
CHECKS = [
    pytest.param(check, id=f"{config.model}-{config.tokens}-{check}")
    for config, given in CONFIGS
    for check in checks_for("vision_encoder", TimmEncoder, config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


TEXT = TokenGroup(torch.zeros(2, 1, 4))
ONE = {"front": (3, 32, 32)}


def make(config=VIT, cameras=ONE):
    torch.manual_seed(0)
    return TimmEncoder(config, cameras=cameras, text_width=4).eval()


def images(*cameras, window=2, rows=32, columns=32):
    shape = (2, window, 3, rows, columns)
    return {camera: torch.randint(256, shape, dtype=torch.uint8) for camera in cameras}


@torch.no_grad()
def test_tokens_are_what_timm_makes_of_the_normalised_pixels():
    encoder, frames = make(), images("front")
    pixels = frames["front"].flatten(0, 1).double().numpy() / 255
    settings = encoder.model.pretrained_cfg
    pixels = (pixels - np.reshape(settings["mean"], (3, 1, 1))) / np.reshape(
        settings["std"], (3, 1, 1)
    )
    expected = encoder.model.forward_features(torch.from_numpy(pixels).float())
    received = encoder(frames, TEXT)
    assert received.mask is None
    torch.testing.assert_close(received.tokens.flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_patches_and_pooled_tokens_are_timms():
    frames = images("front", window=1)
    whole, patches, pooled = (
        make(replace(VIT, tokens=kind)) for kind in ("all", "patches", "pooled")
    )
    prefix = whole.model.num_prefix_tokens
    assert prefix > 0
    assert torch.equal(patches(frames, TEXT).tokens, whole(frames, TEXT).tokens[:, :, prefix:])
    features = whole(frames, TEXT).tokens[:, 0]
    expected = timm.create_model("test_vit", img_size=32, num_classes=0).forward_head(
        features, pre_logits=True
    )
    assert torch.equal(pooled(frames, TEXT).tokens[:, 0, 0], expected)


@torch.no_grad()
def test_cameras_of_other_sizes_are_averaged_down():
    encoder, frames = make(), images("front", window=1, rows=64, columns=96)
    averaged = torch.nn.functional.interpolate(
        frames["front"][:, 0].float(), (32, 32), mode="bilinear", antialias=True
    )
    expected = encoder.model.forward_features((averaged / 255 - encoder.mean) / encoder.std)
    received = encoder(frames, TEXT).tokens[:, 0]
    torch.testing.assert_close(received, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cameras_stand_in_the_order_of_their_names():
    frames = images("b", "a")
    encoder = make(cameras={"b": (3, 32, 32), "a": (3, 32, 32)})
    tokens = encoder(frames, TEXT).tokens
    half = tokens.shape[2] // 2
    alone = make()
    alone.model.load_state_dict(encoder.model.state_dict())
    for i, camera in enumerate("ab"):
        expected = alone({"front": frames[camera]}, TEXT).tokens + encoder.camera[i]
        torch.testing.assert_close(
            tokens[:, :, i * half : (i + 1) * half], expected, atol=1e-5, rtol=1e-5
        )


def test_one_camera_has_no_camera_embedding():
    assert "camera" in make(cameras={"a": (3, 8, 8), "b": (3, 8, 8)}).state_dict()
    assert "camera" not in make().state_dict()


def test_statistics_and_weights_of_the_input_stay_out_of_the_state_dict():
    assert all(name.startswith("model.") for name in make().state_dict())


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "count"), [("test_resnet", 4), ("swin_tiny_patch4_window7_224", 4)]
)
def test_feature_maps_become_rows_of_tokens(model, count):
    encoder = make(TimmConfig(model=model, image_size=64))
    frames = images("front", window=1, rows=64, columns=64)
    features = encoder.model.forward_features(
        (frames["front"][:, 0] / 255 - encoder.mean) / encoder.std
    )
    tokens = encoder(frames, TEXT).tokens
    assert tokens.shape == (2, 1, count, encoder.width)
    for row in range(2):
        for column in range(2):
            place = (
                features[:, row, column]
                if model.startswith("swin")
                else features[:, :, row, column]
            )
            torch.testing.assert_close(tokens[:, 0, 2 * row + column], place, atol=1e-5, rtol=1e-5)


def test_depth_width_heads_and_patches_change_the_model():
    assert len(make(replace(VIT, depth=1)).model.blocks) == 1
    assert len(make().model.blocks) > 1
    encoder = make(replace(VIT, width=48, heads=3, patch_size=8, tokens="patches"))
    assert encoder.model.blocks[0].attn.num_heads == 3
    assert encoder(images("front"), TEXT).tokens.shape == (2, 2, 16, 48)


@torch.no_grad()
def test_film_begins_by_changing_nothing():
    plain, filmed = make(), make(replace(VIT, film=True))
    filmed.model.load_state_dict(plain.model.state_dict())
    frames, text = images("front"), TokenGroup(torch.randn(2, 3, 4))
    torch.testing.assert_close(filmed(frames, text).tokens, plain(frames, text).tokens)


@torch.no_grad()
def test_film_scales_and_shifts_the_input_of_every_block_by_the_instruction():
    encoder, frames = make(replace(VIT, film=True)), images("front", window=3)
    for parameter in encoder.film.layers.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    text = TokenGroup(torch.randn(2, 3, 4), mask)
    tokens = encoder(frames, text).tokens
    model, words = encoder.model, text.tokens.double().numpy()
    for row, mean in enumerate((words[0].mean(axis=0), words[1, 0])):
        norm = (mean - mean.mean()) / np.sqrt(mean.var() + encoder.film.norm.eps)
        pixels = (frames["front"][row] / 255 - encoder.mean) / encoder.std
        x = model.norm_pre(model._pos_embed(model.patch_embed(pixels)))
        for block, layer in zip(model.blocks, encoder.film.layers, strict=True):
            weight, bias = (p.double().numpy() for p in (layer.weight, layer.bias))
            scale, shift = np.split((weight @ norm + bias).astype(np.float32), 2)
            x = block(x * (1 + torch.from_numpy(scale)) + torch.from_numpy(shift))
        torch.testing.assert_close(tokens[row], model.norm(x), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_hooks_of_film_are_gone_after_a_forward_pass_that_failed():
    encoder = make(replace(VIT, film=True))
    encoder.model.norm = None  # the pass fails after the blocks have run
    with pytest.raises(TypeError):
        encoder(images("front"), TEXT)
    assert not any(block._forward_pre_hooks for block in encoder.blocks)


@torch.no_grad()
def test_a_summary_is_a_grid_of_patches_and_their_keypoints():
    config = replace(VIT, patch_size=8, tokens="patches")
    encoder, whole = make(replace(config, tokens="summary", keypoints=3)), make(config)
    whole.model.load_state_dict(encoder.model.state_dict())
    frames = images("front")
    patches = whole(frames, TEXT).tokens[0, 0]  # (16 D)
    *grid, places = encoder(frames, TEXT).tokens[0, 0]
    summary = encoder.summary
    for token, (row, column) in zip(grid, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        square = patches.view(4, 4, -1)[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        merged = torch.einsum("yxd,edyx->e", square, summary.merge.weight) + summary.merge.bias
        torch.testing.assert_close(token, merged, atol=1e-4, rtol=1e-4)
    maps = summary.keypoints(patches).T.view(1, 3, 4, 4)
    torch.testing.assert_close(places, summary.places(expected_places(maps))[0])


def test_settings_of_the_summary_are_refused_without_it():
    with pytest.raises(ValueError, match="grid and keypoints: no effect without tokens"):
        replace(VIT, grid=4, keypoints=8)


@pytest.mark.parametrize(
    ("changes", "text_width", "mistake"),
    [
        ({"model": "test_resnet", "film": True}, 4, "film: the blocks of 'test_resnet' do not all"),
        ({"film": True}, 0, "film: the instruction scales and shifts the image's features"),
        ({"model": "test_resnet", "tokens": "summary"}, 4, "'summary' needs a square map"),
        (
            {"model": "swin_tiny_patch4_window7_224", "image_size": 64, "tokens": "summary"},
            4,
            "'summary' needs a square map",
        ),
        ({"tokens": "summary", "grid": 3}, 4, "2 x 2 patches cannot be merged to 3 x 3 tokens"),
    ],
)
def test_film_and_summary_are_refused_where_they_cannot_be(changes, text_width, mistake):
    with pytest.raises(ConfigError, match=mistake):
        TimmEncoder(replace(VIT, **changes), cameras=ONE, text_width=text_width)


def test_gradient_checkpointing_changes_no_gradient():
    frames, gradients = images("front"), []
    for checkpointing in (False, True):
        encoder = make(VIT).train()
        if checkpointing:
            assert len(encoder.blocks) > 1
            recompute_blocks(encoder, "vision_encoder")
        encoder(frames, TEXT).tokens.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def load(path, config=VIT):
    """An encoder with the weights of a file; None for those that timm publishes."""
    encoder = make(config)
    encoder.load_pretrained(Pretrained(encoder.source if path is None else str(path)))
    return encoder


@pytest.fixture(params=["safetensors", "pth"])
def weights(request, tmp_path):
    """A file with all weights of a classifier, as timm saves them, and the weights."""
    torch.manual_seed(5)
    state = timm.create_model("test_vit", img_size=32, num_classes=10).state_dict()
    path = tmp_path / f"vit.{request.param}"
    (save_file if request.param == "safetensors" else torch.save)(state, path)
    return path, state


def test_local_weights_are_loaded_without_the_classifier(weights):
    path, state = weights
    assert any(name.startswith("head.") for name in state)
    loaded = load(path).model.state_dict()
    assert loaded
    assert all(torch.equal(x, state[name]) for name, x in loaded.items())


def test_weights_that_do_not_fit_are_listed(weights, tmp_path):
    _, state = weights
    state["norm.extra"] = state.pop("norm.weight")
    state["norm.bias"] = torch.zeros(3)
    path = tmp_path / "wrong.safetensors"
    save_file(state, path)
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert "missing: norm.weight;" in message
    assert "unexpected: norm.extra;" in message
    assert "misshapen: norm.bias (3,) instead of (64,)" in message
    assert "wrong.safetensors" in message


def test_a_deeper_models_weights_are_refused_in_one_line(weights):
    with pytest.raises(ConfigError, match=r"unexpected: blocks\.1.* and \d+ more$"):
        load(weights[0], replace(VIT, depth=1))


class Exploit:
    def __reduce__(self):
        return os.system, ("touch exploited",)


def test_a_weights_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"norm.weight": Exploit()}, protocol=2))
    with pytest.raises(ConfigError, match=r"evil\.pth"):
        load(path)
    torch.save({"norm.weight": Exploit()}, path)
    with pytest.raises(ConfigError, match=r"evil\.pth"):
        load(path)
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize(
    "name", ["missing.safetensors", "missing.pth", "cut.safetensors", "cut.pth", "list.pth"]
)
def test_unreadable_weights_are_named(name, tmp_path):
    path = tmp_path / name
    if name.startswith("cut"):
        path.write_bytes(b"PK\x03\x04 nothing")
    if name.startswith("list"):
        torch.save([1, 2], path)
    with pytest.raises(ConfigError, match=rf"pretrained: .*{name}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_model_gets_a_suggestion():
    with pytest.raises(
        ConfigError, match=r"no model 'vit_tiny_patch16_244'; did you mean 'vit_tiny_patch16_224'"
    ):
        make(replace(VIT, model="vit_tiny_patch16_244"))


def test_what_timm_cannot_build_is_a_mistake_in_the_recipe():
    with pytest.raises(ConfigError, match=r"cannot build 'test_resnet' with .*depth"):
        make(replace(VIT, model="test_resnet", depth=2))


def test_an_image_size_that_would_cut_patches_off_is_refused():
    with pytest.raises(ConfigError, match=r"vision_encoder\.image_size: 40 .* 16"):
        make(replace(VIT, image_size=40))


def test_a_model_without_published_weights_says_so(monkeypatch):
    settings = replace(timm.get_pretrained_cfg("test_vit"), url=None, hf_hub_id=None)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: settings)
    with pytest.raises(ConfigError, match="publishes no weights"):
        load(None)


def test_a_failed_download_asks_for_a_file(monkeypatch):
    def refuse(name, pretrained, num_classes, img_size):
        raise OSError("no route to host")

    encoder = make()
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ConfigError, match="no route to host; name a file"):
        encoder.load_pretrained(Pretrained(encoder.source))


def test_published_weights_with_another_depth_are_refused():
    with pytest.raises(ConfigError, match="depth"):
        load(None, replace(VIT, depth=1))


def run_with(torchvision, tmp_path):
    """Import timm in a fresh interpreter that finds this torchvision."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(torchvision)
    script = "from core import import_library; print(import_library('timm').__version__)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )


def test_other_faults_of_torchvision_are_not_hidden(tmp_path):
    answer = run_with("raise RuntimeError('torchvision is out of order')", tmp_path)
    assert answer.returncode == 1
    assert "torchvision is out of order" in answer.stderr


def test_timm_is_imported_where_torchvisions_operators_are_missing(tmp_path):
    (tmp_path / "timm.py").write_text("import torchvision\n__version__ = torchvision.__version__\n")
    torchvision = """
import torch
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        raise RuntimeError(f"operator torchvision::{name} does not exist")
__version__ = "stand-in"
"""
    answer = run_with(torchvision, tmp_path)
    assert answer.stdout == "stand-in\n", answer.stderr


def test_batch_normalisation_mixes_cameras_while_it_trains():
    cameras = {"static": (3, 32, 32), "wrist": (3, 32, 32)}
    encoder = make(TimmConfig(model="test_resnet", image_size=32), cameras)
    assert not encoder.train().separates_cameras
    assert encoder.eval().separates_cameras
    assert make(VIT, cameras).separates_cameras


@pytest.mark.parametrize("model", ["test_vit", "test_vit4"])
def test_weights_of_another_image_size_are_resized_as_timm_does(tmp_path, model):
    small = timm.create_model(model, img_size=32)
    torch.nn.init.normal_(small.pos_embed)
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    cameras = {"front": (3, 64, 64)}
    config = TimmConfig(model=model, image_size=64)
    encoder = TimmEncoder(config, cameras=cameras, text_width=8)
    encoder.load_pretrained(Pretrained(str(tmp_path / "small.safetensors")))
    expected = import_library("timm.layers").resample_abs_pos_embed(
        small.pos_embed,
        encoder.model.patch_embed.grid_size,
        num_prefix_tokens=0 if small.no_embed_class else small.num_prefix_tokens,
    )
    torch.testing.assert_close(encoder.model.pos_embed, expected)


@pytest.mark.parametrize("model", ["coat_tiny", "crossvit_tiny_240", "efficientvit_b0"])
def test_a_model_that_always_pools_says_so(model):
    with pytest.raises(ConfigError, match=f"'{model}' always pools .*; set tokens = 'pooled', or"):
        make(TimmConfig(model=model, image_size=240 if "240" in model else 224))


def test_a_patch_size_that_is_one_number_is_understood():
    assert make(TimmConfig(model="xcit_nano_12_p16_224", image_size=64)).width == 128


@pytest.mark.parametrize("model", ["convnext_atto", "test_vit"])
@pytest.mark.parametrize("tokens", ["all", "pooled"])
def test_every_weight_that_can_train_gets_a_gradient(model, tokens):
    part = make(TimmConfig(model=model, image_size=32, tokens=tokens)).train()
    output = part(images("front"), TEXT).tokens
    (output * torch.randn_like(output)).sum().backward()
    assert [n for n, x in part.named_parameters() if x.requires_grad and x.grad is None] == []
