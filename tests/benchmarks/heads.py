"""What the policies of a sweep cost, side by side: a training step, and an action chunk.

    python -m tests.benchmarks.heads sweeps/heads --rounds 15

The sweep must have finished one run of each variant. In every round each policy makes one training
step, with the same samples, and acts once for one robot; the order changes from round to round. The
figures are processor times on one thread, and ratios to the baseline in the same round, so that
other work on the machine slows both.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import process_time

import numpy as np
import torch

from core import Batch, Generator
from core.evaluation.latency import blank_observation
from core.loading.loader import Loader
from core.loading.opening import open_data
from core.policy.policy import Policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.rollout.actor import load_actor
from core.training.optimizer import build_optimizer

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Work:
    """What a policy does again and again: a training step, and acting."""

    train: Callable[[], None]
    act: Callable[[], None]


def prepare(run: Path) -> Work:
    """Load the policy of a finished run twice: one goes on training, the other acts."""
    learner, actor = load_actor(run).policy, load_actor(run)
    learner.requires_grad_(True).train()
    optimizer = build_optimizer(learner, load_recipe(run / "recipe.toml", [], load_plugins()))
    batch = first_batch(run, learner)
    state = actor.reset(actor.start(1), {0: 0})
    observation = blank_observation(actor.info)

    def train() -> None:
        losses = learner(batch, Generator.shared((0,), CPU)).losses
        losses["total"].backward()
        optimizer.step()
        optimizer.zero_grad()

    def act() -> None:
        actor.step([observation], batch.instructions[:1], state)

    return Work(train, act)


def first_batch(run: Path, policy: Policy) -> Batch:
    """Return the first batch of a run, of samples that do not depend on the policy head."""
    recipe = load_recipe(run / "recipe.toml", [], load_plugins())
    loader = Loader(
        open_data(recipe).training,
        batch_size=recipe.train.batch_size,
        tokenize=policy.text_encoder.tokenize,
        threads=1,
        prefetch=1,
        device=CPU,
    )
    return next(loader.batches(seed=0))


def measure(works: Sequence[Callable[[], None]], rounds: int) -> np.ndarray:
    """Return processor seconds (rounds, works); the first round warms up and is left out."""
    seconds = np.zeros((rounds + 1, len(works)))
    for number in range(rounds + 1):
        for place in np.roll(np.arange(len(works)), number).tolist():
            began = process_time()
            works[place]()
            seconds[number, place] = process_time() - began
    return seconds[1:]


def cells(seconds: np.ndarray, baseline: np.ndarray) -> str:
    """Write the median of a variant (rounds), and its ratio to the baseline with quartiles."""
    ratios = (seconds / baseline).tolist()
    low, _, high = quantiles(ratios, n=4)
    return f"{1e3 * median(seconds.tolist()):.3g} | {median(ratios):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="the folder of a sweep")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sweep = json.loads((arguments.sweep / "sweep.json").read_text())
    names = [variant["name"] for variant in sweep["variants"] if variant["values"]]
    works = [prepare(next(iter(sorted((arguments.sweep / name).glob("seed_*"))))) for name in names]
    training = measure([work.train for work in works], arguments.rounds)
    acting = measure([work.act for work in works], arguments.rounds)
    base = names.index(sweep["baseline"])
    print("| head | training step, ms | ratio | action chunk, ms | ratio |\n|---|---|---|---|---|")
    for place, name in enumerate(names):
        costs = (cells(times[:, place], times[:, base]) for times in (training, acting))
        print(f"| `{name}` | {' | '.join(costs)} |")


if __name__ == "__main__":
    main()
