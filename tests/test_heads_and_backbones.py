"""Every built-in policy head with every built-in backbone, in both formulations.

On the layers of a transformer, of Kosmos-2 and of a VLM of transformers, all tiny, each head keeps
its contract. In a whole policy of each backbone it trains and acts, or is refused in one line.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core import ActionSpec, ConfigError, Generator
from core.policy.policy import Policy
from core.recipe.recipe import load_recipe
from core.registry.hookspecs import ComponentKind
from core.testing import Setup
from plugins.heads.denoising.denoisers import DENOISERS
from plugins.heads.tokens.fast_tokenizer import fit
from plugins.text.sentencepiece import SHIPPED
from tests.contexts import noise
from tests.core.testing.failing import failures
from tests.plugins.huggingface.families import FAMILIES, save_model
from tests.plugins.kosmos2.models import VOCABULARY
from tests.strangers import PARTS, batch_of, build, catalogue, perturbed

WINDOW = 2
ACTION = ActionSpec(window=WINDOW, horizon=3, dim=4, binary=(3,))
# Norms over groups of one channel each would make rounding a thousand times as large.
DENOISING = """steps = 2
width = 16
depth = 1
heads = 2
down_dims = [8]
n_groups = 2
kernel_size = 3
time_embed_dim = 8"""
# {name in a test: lines of [policy_head]}
HEADS = {
    "lstm": 'name = "lstm"\nlayers = 1\nhidden_size = 16\nmlp = [16]',
    "carrying lstm": 'name = "lstm"\nlayers = 2\nhidden_size = 8\nmlp = []\nmemory = "episode"',
    "mlp": 'name = "mlp"\nmlp = [16]',
    "gpt": 'name = "gpt"\nlayers = 1\nheads = 2\nhidden_size = 16\nmlp = [16]',
    "discrete": 'name = "discrete"\nbins = 8\nmlp = [16]',
    "gmm": 'name = "gmm"\ncomponents = 2\nmlp = [16]',
    "bins": 'name = "bins"\nbins = 8',
    "bins of words": 'name = "bins"\nbins = 8\nvocabulary = "language_model"',
    "parallel bins": 'name = "bins"\nbins = 8\ndecode = "parallel"',
    "fast": 'name = "fast"\ntokenizer = "fast.json"',
    "act": 'name = "act"\nheads = 2\nmlp_width = 16\ndropout = 0.0',
    "vqbet": 'name = "vqbet"\nhidden_size = 8\ncode_width = 4\ncodes = 4',
    "flow": f'name = "flow"\n{DENOISING}',
    "expert": 'name = "expert"\nsteps = 2\nwidth = 16\nmlp_width = 16',
    "autoregressive": 'name = "autoregressive"\nbins = 8',  # of another package
} | {
    f"diffusion, {denoiser}": f'name = "diffusion"\ndenoiser = "{denoiser}"\n{DENOISING}'
    for denoiser in DENOISERS
}
# Words are as wide as the backbone, because "bins of words" scores them.
ENCODERS = PARTS[: PARTS.index("[backbone]")].replace(
    '"sentencepiece"\nwidth = 24', '"sentencepiece"\nwidth = 32'
)
KOSMOS2 = f"""
[data]
path = "unused.zarr"
[vision_encoder]
name = "kosmos2_vision"
width = 32
heads = 4
latents = 5
clip_width = 32
clip_depth = 2
clip_heads = 2
image_size = 28
[text_encoder]
name = "kosmos2_text"
model = "{SHIPPED}"
width = 32
vocabulary = {VOCABULARY}
[backbone]
name = "kosmos2"
width = 32
depth = 3
heads = 4
mlp_width = 64
"""
HUGGINGFACE = """
[data]
path = "unused.zarr"
[vision_encoder]
name = "huggingface"
model = "paligemma"
image_size = 32
[text_encoder]
name = "huggingface"
model = "paligemma"
[backbone]
name = "huggingface"
model = "paligemma"
"""
TRANSFORMER = f"""{ENCODERS}
[backbone]
name = "transformer"
width = 32
depth = 2
heads = 4
"""
ACT = f"""{ENCODERS}
[backbone]
name = "act"
width = 32
depth = 2
heads = 4
mlp_width = 32
"""
MINGPT = f"""{ENCODERS}
[backbone]
name = "mingpt"
width = 32
hidden_size = 24
depth = 2
heads = 4
max_tokens = 96
"""
IDENTITY = f"""{ENCODERS}
[backbone]
name = "identity"
width = 32
"""
# {name of the backbone: recipe up to the lines of its head}
BACKBONES = {
    name: f'{parts}[action_tokens]\nname = "learned"\n[policy_head]\n'
    for name, parts in {
        "transformer": TRANSFORMER,
        "kosmos2": KOSMOS2,
        "huggingface": HUGGINGFACE,
        "act": ACT,
        "mingpt": MINGPT,
        "identity": IDENTITY,
    }.items()
}
WITH_LAYERS = ("transformer", "kosmos2", "huggingface")
NEED_LAYERS = {"expert", "bins", "bins of words", "fast", "autoregressive"}
# {backbone: heads that need what it does not offer}
REFUSED = {
    "act": NEED_LAYERS,
    "mingpt": NEED_LAYERS,
    "identity": HEADS.keys() - {"act"},
}
PAIRS = list(product(BACKBONES, HEADS))


def is_refused(backbone: str, head: str) -> bool:
    return head in REFUSED.get(backbone, ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder for recipes, with the model and the tokenizer that some of them name."""
    folder = tmp_path_factory.mktemp("recipes")
    save_model(folder / "paligemma", FAMILIES["paligemma"].config, weights=False)
    chunks = np.random.default_rng(0).uniform(-1, 1, (99, ACTION.horizon, ACTION.dim))
    fit(chunks.astype(np.float32), scale=4, vocabulary=40).save(folder / "fast.json")
    return folder


@pytest.fixture(scope="module")
def policies(folder) -> dict[str, Policy]:
    """A policy of each backbone that has layers to read."""
    return {name: build(folder, HEADS["mlp"], parts=BACKBONES[name]) for name in WITH_LAYERS}


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("policy_head", {tomllib.loads(lines)["name"] for lines in HEADS.values()}),
        ("backbone", {*BACKBONES}),
    ],
)
def test_every_built_in_component_is_here(kind: ComponentKind, named: set[str]):
    built_in = {c.name for c in catalogue()[kind] if c.build.__module__.startswith("plugins.")}
    assert built_in <= named


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
@pytest.mark.parametrize(("backbone", "head"), [*product(WITH_LAYERS, HEADS)])
def test_a_head_keeps_its_contract(folder, policies, backbone, head, formulation):
    path = folder / "recipe.toml"
    path.write_text(BACKBONES[backbone] + HEADS[head])
    part = load_recipe(path, [], catalogue()).parts["policy_head"]
    policy = policies[backbone]
    setup = Setup(
        width=policy.backbone.width,
        vocabulary=policy.text_encoder.vocabulary,
        action=ACTION,
        formulation=formulation,
        backbone=policy.backbone,
    )
    errors = failures("policy_head", part.component.build, part.config, setup=setup)
    assert not errors, errors


def is_learning(weight: Tensor) -> bool:
    return weight.grad is not None and bool(weight.grad.any())


def parts(weights: Iterable[str]) -> set[str]:
    """Return the parts of a policy that have these weights."""
    return {name.partition(".")[0] for name in weights}


class SameForAllFrames(Generator):
    """Gives every frame of a window the noise that one frame gets while a policy acts."""

    def normal(self, *shape: int) -> Tensor:
        return super().normal(shape[0], 1, *shape[2:]).expand(shape)

    def uniform(self, *shape: int) -> Tensor:
        return super().uniform(shape[0], 1, *shape[2:]).expand(shape)


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
@pytest.mark.parametrize(("backbone", "head"), [p for p in PAIRS if not is_refused(*p)])
def test_a_policy_trains_and_acts(folder, backbone, head, formulation):
    tokens = f"action_tokens.formulation={formulation}"
    policy = build(folder, HEADS[head], tokens, parts=BACKBONES[backbone], window=WINDOW)
    batch = batch_of(perturbed(policy), window=WINDOW)
    policy.train()(batch, noise()).losses["total"].backward()
    learning = {name for name, weight in policy.named_parameters() if is_learning(weight)}
    assert parts(learning) == parts(name for name, _ in policy.named_parameters())
    policy.eval()
    seeds = torch.arange(len(batch.text_ids))
    state = policy.initial_state(seeds)
    with torch.no_grad():
        for t in range(WINDOW):
            frame = {name: x[:, t : t + 1] for name, x in batch.images.items()}
            newest = replace(batch, images=frame, proprio=batch.proprio[:, t : t + 1])
            actions, state = policy.act(newest, state)
            keys = [(int(seed), t) for seed in seeds]
            window = policy.predict(batch, SameForAllFrames.by_row(keys, torch.device("cpu")))
            torch.testing.assert_close(actions, window[:, t], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backbone", "head"), [p for p in PAIRS if is_refused(*p)])
def test_a_backbone_that_lacks_what_a_head_needs_is_refused_in_one_line(folder, backbone, head):
    with pytest.raises(ConfigError) as caught:
        build(folder, HEADS[head], parts=BACKBONES[backbone])
    (mistake,) = caught.value.mistakes
    assert "\n" not in mistake
    assert "policy_head.name: " in mistake
    assert "; choose another backbone" in mistake
