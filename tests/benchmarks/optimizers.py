"""Time of a training step with each built-in optimiser, and with averages of the weights.

    python -m tests.benchmarks.optimizers

The policy is that of recipes/tabletop_full.toml, with random weights, on random images. All
variants take their steps in turn in one process, and in the opposite order in each second round.
Times are processor time, so other programs disturb them little. A ratio is a variant's time over
that of AdamW without averages, for the medians and for the least times.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from core import ActionSpec, Batch, Generator
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.recipe.contents import Recipe
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.training.averages import WeightAverages
from core.training.optimizer import build_optimizer

RECIPE = Path(__file__).parents[2] / "recipes" / "tabletop_full.toml"
CAMERAS = {"static": (3, 96, 96), "wrist": (3, 96, 96)}
INSTRUCTION = "push the red block to the left"
DECAY = 0.999
VARIANTS = {
    "AdamW": ("adamw", False),
    "AdamW, averages": ("adamw", True),
    "SGD": ("sgd", False),
    "Muon": ("muon", False),
}


def step_of(name: str, *, averaged: bool, batch_size: int) -> Callable[[], None]:
    """Build a policy; return a function that takes one training step with it."""
    recipe = load_recipe(RECIPE, [f"optimizer.name={name}"], load_plugins())
    torch.manual_seed(0)
    dimensions = ActionSpec(window=1, horizon=recipe.action.horizon, dim=7, binary=(6,))
    policy = build_policy(recipe, CAMERAS, dimensions, proprio_dim=7).train()
    optimizer = build_optimizer(policy, recipe)
    averages = WeightAverages(policy, DECAY) if averaged else None
    batch = batch_of(policy, recipe, batch_size)
    generator = Generator.shared((0,), torch.device("cpu"))

    def step() -> None:
        policy(batch, generator).losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), recipe.train.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        if averages is not None:
            averages.update(1_000)

    return step


def batch_of(policy: Policy, recipe: Recipe, size: int) -> Batch:
    """Random images and actions, one instruction, a window of one frame."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([policy.text_encoder.tokenize(INSTRUCTION)] * size)
    return Batch(
        images={
            name: torch.randint(256, (size, 1, *shape), generator=generator, dtype=torch.uint8)
            for name, shape in CAMERAS.items()
        },
        instructions=[INSTRUCTION] * size,
        text_ids=ids,
        text_mask=None,
        proprio=torch.randn(size, 1, 7, generator=generator),
        actions=torch.rand(size, 1, recipe.action.horizon, 7, generator=generator),
        action_mask=torch.ones(size, 1, recipe.action.horizon, 7, dtype=torch.bool),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    steps = {
        label: step_of(name, averaged=averaged, batch_size=arguments.batch_size)
        for label, (name, averaged) in VARIANTS.items()
    }
    times: dict[str, list[float]] = {label: [] for label in steps}
    for number in range(-2, arguments.rounds):  # the first ones touch memory
        for label in list(steps)[:: -1 if number % 2 else 1]:
            began = time.process_time()
            steps[label]()
            if number >= 0:
                times[label].append(time.process_time() - began)
    base = times["AdamW"]
    print("| optimiser | least ms a step | of the medians | of the least |\n|---|---|---|---|")
    for label, seconds in times.items():
        median = statistics.median(seconds) / statistics.median(base)
        least = min(seconds) / min(base)
        print(f"| {label} | {1e3 * min(seconds):.1f} | {median:.3f} | {least:.3f} |")


if __name__ == "__main__":
    main()
