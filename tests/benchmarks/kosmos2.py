"""Kosmos-2's parts: speed against transformers' own model, and the memory of one full-size training step.

    python -m tests.benchmarks.kosmos2 speed
    python -m tests.benchmarks.kosmos2 memory full
    python -m tests.benchmarks.kosmos2 memory lora

Weights are random. Speed: forward and backward of the same sequences with the same weights and type, the two in turn in
one process, so that a busy machine slows both; the ratio is transformers' time over ours. Memory: the largest resident
size of the process that builds the policy of recipes/robovlms_kosmos_calvin.toml and takes one step of AdamW.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from core import ActionSpec, Batch, import_library
from core.plugins import load_plugins
from core.policy import Policy, build_policy
from core.publishing import export_folder
from core.recipe import Recipe, load_recipe
from core.training.optimizer import build_optimizer
from plugins.text.sentencepiece import SHIPPED

RECIPE = Path(__file__).parents[2] / "recipes" / "robovlms_kosmos_calvin.toml"
PARTS = ("vision_encoder", "text_encoder", "backbone")
INSTRUCTION = "push the red block to the left"


def recipe_with(*overrides: str) -> Recipe:
    """RoboVLMs' recipe on one device, with random weights and some other piece vocabulary of the same table."""
    start = [f"{part}.pretrained=false" for part in PARTS]
    one = ["train.devices=1", "train.strategy=auto", "train.batch_size=1", "train.accelerator=cpu"]
    return load_recipe(RECIPE, [*start, *one, f"text_encoder.model={SHIPPED}", *overrides], load_plugins())


def policy_of(recipe: Recipe) -> Policy:
    """The whole policy, in float32."""
    action = ActionSpec(window=recipe.data.window, horizon=recipe.action.horizon, dim=7, binary=(6,))
    return build_policy(recipe, dict.fromkeys(recipe.data.cameras, (3, 224, 224)), action, proprio_dim=0)


def batch_of(policy: Policy, batch: int, window: int, cameras: tuple[str, ...], horizon: int = 10) -> Batch:
    """Random images and actions, one instruction."""
    ids = torch.tensor([policy.text_encoder.tokenize(INSTRUCTION)] * batch)
    return Batch(
        images={name: torch.randint(256, (batch, window, 3, 224, 224), dtype=torch.uint8) for name in cameras},
        instructions=[INSTRUCTION] * batch,
        text_ids=ids,
        text_mask=None,
        proprio=None,
        frame_mask=torch.ones(batch, window, dtype=torch.bool),
        actions=torch.rand(batch, window, horizon, 7, dtype=torch.float32),
        action_mask=torch.ones(batch, window, horizon, dtype=torch.bool),
    )


# ---------------------------------------------------------------------------------------------------------- memory


def memory(kind: str) -> None:
    """Print the peak of one training step: all weights, or adapters on the decoder beside a frozen rest."""
    adapters = ["backbone.train=lora", "vision_encoder.train=false", "text_encoder.train=false"]
    recipe = recipe_with("data.window=2", "train.precision=bf16-true", *(adapters if kind == "lora" else []))
    policy = policy_of(recipe).to(torch.bfloat16).train()  # as train.precision = "bf16-true" does
    built = peak()
    optimizer = build_optimizer(policy, recipe)
    started = time.perf_counter()
    policy(batch_of(policy, 1, 2, recipe.data.cameras))["total"].backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    total = sum(p.numel() for p in policy.parameters())
    print(f"{kind}: {trained:,} of {total:,} parameters train, bfloat16, batch 1, window 2, two cameras")
    print(
        f"peak resident memory {peak():.1f} GB, {built:.1f} GB once built; {time.perf_counter() - started:.0f} s a step"
    )


def peak() -> float:
    """Largest resident size of this process so far, GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


# ----------------------------------------------------------------------------------------------------------- speed


def speed(depth: int, batch: int, repeats: int) -> None:
    """Print the ratio of times over `repeats` pairs: full width, fewer layers, so that it fits and ends."""
    sizes = [f"backbone.depth={depth}", f"vision_encoder.clip_depth={depth}", "data.window=1"]
    plain = ["backbone.gradient_checkpointing=false", "vision_encoder.gradient_checkpointing=false"]
    recipe = recipe_with(*sizes, *plain, "backbone.dropout=0.0", "backbone.attention_dropout=0.0")
    policy = policy_of(recipe).train()
    theirs = transformers_model(policy)
    inputs = batch_of(policy, batch, 1, recipe.data.cameras)
    ours, other = (lambda: step_of_ours(policy, inputs)), (lambda: step_of_theirs(theirs, policy, inputs))
    for run in (ours, other):
        run()
    times = [(timed(ours), timed(other)) for _ in range(repeats)]
    ratios = sorted(b / a for a, b in times)
    print(f"{depth} layers of each network at full width, batch {batch}, two cameras, float32, {repeats} pairs")
    print(f"transformers' time over ours: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")


def transformers_model(policy: Policy):
    """transformers' own model with the policy's weights, in the attention that it chooses by itself."""
    transformers = import_library("transformers", extra="vlm")
    with tempfile.TemporaryDirectory() as folder:
        export_folder(policy, Path(folder) / "kosmos2")
        return transformers.Kosmos2Model.from_pretrained(Path(folder) / "kosmos2").train()


def step_of_ours(policy: Policy, batch: Batch) -> None:
    """Readout, backward."""
    policy.zero_grad(set_to_none=True)
    policy.read(batch).square().sum().backward()


def step_of_theirs(model: torch.nn.Module, policy: Policy, batch: Batch) -> None:
    """The same sequence through transformers: <s>, images, words, [LRN]; the hidden state at [LRN], backward."""
    model.zero_grad(set_to_none=True)
    words = model.get_input_embeddings()(batch.text_ids)
    pixels = torch.stack([policy.vision_encoder._pixels(x[:, 0]) for x in batch.images.values()], dim=1)
    images = model.get_image_features(pixels.flatten(0, 1)).pooler_output.unflatten(0, pixels.shape[:2]).flatten(1, 2)
    action = policy.action_tokens.action.expand(len(words), -1, -1)
    embeddings = torch.cat([words[:, :1], images, words[:, 1:], action], dim=1)
    hidden = model.text_model(inputs_embeds=embeddings, attention_mask=torch.ones(embeddings.shape[:2]))
    hidden.last_hidden_state[:, -1].square().sum().backward()


def timed(run: Callable[[], None]) -> float:
    """Seconds."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Measure one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("memory").add_argument("kind", choices=("full", "lora"))
    quick = commands.add_parser("speed")
    quick.add_argument("--depth", type=int, default=3)
    quick.add_argument("--batch", type=int, default=2)
    quick.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.what == "memory":
        memory(arguments.kind)
    else:
        speed(arguments.depth, arguments.batch, arguments.repeats)


if __name__ == "__main__":
    main()
