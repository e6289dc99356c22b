"""ACT's parts against LeRobot's ACT: weights by their published names, loss, gradients, chunk."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core import ActionSpec, Batch, Generator
from core.policy.policy import Policy
from plugins.policies.act.names import ACTION_TOKEN_NAMES, BACKBONE_NAMES, HEAD_NAMES, RESNET
from tests.lerobot_policies import load_policy, needs_lerobot
from tests.plugins.act.policies import SIZES, batch_of, build

pytestmark = needs_lerobot
TOLERANCE = 1e-5
PARTS = ("vision_encoder", "backbone", "action_tokens", "policy_head")
CASES: dict[str, dict[str, Any]] = {
    "one camera": {
        "sizes": {**SIZES, "resnet": "resnet18"},
        "cameras": {"top": (3, 64, 96)},
        "action": ActionSpec(window=1, horizon=5, dim=2, bounded=False),
        "proprio_dim": 3,
    },
    "two cameras, two decoder layers": {
        "sizes": {
            **SIZES,
            "resnet": "resnet18",
            "window": 2,
            "width": 48,
            "heads": 6,
            "mlp_width": 40,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "cvae_layers": 2,
            "latent_width": 7,
        },
        "cameras": {"left.wrist": (3, 64, 32), "top": (3, 32, 64)},
        "action": ActionSpec(window=2, horizon=9, dim=14, bounded=False),
        "proprio_dim": 14,
    },
}
CASES["no CVAE"] = CASES["one camera"] | {"cvae": False}


class Given(Generator):
    """Gives numbers that were drawn before."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__(torch.device("cpu"), None, ())
        self.numbers = numbers

    def normal(self, *shape: int) -> Tensor:
        return self.numbers.view(shape)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_loss_gradients_and_chunk_are_lerobots(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = lerobot_policy(case)
    statistics = publish(theirs, case, tmp_path)
    cvae = case.get("cvae", True)
    overrides = [f"{part}.pretrained={tmp_path / 'published'}" for part in PARTS]
    overrides.append(f"action_tokens.cvae={str(cvae).lower()}")
    sizes = {name: case[name] for name in ("sizes", "cameras", "action", "proprio_dim")}
    ours = build(tmp_path, *overrides, **sizes)
    batch = batch_of(case["action"], cameras=case["cameras"], proprio_dim=case["proprio_dim"])
    noise = torch.randn(
        3 * case["action"].window,
        case["sizes"]["latent_width"],
        generator=torch.Generator().manual_seed(2),
    )
    monkeypatch.setattr(torch, "randn_like", lambda x: noise.view_as(x))

    given = as_lerobot(batch, statistics)
    expected_loss, _ = theirs.train()(given)
    expected_loss.backward()
    loss = ours.train()(batch, Given(noise)).losses["total"]
    loss.backward()
    assert_equal(loss, expected_loss)

    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    gradients = published_gradients(ours)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_equal(gradient, expected[name], name)

    with torch.no_grad():
        chunk = ours.eval().predict(batch, Given(noise))
        expected_chunk = theirs.predict_action_chunk(given)
    assert_equal(chunk.flatten(0, 1), expected_chunk)


def lerobot_policy(case: dict[str, Any]) -> Any:
    """LeRobot's ACT with random weights, also those that it never trains."""
    configuration, modeling = load_policy("act")
    sizes, action = case["sizes"], case["action"]
    feature = feature_type()
    inputs = {"observation.state": feature("STATE", (case["proprio_dim"],))}
    for name, shape in case["cameras"].items():
        inputs[f"observation.images.{name}"] = feature("VISUAL", shape)
    config = configuration.ACTConfig(
        input_features=inputs,
        output_features={"action": feature("ACTION", (action.dim,))},
        chunk_size=action.horizon,
        n_action_steps=action.horizon,
        pretrained_backbone_weights=None,
        dim_model=sizes["width"],
        n_heads=sizes["heads"],
        dim_feedforward=sizes["mlp_width"],
        n_encoder_layers=sizes["encoder_layers"],
        n_decoder_layers=sizes["decoder_layers"],
        n_vae_encoder_layers=sizes["cvae_layers"],
        latent_dim=sizes["latent_width"],
        use_vae=case.get("cvae", True),
        dropout=0.0,
    )
    torch.manual_seed(3)
    policy = modeling.ACTPolicy(config)
    with torch.no_grad():
        for name, buffer in policy.model.backbone.named_buffers():
            buffer.copy_(torch.rand_like(buffer) + (0.5 if "var" in name else 0))
    return policy


def feature_type() -> Any:
    """Return LeRobot's class of features, as a function of their kind and shape."""
    types = import_module("lerobot.configs.types")
    return lambda kind, shape: types.PolicyFeature(types.FeatureType(kind), shape)


def publish(policy: Any, case: dict[str, Any], folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Write a policy as LeRobot does; return the cameras' mean and standard deviation."""
    published = folder / "published"
    published.mkdir()
    save_file(policy.state_dict(), published / "model.safetensors")
    modes = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    (published / "config.json").write_text(json.dumps({"normalization_mapping": modes}))
    statistics = {
        name: (torch.full((3, 1, 1), 0.3 + 0.1 * i), torch.full((3, 1, 1), 0.2 + 0.1 * i))
        for i, name in enumerate(case["cameras"])
    }
    tensors = {
        f"observation.images.{name}.{kind}": x
        for name, pair in statistics.items()
        for kind, x in zip(("mean", "std"), pair, strict=True)
    }
    file = "policy_preprocessor_step_3_normalizer_processor.safetensors"
    save_file(tensors, published / file)
    return statistics


def as_lerobot(batch: Batch, statistics: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """A batch under LeRobot's names, where every frame is a sample."""
    assert batch.proprio is not None
    assert batch.actions is not None
    assert batch.action_mask is not None
    given = {
        f"observation.images.{name}": (x.flatten(0, 1) / 255 - statistics[name][0])
        / statistics[name][1]
        for name, x in batch.images.items()
    }
    return given | {
        "observation.state": batch.proprio.flatten(0, 1),
        "action": batch.actions.flatten(0, 1),
        "action_is_pad": ~batch.action_mask.flatten(0, 1).any(dim=-1),
    }


def published_gradients(policy: Policy) -> dict[str, Tensor]:
    """The gradient of every weight that trains, or could, under its published name."""
    names = {"backbone": BACKBONE_NAMES, "action_tokens": ACTION_TOKEN_NAMES}
    gradients = {
        published_vision_name(name): gradient
        for name, gradient in gradients_of(policy.vision_encoder).items()
    }
    for part, published in {**names, "policy_head": HEAD_NAMES}.items():
        gradients |= published.publish(gradients_of(policy.get_submodule(part)))
    return gradients


def gradients_of(part: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in part.named_parameters()
    }


def published_vision_name(name: str) -> str:
    return name.replace("model.", RESNET, 1).replace(
        "projection.", "model.encoder_img_feat_input_proj."
    )


def assert_equal(received: Tensor, expected: Tensor, name: str = "") -> None:
    """Equal to 1e-5 of the tensor's largest number; a gradient that is zero is so to 1e-7."""
    received, expected = received.detach(), expected.detach()
    worst = float((received - expected).abs().max())
    assert worst <= TOLERANCE * float(expected.abs().max()) + 1e-7, (name, worst)
