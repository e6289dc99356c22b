"""What Octo's own code computes with random weights, in one file that the tests compare with.

It needs JAX, so it does not run in CI; tests/data/octo.safetensors is what it wrote. In a virtual
environment of its own, with Octo's repository beside it:

pip install jax==0.4.20 jaxlib==0.4.20 flax==0.7.5 optax==0.1.5 distrax==0.1.5
pip install chex==0.1.85 tensorflow_probability==0.23.0 "numpy<2" "scipy<1.12" einops safetensors
PYTHONPATH=octo python tests/octo_reference.py tests/data/octo.safetensors

The file holds, all in float32 but for images, masks and steps:

params/NAME     a weight, by its name in Octo
gradient/NAME   the gradient of the loss
image/CAMERA    (B T Y X C) uint8; camera "wrist" is missing in the second sample
language        (B M D_text), what a text encoder makes of instructions
actions, mask   (B T H A), masked actions being zero
loss, readout   the loss, and the transformer's output (B T Q D)
step, noise     drawn in training: (B T) and (B T H A)
sample          a sampled chunk (B H A), with `start` (B T H A) and `fresh` (steps B T H A) as noise

Octo's loss is divided by the number of action dimensions, by which it multiplies the mean.
"""

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from octo.model.components.action_heads import DiffusionActionHead
from octo.model.components.tokenizers import ImageTokenizer, LanguageTokenizer
from octo.model.components.vit_encoders import SmallStem
from octo.model.octo_module import OctoModule
from octo.utils.spec import ModuleSpec
from safetensors.numpy import save_file

CAMERAS = ("primary", "wrist")
BATCH, WINDOW, WORDS, TEXT_WIDTH, WIDTH = 2, 2, 5, 24, 32
HORIZON, ACTIONS, STEPS = 4, 5, 20


def build() -> OctoModule:
    """Build a small Octo with all that Octo-Small has, but goal images and T5."""
    stem = ModuleSpec.create(SmallStem, patch_size=16, features=(32, 32, 32, 64), num_features=48)
    cameras = {
        name: ModuleSpec.create(ImageTokenizer, encoder=stem, obs_stack_keys=[f"image_{name}"])
        for name in CAMERAS
    }
    head = ModuleSpec.create(
        DiffusionActionHead,
        readout_key="readout_action",
        action_horizon=HORIZON,
        action_dim=ACTIONS,
        time_dim=8,
        hidden_dim=48,
        diffusion_steps=STEPS,
    )
    return OctoModule.create(
        observation_tokenizers=cameras,
        task_tokenizers={"language": ModuleSpec.create(LanguageTokenizer)},
        heads={"action": head},
        readouts={"action": 2},
        transformer_kwargs={
            "num_layers": 2,
            "mlp_dim": 64,
            "num_attention_heads": 4,
            "dropout_rate": 0.0,
            "attention_dropout_rate": 0.0,
        },
        token_embedding_size=WIDTH,
        max_horizon=WINDOW,
        repeat_task_tokens=True,
        use_correct_attention=True,
    )


def draw_inputs(draw: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return observations and tasks, as Octo reads them."""
    shown = np.ones((BATCH, WINDOW), bool)
    observations: dict[str, Any] = {
        f"image_{name}": draw.integers(256, size=(BATCH, WINDOW, 32, 32, 3), dtype=np.uint8)
        for name in CAMERAS
    }
    observations["pad_mask_dict"] = {
        "image_primary": shown,
        "image_wrist": shown & np.array([[True], [False]]),
    }
    language = draw.standard_normal((BATCH, WORDS, TEXT_WIDTH), np.float32)
    present = {"language_instruction": np.ones(BATCH, bool)}
    return observations, {"language_instruction": language, "pad_mask_dict": present}


def recording(draw: Callable[..., Any], drawn: list[Any]) -> Callable[..., Any]:
    """Return a function that draws as `draw` does, and keeps the numbers that it has drawn.

    Flax also calls it without numbers, to learn the shapes of weights.
    """

    def record(*arguments: Any, **keywords: Any) -> Any:
        numbers = draw(*arguments, **keywords)
        if not isinstance(numbers, jax.core.Tracer):
            drawn.append(numbers)
        return numbers

    return record


def find_noise(head: Any) -> None:
    """Change a head's weights so that the noise it finds in a chunk is the chunk and a little more.

    With random weights, nearly all sampled actions would lie at the bound of 5. The chunk passes
    through the network because silu(x) - silu(-x) is x.
    """
    network, size = head["diffusion_model"]["reverse_network"], HORIZON * ACTIONS
    both = np.hstack([np.eye(size), -np.eye(size)])
    first, last = network["Dense_0"], network["Dense_1"]
    first["kernel"] = first["kernel"].at[-size:, : 2 * size].add(both)
    last["kernel"] = (0.02 * last["kernel"]).at[: 2 * size].add(both.T)


def noise_of_sampling(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise that `predict_action` draws with a key: the first chunk, and each step's."""
    shape = (BATCH, WINDOW, HORIZON * ACTIONS)
    drawn = []
    for _ in range(1 + STEPS):
        rng, key = jax.random.split(rng)
        drawn.append(np.asarray(jax.random.normal(key, shape)))
    return drawn[0], np.stack(drawn[1:])


def main(out: str) -> None:
    """Run Octo, and write the file."""
    draw = np.random.default_rng(0)
    module = build()
    observations, tasks = draw_inputs(draw)
    pads = np.ones((BATCH, WINDOW), bool)
    key, training_key, sampling_key = jax.random.split(jax.random.PRNGKey(0), 3)
    variables = module.init({"params": key, "dropout": key}, observations, tasks, pads, train=False)
    params = jax.tree_util.tree_map(
        lambda x: x + 0.1 * draw.standard_normal(x.shape, np.float32), variables["params"]
    )
    mask = draw.random((BATCH, WINDOW, HORIZON, ACTIONS)) < 0.9
    actions = mask * draw.standard_normal(mask.shape, np.float32)
    actions[0, 0, 0, :2] = 6, -6  # beyond the bound of 5
    mask[0, 0, 0, :2] = True

    def read(params: Any) -> Any:
        octo = module.bind({"params": params})
        return octo.octo_transformer(observations, tasks, pads, train=False)

    def loss_of(params: Any) -> Any:
        head = module.bind({"params": params}, rngs={"dropout": training_key}).heads["action"]
        return head.loss(read(params), actions, pads, mask, train=False)[0] / ACTIONS

    find_noise(params["heads_action"])
    steps: list[Any] = []
    noise: list[Any] = []
    with (
        patch.object(jax.random, "randint", recording(jax.random.randint, steps)),
        patch.object(jax.random, "normal", recording(jax.random.normal, noise)),
    ):
        loss, gradients = jax.value_and_grad(loss_of)(params)
    outputs = read(params)
    sample = (
        module.bind({"params": params})
        .heads["action"]
        .predict_action(outputs, rng=sampling_key, train=False, embodiment_action_dim=ACTIONS)
    )
    start, fresh = noise_of_sampling(sampling_key)
    chunk = (HORIZON, ACTIONS)
    tensors = {
        **{f"params/{name}": x for name, x in flatten_dict(params, sep="/").items()},
        **{f"gradient/{name}": x for name, x in flatten_dict(gradients, sep="/").items()},
        **{f"image/{name}": observations[f"image_{name}"] for name in CAMERAS},
        "language": tasks["language_instruction"],
        "actions": actions,
        "mask": mask,
        "loss": loss,
        "readout": outputs["readout_action"].tokens,
        "step": steps[0].reshape(BATCH, WINDOW).astype(jnp.int32),
        "noise": noise[0].reshape(BATCH, WINDOW, *chunk),
        "start": start.reshape(*start.shape[:-1], *chunk),
        "fresh": fresh.reshape(*fresh.shape[:-1], *chunk),
        "sample": sample,
    }
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, out, versions)


if __name__ == "__main__":
    main(sys.argv[1])
