"""VQ-BeT's parts against LeRobot's: both phases' losses and gradients, codebooks, and the chunk."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from core import Batch, Generator
from core.policy.policy import Policy
from plugins.policies.vqbet.names import (
    ACTION_TOKEN_NAMES,
    BACKBONE_NAMES,
    CODEBOOK,
    HEAD_NAMES,
)
from plugins.vision.resnet_keypoints.lerobot import published_names
from tests.lerobot_policies import load_policy, needs_lerobot
from tests.plugins.vqbet.policies import CAMERAS, SIZES, action_of, batch_of, build

pytestmark = [needs_lerobot, pytest.mark.filterwarnings("ignore:.*autocast:FutureWarning")]
TOLERANCE = 1e-5
PARTS = ("vision_encoder", "backbone", "action_tokens", "policy_head")
NAMES = {
    "backbone": BACKBONE_NAMES,
    "action_tokens": ACTION_TOKEN_NAMES,
    "policy_head": HEAD_NAMES,
}
LARGER = SIZES | {
    "window": 3,
    "queries": 3,
    "chunk": 5,
    "keypoints": 6,
    "width": 32,
    "hidden_size": 48,
    "depth": 3,
    "heads": 6,
    "codes": 16,
    "code_width": 24,
    "code_hidden_size": 20,
    "action_dim": 7,
    "proprio_dim": 8,
    "offset_weight": 20,
}


class Given(Generator):
    """Gives numbers that were drawn before."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__(torch.device("cpu"), None, ())
        self.numbers = numbers

    def uniform(self, *shape: int) -> Tensor:
        return self.numbers.view(shape)


@pytest.mark.parametrize("sizes", [SIZES, LARGER], ids=["small", "larger"])
def test_both_phases_and_the_chunk_are_lerobots(
    sizes: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = lerobot_policy(sizes)
    publish(theirs, tmp_path / "published")
    overrides = [f"{part}.pretrained={tmp_path / 'published'}" for part in PARTS]
    ours, batch = build(tmp_path, *overrides, sizes=sizes), batch_of(sizes)
    given = as_lerobot(batch)
    shape = (len(batch.actions), sizes["window"], sizes["queries"], 2, sizes["codes"])
    numbers = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(torch, "multinomial", Draws(numbers))
    autoencoder = ours.get_submodule("policy_head.autoencoder")

    # LeRobot's first step is its last of the first phase, too
    ours.requires_grad_(False)
    autoencoder.requires_grad_(True)
    check_step(ours, theirs, batch, given, numbers)
    check_codebooks(ours, theirs)

    ours.requires_grad_(True)
    autoencoder.requires_grad_(False)
    check_step(ours, theirs, batch, given, numbers)
    check_codebooks(ours, theirs)

    with torch.no_grad():
        chunk = ours.eval().predict(batch, Given(numbers))[:, -1, : sizes["chunk"]]
        observed = {name: x for name, x in given.items() if name != "action"}
        observed["observation.images"] = observed["observation.images.top"].unsqueeze(2)
        expected = theirs.eval().vqbet(observed, rollout=True)
    assert_equal(chunk, expected, "chunk")


class Draws:
    """torch.multinomial with the numbers that ours draws.

    numbers: (B T Q G C), uniform. LeRobot's policy draws for the first query of each frame and for
        all queries of the last one.
    """

    def __init__(self, numbers: Tensor) -> None:
        drawn = torch.cat([numbers[:, :, 0], numbers[:, -1, 1:]], dim=1)
        self.exponential = -torch.log1p(-drawn.flatten(0, 2))

    def __call__(self, probabilities: Tensor, num_samples: int) -> Tensor:
        assert num_samples == 1
        return (probabilities / self.exponential).argmax(dim=-1, keepdim=True)


def check_step(
    ours: Policy, theirs: Any, batch: Batch, given: dict[str, Tensor], numbers: Tensor
) -> None:
    """Compare the loss of a training step and every gradient."""
    for policy in (ours, theirs):
        policy.zero_grad()
    loss = ours.train()(batch, Given(numbers)).losses["total"]
    expected_loss, _ = theirs.train()(dict(given))
    loss.backward()
    expected_loss.backward()
    assert_equal(loss, expected_loss.squeeze(), "loss")
    received, expected = published_gradients(ours), gradients_of(theirs)
    no_effect = expected.pop("vqbet.rgb_encoder.pool.nets.bias")  # a softmax does not see it
    assert no_effect.abs().max() < 1e-6
    assert received.keys() == expected.keys()
    for name, gradient in received.items():
        assert_equal(gradient, expected[name], name)


def check_codebooks(ours: Policy, theirs: Any) -> None:
    """Compare the codebooks and their averages."""
    published = HEAD_NAMES.publish(ours.policy_head.state_dict())
    expected = theirs.state_dict()
    for name in (name for name in published if CODEBOOK in name):
        assert_equal(published[name], expected[name][0], name)


def lerobot_policy(sizes: dict[str, int]) -> Any:
    """LeRobot's VQ-BeT with random weights and codebooks."""
    configuration, modeling = load_policy("vqbet")
    types = import_module("lerobot.configs.types")

    def feature(kind: str, shape: tuple[int, ...]) -> Any:
        return types.PolicyFeature(types.FeatureType(kind), shape)

    config = configuration.VQBeTConfig(
        input_features={
            "observation.images.top": feature("VISUAL", CAMERAS["top"]),
            "observation.state": feature("STATE", (sizes["proprio_dim"],)),
        },
        output_features={"action": feature("ACTION", (action_of(sizes).dim,))},
        n_obs_steps=sizes["window"],
        n_action_pred_token=sizes["queries"],
        action_chunk_size=sizes["chunk"],
        crop_shape=None,
        spatial_softmax_num_keypoints=sizes["keypoints"],
        n_vqvae_training_steps=1,
        vqvae_n_embed=sizes["codes"],
        vqvae_embedding_dim=sizes["code_width"],
        vqvae_enc_hidden_dim=sizes["code_hidden_size"],
        gpt_block_size=sizes["max_tokens"],
        gpt_input_dim=sizes["width"],
        gpt_output_dim=sizes["width"],
        gpt_n_layer=sizes["depth"],
        gpt_n_head=sizes["heads"],
        gpt_hidden_dim=sizes["hidden_size"],
        dropout=0.0,
        offset_loss_weight=sizes["offset_weight"],
    )
    torch.manual_seed(3)
    policy = modeling.VQBeTPolicy(config)
    with torch.no_grad():
        for name, buffer in policy.named_buffers():
            if name.endswith("cluster_size"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
            elif CODEBOOK in name and "embed" in name:
                buffer.copy_(0.3 * torch.randn_like(buffer))
    return policy


def publish(policy: Any, folder: Path) -> None:
    """Write a policy as LeRobot does."""
    folder.mkdir()
    save_file(policy.state_dict(), folder / "model.safetensors")
    modes = {"VISUAL": "IDENTITY", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    (folder / "config.json").write_text(json.dumps({"normalization_mapping": modes}))


def as_lerobot(batch: Batch) -> dict[str, Tensor]:
    """A batch under LeRobot's names, with the actions of a window in one row."""
    assert batch.proprio is not None
    assert batch.actions is not None
    actions = torch.cat([batch.actions[:, :-1, 0], batch.actions[:, -1]], dim=1)
    return {
        "observation.images.top": batch.images["top"] / 255,
        "observation.state": batch.proprio,
        "action": actions,
    }


def published_gradients(policy: Policy) -> dict[str, Tensor]:
    """The gradient of every weight under its published name."""
    vision = gradients_of(policy.vision_encoder)
    names = published_names(list(vision), None)
    gradients = {f"vqbet.{names[name]}": gradient for name, gradient in vision.items()}
    for part, table in NAMES.items():
        gradients |= table.publish(gradients_of(policy.get_submodule(part)))
    return gradients


def gradients_of(part: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in part.named_parameters()
    }


def assert_equal(received: Tensor, expected: Tensor, name: str) -> None:
    """Equal to 1e-5 of the tensor's largest number; what is zero but for rounding, to 1e-7."""
    received, expected = received.detach(), expected.detach()
    worst = float((received - expected).abs().max())
    assert received.shape == expected.shape, name
    assert worst <= TOLERANCE * float(expected.abs().max()) + 1e-7, (name, worst)
