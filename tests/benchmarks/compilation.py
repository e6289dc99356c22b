"""How much `train.compile` saves: steps of one recipe, compiled and not, in turns.

python -m tests.benchmarks.compilation RECIPE [section.key=value ...] --steps 20

Both policies live in one process and get the same batch, so that other work on the machine slows
both. The figure is the median over pairs of steps.
"""

import argparse
import statistics
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from core.contracts.batch import Batch
from core.contracts.generator import TRAINING, Generator
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.training.fit import Run
from core.training.run_folder import find_start
from core.training.signals import StopSignal
from core.training.train import launch, set_up

WARM_UP = 3


def timed_step(run: Run, batch: Batch) -> float:
    """Do one training step on a batch; return its seconds."""
    synchronize: Callable[[], None] = (
        torch.cuda.synchronize if run.fabric.device.type == "cuda" else lambda: None
    )
    synchronize()
    begin = perf_counter()
    generator = Generator.shared((TRAINING, 0), run.fabric.device)
    losses, _ = run.module(batch, generator)
    run.fabric.backward(losses["total"])
    run.optimizer.step()
    run.optimizer.zero_grad()
    synchronize()
    return perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_intermixed_args()
    runs = []
    for compiled in ("false", "true"):
        overrides = [*arguments.overrides, f"train.compile={compiled}"]
        recipe = load_recipe(arguments.recipe, overrides, load_plugins())
        fabric = launch(recipe)
        with TemporaryDirectory() as folder:
            start = find_start(recipe, Path(folder), resume=False, with_changes=False)
            runs.append(set_up(fabric, recipe, Path(folder), start, StopSignal(), writes=False))
    pairs = []
    with closing(runs[0].training.batches(0)) as batches:
        for _ in range(WARM_UP + arguments.steps):
            batch = next(batches)
            pairs.append([timed_step(run, batch) for run in runs])
    plain, compiled_times = zip(*pairs[WARM_UP:], strict=True)
    ratios = [after / before for before, after in pairs[WARM_UP:]]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"first step: {pairs[0][0]:.1f} s, compiled {pairs[0][1]:.1f} s")
    print(
        f"median step: {statistics.median(plain):.3f} s, compiled "
        f"{statistics.median(compiled_times):.3f} s"
    )
    print(f"compiled / not: {middle:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
