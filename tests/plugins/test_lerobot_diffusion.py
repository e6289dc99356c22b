"""Diffusion Policy against LeRobot's, with the same weights, images, states, actions and noise."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core import ActionSpec, Batch, ConfigError, Generator
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.policy.weight_sources import assumptions_of
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from plugins.heads.denoising.lerobot import UNET, published_name
from plugins.vision.resnet_keypoints.lerobot import published_names
from tests.lerobot_policies import load_policy, needs_lerobot

pytest.importorskip("diffusers", reason="needs diffusers: pip install diffusers")
pytestmark = [
    needs_lerobot,
    # diffusers 0.42 makes numpy arrays of tensors in a way that numpy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
RECIPE = """
[data]
path = "unused.zarr"
window = 2
proprio_normalization = "min_max"
[action]
horizon = {horizon}
normalization = "min_max"
[vision_encoder]
name = "resnet_keypoints"
per_camera = {per_camera}
crop_size = [48, 60]
[text_encoder]
name = "none"
[backbone]
name = "identity"
width = 64
[action_tokens]
name = "learned"
count = 0
[policy_head]
name = "diffusion"
condition = "observation"
observation_frames = 2
denoiser = "unet"
down_dims = {down_dims}
time_embed_dim = {time_embed_dim}
film_scale = {film_scale}
prediction = "{prediction}"
sampler = "{sampler}"
train_steps = 100
steps = {steps}
"""
# cameras in LeRobot's order, which is not that of their names
CASES: dict[str, dict[str, Any]] = {
    "one camera, 2 numbers, epsilon, DDIM": {
        "cameras": ["top"],
        "proprio_dim": 2,
        "action_dim": 2,
        "horizon": 15,
        "per_camera": "false",
        "down_dims": [16, 32],
        "time_embed_dim": 16,
        "film_scale": "true",
        "prediction": "epsilon",
        "sampler": "ddim",
        "steps": 5,
    },
    "two cameras, 14 numbers, sample, DDPM, a chunk that ends early": {
        "cameras": ["wrist", "top"],
        "proprio_dim": 14,
        "action_dim": 14,
        "horizon": 7,
        "per_camera": "true",
        "down_dims": [16, 24, 32],
        "time_embed_dim": 12,
        "film_scale": "false",
        "prediction": "sample",
        "sampler": "ddpm",
        "steps": 10,
        "padded": 2,
    },
}
SHAPE = (3, 64, 80)
ROWS = 3
TOLERANCE = 1e-5


class Given(Generator):
    """Gives these numbers, whatever is asked for."""

    def __init__(self, *numbers: Tensor) -> None:
        super().__init__(torch.device("cpu"), None, ())
        self.numbers = iter(numbers)

    def normal(self, *shape: int) -> Tensor:
        return next(self.numbers).view(shape)

    uniform = normal


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def test_loss_gradients_and_chunk_are_lerobots(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = lerobot_policy(case)
    publish(theirs, case, tmp_path / "published")
    ours = build(case, tmp_path, tmp_path / "published")
    batch, given = batches(case)
    length = case["horizon"] + 1
    draw = torch.Generator().manual_seed(2)
    noise = torch.randn(ROWS, 2, length, case["action_dim"], generator=draw)
    step = torch.randint(100, (ROWS, 2), generator=draw)

    monkeypatch.setattr(torch, "randn", lambda *_, **__: noise[:, 1])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: step[:, 1])
    expected_loss, _ = theirs.train()(given)
    monkeypatch.undo()
    expected_loss.backward()
    loss = ours.train()(batch, Given(noise, (step + 0.5) / 100)).losses["total"]
    # LeRobot averages over masked actions, too, which are zeros.
    loss = loss * (1 - case.get("padded", 0) / length)
    loss.backward()
    assert_equal(loss, expected_loss)

    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name in [name for name in expected if name.endswith("pool.nets.bias")]:
        assert expected.pop(name).abs().max() < 1e-7, "a softmax over the map does not see it"
    gradients = published_gradients(ours, case)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_equal(gradient, expected[name], name)

    assert_same_chunks(theirs.eval(), ours.eval(), case, monkeypatch)


@torch.no_grad()
def assert_same_chunks(
    theirs: Any, ours: Policy, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare what both sample at each frame; at the first one LeRobot's queue repeats it."""
    batch, given = batches(case)
    shape = (ROWS, 2, case["horizon"] + 1, case["action_dim"])
    draw = torch.Generator().manual_seed(4)
    noise = torch.randn(shape, generator=draw)
    # DDPM draws noise at every step but the last.
    fresh = torch.randn(ROWS, 2, case["steps"] - 1, *shape[2:], generator=draw)
    fresh = fresh[:, :, : fresh.shape[2] if case["sampler"] == "ddpm" else 0]
    chunks = ours.predict(batch, Given(noise, fresh))
    for t, frames in enumerate(([0, 0], [0, 1])):
        steps = iter(fresh[:, t].unbind(1))
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, s=steps, **__: next(s)
        )
        observed = {name: x[:, frames] for name, x in given.items() if "observation" in name}
        images = [observed[f"observation.images.{name}"] for name in case["cameras"]]
        observed["observation.images"] = torch.stack(images, dim=2)
        expected = theirs.diffusion.generate_actions(observed, noise=noise[:, t])
        assert_equal(chunks[:, t], expected, f"frame {t}")
        assert next(steps, None) is None


def test_what_weights_were_trained_on_is_said(case: dict[str, Any], tmp_path: Path) -> None:
    publish(lerobot_policy(case), case, tmp_path / "published")
    (line,) = assumptions_of(build(case, tmp_path, tmp_path / "published"))
    assert line.startswith(
        "policy_head: the published weights were trained on actions with minimum"
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["policy_head.prediction=sample"], 'prediction_type = "epsilon" .*_head.prediction'),
        (["policy_head.train_steps=50"], "num_train_timesteps = 100 .*policy_head.train_steps"),
        (["policy_head.betas=linear"], "beta_schedule = .*policy_head.betas"),
        (["policy_head.clip=false"], "clip_sample = true .*policy_head.clip"),
        (["policy_head.denoiser=mlp"], 'need denoiser = "unet"'),
        (["policy_head.n_groups=4"], "need n_groups = 8"),
        (["policy_head.time_embed_dim=20"], "misshapen: diffusion_step_encoder"),
        (["data.proprio_normalization=mean_std"], 'set data.proprio_normalization = "min_max"'),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    case = next(iter(CASES.values()))
    publish(lerobot_policy(case), case, tmp_path / "published")
    with pytest.raises(ConfigError, match=f"policy_head.pretrained: .*{said}"):
        build(case, tmp_path, tmp_path / "published", *overrides)


def test_flow_matching_has_no_published_weights(tmp_path: Path) -> None:
    case = next(iter(CASES.values()))
    publish(lerobot_policy(case), case, tmp_path / "published")
    flow = '{name = "flow", condition = "observation", pretrained = "published"}'
    with pytest.raises(ConfigError, match=r"policy_head\.pretrained: nobody publishes"):
        build(case, tmp_path, tmp_path / "published", f"policy_head={flow}")


def build(case: dict[str, Any], folder: Path, published: Path, *overrides: str) -> Policy:
    """Build our policy with published weights."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(**case))
    sources = [f"{part}.pretrained={published}" for part in ("vision_encoder", "policy_head")]
    recipe = load_recipe(path, [*sources, *overrides], load_plugins())
    torch.manual_seed(0)
    return build_policy(
        recipe,
        dict.fromkeys(case["cameras"], SHAPE),
        ActionSpec(window=2, horizon=case["horizon"], dim=case["action_dim"]),
        case["proprio_dim"],
    )


def lerobot_policy(case: dict[str, Any]) -> Any:
    """LeRobot's Diffusion Policy with random weights.

    Those of the last layer are small. Otherwise each step of a random network would enlarge
    rounding errors: with noise that differs by 1e-7, LeRobot's own chunk would change by 7e-5.
    """
    configuration, modeling = load_policy("diffusion")
    types = import_module("lerobot.configs.types")

    def feature(kind: str, *shape: int) -> Any:
        return types.PolicyFeature(types.FeatureType(kind), shape)

    inputs = {"observation.state": feature("STATE", case["proprio_dim"])}
    inputs |= {f"observation.images.{name}": feature("VISUAL", *SHAPE) for name in case["cameras"]}
    config = configuration.DiffusionConfig(
        n_obs_steps=2,
        input_features=inputs,
        output_features={"action": feature("ACTION", case["action_dim"])},
        horizon=case["horizon"] + 1,
        n_action_steps=case["horizon"],
        crop_shape=(48, 60),
        crop_is_random=False,
        use_separate_rgb_encoder_per_camera=case["per_camera"] == "true",
        down_dims=tuple(case["down_dims"]),
        diffusion_step_embed_dim=case["time_embed_dim"],
        use_film_scale_modulation=case["film_scale"] == "true",
        noise_scheduler_type=case["sampler"].upper(),
        prediction_type=case["prediction"],
        num_inference_steps=case["steps"],
        do_mask_loss_for_padding=True,
    )
    torch.manual_seed(3)
    policy = modeling.DiffusionPolicy(config)
    with torch.no_grad():
        policy.diffusion.unet.final_conv[1].weight *= 0.2
    return policy


def publish(policy: Any, case: dict[str, Any], folder: Path) -> None:
    """Write a policy as LeRobot does."""
    folder.mkdir()
    save_file(policy.state_dict(), folder / "model.safetensors")
    config = policy.config
    settings: dict[str, Any] = {
        "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
        "input_features": {name: {} for name in config.input_features},
    }
    keys = ("n_obs_steps", "horizon", "n_groups", "num_train_timesteps", "beta_schedule")
    keys += ("prediction_type", "clip_sample", "crop_shape", "resize_shape")
    settings |= {key: getattr(config, key) for key in keys}
    (folder / "config.json").write_text(json.dumps(settings))
    statistics = {
        f"observation.images.{name}.{kind}": torch.full((3, 1, 1), value)
        for name, pair in pixels(case).items()
        for kind, value in zip(("mean", "std"), pair, strict=True)
    }
    statistics |= {
        f"action.{kind}": torch.full((case["action_dim"],), value)
        for kind, value in (("min", -2.0), ("max", 3.0))
    }
    save_file(statistics, folder / "policy_preprocessor_step_3_normalizer_processor.safetensors")


def pixels(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each camera's pixels."""
    return {name: (0.3 + 0.1 * i, 0.2 + 0.1 * i) for i, name in enumerate(case["cameras"])}


def batches(case: dict[str, Any]) -> tuple[Batch, dict[str, Tensor]]:
    """Windows from the middle of episodes, for us and under LeRobot's names."""
    draw = torch.Generator().manual_seed(1)
    horizon, padded = case["horizon"], case.get("padded", 0)
    images = {
        name: torch.randint(256, (ROWS, 2, *SHAPE), generator=draw, dtype=torch.uint8)
        for name in case["cameras"]
    }
    proprio = torch.rand(ROWS, 2, case["proprio_dim"], generator=draw) * 2 - 1
    actions = torch.rand(ROWS, horizon + 1, case["action_dim"], generator=draw) * 2 - 1
    counts = torch.arange(horizon + 1) < horizon + 1 - padded
    # What is masked enters our chunk as zeros.
    actions = actions * counts[:, None]
    reach = torch.arange(2)[:, None] + torch.arange(horizon)
    chunks, mask = actions[:, reach], counts[reach][None, ..., None].expand_as(actions[:, reach])
    ours = Batch(
        images=images,
        instructions=[""] * ROWS,
        text_ids=torch.zeros(ROWS, 0, dtype=torch.int64),
        text_mask=None,
        proprio=proprio,
        actions=chunks + ~mask,  # our head must not see these
        action_mask=mask,
        begins=torch.zeros(ROWS, dtype=torch.bool),
    )
    theirs = {
        f"observation.images.{name}": (images[name] / 255 - mean) / std
        for name, (mean, std) in pixels(case).items()
    }
    is_pad = (~counts).expand(ROWS, -1)
    return ours, theirs | {
        "observation.state": proprio,
        "action": actions,
        "action_is_pad": is_pad,
    }


def published_gradients(policy: Policy, case: dict[str, Any]) -> dict[str, Tensor]:
    """The gradient of every weight under its published name."""
    vision = {name: x.grad for name, x in policy.vision_encoder.named_parameters()}
    cameras = case["cameras"]
    places = [cameras.index(name) for name in sorted(cameras)]
    names = published_names(list(vision), places if case["per_camera"] == "true" else None)
    gradients = {f"diffusion.{names[name]}": x for name, x in vision.items()}
    for name, weight in policy.policy_head.denoising.denoiser.named_parameters():
        gradient = weight.grad
        if ".film." in name and name.endswith("weight"):
            gradient = with_cameras_in_their_order(gradient, case)
        gradients[UNET + published_name(name)] = gradient
    return gradients


def with_cameras_in_their_order(gradient: Tensor, case: dict[str, Any]) -> Tensor:
    """Columns: time, then for each of two frames the state and 64 numbers of each camera."""
    frame = [case["proprio_dim"], *[64 for _ in case["cameras"]]]
    time, *blocks = gradient.split([case["time_embed_dim"], *frame, *frame], dim=1)
    order = [0, *(1 + sorted(case["cameras"]).index(name) for name in case["cameras"])]
    order += [len(frame) + i for i in order]
    return torch.cat([time, *(blocks[i] for i in order)], dim=1)


def assert_equal(received: Tensor, expected: Tensor, name: str = "") -> None:
    """Equal to 1e-5 of the tensor's largest number; a gradient that is zero is so to 1e-7."""
    received, expected = received.detach(), expected.detach()
    worst = float((received - expected).abs().max())
    assert worst <= TOLERANCE * float(expected.abs().max()) + 1e-7, (name, worst)
