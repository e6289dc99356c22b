"""Joinery's parts against Octo's own code: tests/octo_reference.py wrote what that computes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.func import functional_call

from core import ActionSpec, Batch, ContextSpec, Generator, TextEncoder, TokenGroup
from core.policy.policy import Policy
from plugins.backbones.transformer import Transformer, TransformerConfig
from plugins.heads.denoising.diffusion import DiffusionConfig, build_diffusion
from plugins.policies.octo.action_tokens import OctoTokens, OctoTokensConfig
from plugins.policies.octo.vision import OctoVision, OctoVisionConfig

FILE = Path(__file__).parents[2] / "data/octo.safetensors"
CAMERAS = ("primary", "wrist")
WIDTH, WORDS, STEPS, HEADS = 32, 5, 20, 4
ACTION = ActionSpec(window=2, horizon=4, dim=5, bounded=False)


@pytest.fixture(scope="module")
def octo() -> dict[str, Tensor]:
    with safe_open(FILE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


class GivenText(TextEncoder):
    """Words that some text encoder has made: an id is the place of its word in the file."""

    width = 24

    def __init__(self, language: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(language.flatten(0, 1))

    def tokenize(self, instruction: str) -> list[int]:
        raise NotImplementedError

    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        return TokenGroup(self.embedding(ids), mask)


class Given(Generator):
    """Gives numbers from the file in place of random ones."""

    def __init__(self, normal: list[Tensor], uniform: list[Tensor]) -> None:
        super().__init__(torch.device("cpu"), None, ())
        self.numbers = {"normal": iter(normal), "uniform": iter(uniform)}

    def normal(self, *shape: int) -> Tensor:
        return self._next("normal", shape)

    def uniform(self, *shape: int) -> Tensor:
        return self._next("uniform", shape)

    def _next(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        numbers = next(self.numbers[kind])
        assert numbers.shape == shape
        return numbers


def build_policy(octo: dict[str, Tensor]) -> Policy:
    vision = OctoVisionConfig(image_size=32, channels=(32, 32, 32, 64), width=WIDTH)
    backbone = TransformerConfig(
        width=WIDTH,
        depth=2,
        heads=HEADS,
        mlp_ratio=2,
        norm="layer",
        norm_eps=1e-6,
        activation="gelu_tanh",
        bias=True,
        positions="none",
    )
    head = DiffusionConfig(
        denoiser="mlp_resnet",
        width=48,
        time_embed_dim=8,
        train_steps=STEPS,
        prediction="epsilon",
        sampler="ddpm_fixed_large",
        steps=STEPS,
        max_action=5.0,
    )
    tokens = OctoTokensConfig(count=2, text_tokens=WORDS, image_tokens=8)
    context = ContextSpec(width=WIDTH, action_tokens=2, vision_width=WIDTH, proprio_dim=0)
    return Policy(
        OctoVision(vision, cameras=dict.fromkeys(CAMERAS, (3, 32, 32))),
        GivenText(octo["language"]),
        {"vision": nn.Identity(), "text": nn.Linear(GivenText.width, WIDTH)},
        Transformer(backbone),
        OctoTokens(tokens, width=WIDTH, action=ACTION),
        build_diffusion(head, context=context, action=ACTION),
    ).eval()


def batch_of(octo: dict[str, Tensor]) -> Batch:
    return Batch(
        images={name: octo[f"image/{name}"].movedim(-1, 2) for name in CAMERAS},
        instructions=["", ""],
        text_ids=torch.arange(2 * WORDS).view(2, WORDS),
        text_mask=None,
        proprio=None,
        actions=octo["actions"],
        action_mask=octo["mask"],
        present={"wrist": torch.tensor([True, False])},
    )


# ------------------------------------------------------------- Octo's weights under Joinery's names


def linear(octo: dict[str, Tensor], source: str, target: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{target}.weight", octo[f"{source}/kernel"].T
    yield f"{target}.bias", octo[f"{source}/bias"]


def norm(octo: dict[str, Tensor], source: str, target: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{target}.weight", octo[f"{source}/scale"]
    yield f"{target}.bias", octo[f"{source}/bias"]


def vision(octo: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The stems; Octo's last convolution and its projection are two linear maps, and ours one."""
    for camera in CAMERAS:
        stem = f"octo_transformer/observation_tokenizers_{camera}/SmallStem_0"
        target = f"vision_encoder.stems.{camera}"
        for i in range(4):
            kernel = octo[f"{stem}/StdConv_{i}/kernel"].permute(3, 2, 0, 1)
            yield f"{target}.{3 * i}.weight", kernel
            yield f"{target}.{3 * i}.bias", octo[f"{stem}/StdConv_{i}/bias"]
            yield from norm(octo, f"{stem}/GroupNorm_{i}", f"{target}.{3 * i + 1}")
        first, second = f"{stem}/embedding", f"octo_transformer/obs_{camera}_projection"
        product = octo[f"{first}/kernel"][0, 0] @ octo[f"{second}/kernel"]
        yield f"{target}.12.weight", product.T[..., None, None]
        bias = octo[f"{first}/bias"] @ octo[f"{second}/kernel"] + octo[f"{second}/bias"]
        yield f"{target}.12.bias", bias


def tokens(octo: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    prefix = "octo_transformer/"
    yield from linear(octo, f"{prefix}task_language_projection", "projections.text")
    positions = [octo[f"{prefix}obs_{camera}_pos_embedding"][0] for camera in CAMERAS]
    yield "action_tokens.image_positions", torch.cat(positions, dim=1)
    yield "action_tokens.text_positions", octo[f"{prefix}task_language_pos_embedding"][0]
    yield "action_tokens.readout", octo[f"{prefix}readout_action_pos_embedding"][0]


def backbone(octo: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    transformer = "octo_transformer/BlockTransformer_0/Transformer_0"
    for i in range(2):
        source, target = f"{transformer}/encoderblock_{i}", f"backbone.blocks.{i}"
        attention = f"{source}/MultiHeadDotProductAttention_0"
        names = ("query", "key", "value")
        kernels = [octo[f"{attention}/{name}/kernel"].flatten(1).T for name in names]
        biases = [octo[f"{attention}/{name}/bias"].flatten() for name in names]
        yield f"{target}.attention.qkv.weight", torch.cat(kernels)
        yield f"{target}.attention.qkv.bias", torch.cat(biases)
        yield f"{target}.attention.output.weight", octo[f"{attention}/out/kernel"].flatten(0, 1).T
        yield f"{target}.attention.output.bias", octo[f"{attention}/out/bias"]
        yield from norm(octo, f"{source}/LayerNorm_0", f"{target}.attention_norm")
        yield from norm(octo, f"{source}/LayerNorm_1", f"{target}.mlp_norm")
        yield from linear(octo, f"{source}/MlpBlock_0/Dense_0", f"{target}.mlp.input")
        yield from linear(octo, f"{source}/MlpBlock_0/Dense_1", f"{target}.mlp.output")
    yield from norm(octo, f"{transformer}/encoder_norm", "backbone.norm")


def head(octo: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    source, target = "heads_action/diffusion_model", "policy_head.denoising.denoiser"
    yield f"{target}.frequencies", octo[f"{source}/time_preprocess/kernel"][:, 0]
    yield from linear(octo, f"{source}/cond_encoder/Dense_0", f"{target}.time.0")
    yield from linear(octo, f"{source}/cond_encoder/Dense_1", f"{target}.time.2")
    network = f"{source}/reverse_network"
    yield from linear(octo, f"{network}/Dense_0", f"{target}.input")
    for i in range(3):
        block, layers = f"{network}/MLPResNetBlock_{i}", f"{target}.blocks.{i}.layers"
        yield from norm(octo, f"{block}/LayerNorm_0", f"{layers}.0")
        yield from linear(octo, f"{block}/Dense_0", f"{layers}.1")
        yield from linear(octo, f"{block}/Dense_1", f"{layers}.3")
    yield from linear(octo, f"{network}/Dense_1", f"{target}.output.1")


def weights_of(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Octo's weights as Joinery's, so that gradients flow back to Octo's."""
    parts = (vision, tokens, backbone, head)
    return {name: x for part in parts for name, x in part(params)}


def params_of(octo: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix("params/"): x.clone().requires_grad_()
        for name, x in octo.items()
        if name.startswith("params/")
    }


def load(octo: dict[str, Tensor]) -> Policy:
    policy = build_policy(octo)
    missing = policy.load_state_dict(weights_of(params_of(octo)), strict=False)
    assert missing.missing_keys == ["text_encoder.embedding.weight"]
    assert not missing.unexpected_keys
    return policy


# -------------------------------------------------------------------------------------- comparisons


def close(received: Tensor, expected: Tensor, rounding: float = 0.0) -> None:
    """Compare to 1e-5 of the largest number, or to `rounding`."""
    largest = expected.abs().max().item()
    torch.testing.assert_close(received, expected, rtol=0, atol=max(1e-5 * largest, rounding))


def training_noise(octo: dict[str, Tensor]) -> Given:
    return Given([octo["noise"]], [(octo["step"] + 0.5) / STEPS])


def sampling_noise(octo: dict[str, Tensor]) -> Given:
    # Octo draws noise at the last step, too, and adds none of it.
    return Given([octo["start"], octo["fresh"][:-1].movedim(0, 2)], [])


@torch.no_grad()
def test_the_readouts_are_octos(octo):
    close(load(octo).context(batch_of(octo), Given([], [])).readout, octo["readout"])


def test_the_loss_and_every_gradient_are_octos(octo):
    policy, params = build_policy(octo), params_of(octo)
    arguments = (batch_of(octo), training_noise(octo))
    loss = functional_call(policy, weights_of(params), arguments).losses["total"]
    close(loss.detach(), octo["loss"].squeeze())
    loss.backward()
    for name, weight in params.items():
        expected = octo[f"gradient/{name}"]
        assert weight.grad is not None, name
        # Some are zero but for rounding: the biases of keys, which move all scores of a softmax
        # alike, and of convolutions before norms of single channels.
        close(weight.grad, expected, rounding=2e-7)


@torch.no_grad()
def test_the_sampled_chunk_is_octos(octo):
    sampled = load(octo).predict(batch_of(octo), sampling_noise(octo))
    expected = octo["sample"]
    assert (expected.abs() < 5).float().mean() > 0.5  # most are not at the bound
    close(sampled[:, -1], expected)


@torch.no_grad()
def test_the_readouts_of_an_acting_policy_are_octos(octo):
    policy, batch = load(octo), batch_of(octo)
    readouts: list[Tensor] = []
    denoising = policy.policy_head.denoising
    sample = denoising.sample

    def recorded(context, generator):
        readouts.append(context.readout)
        return sample(context, generator)

    denoising.sample = recorded
    state = policy.initial_state(torch.tensor([1, 2]))
    for t in range(2):
        images = {name: x[:, t : t + 1] for name, x in batch.images.items()}
        _, state = policy.act(replace(batch, images=images), state)
    close(torch.cat(readouts, dim=1), octo["readout"])
