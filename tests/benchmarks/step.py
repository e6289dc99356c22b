"""The training step of a recipe in this checkout against another one's, in turn, each by its own
recipe.

git worktree add ../before v0.1; python -m tests.benchmarks.step ../before --store
recipes/data/tabletop_colours.zarr
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import tomli_w

HERE = Path(__file__).parents[2]
IN_A_WORLD = ("environment", "demonstrations", "evaluate")


def samples_per_second(checkout: Path, recipe: str, store: Path, steps: int) -> float:
    """Train some steps in a fresh process and return the median rate of the later half."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "step.toml")
        path.write_text(
            tomli_w.dumps(_plain_training(checkout / recipe, store, steps)), encoding="utf-8"
        )
        command = [
            sys.executable,
            "-m",
            "core.run",
            str(path),
            "--output",
            str(Path(folder, "run")),
        ]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
        lines = Path(folder, "run", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rates = [json.loads(line).get("time/samples_per_second") for line in lines]
    known = [rate for rate in rates if rate is not None]
    return median(known[len(known) // 2 :])


def _plain_training(recipe: Path, store: Path, steps: int) -> dict[str, dict[str, object]]:
    """A recipe without its world, and without anything but steps."""
    sections = tomllib.loads(recipe.read_text(encoding="utf-8"))
    sections = {name: keys for name, keys in sections.items() if name not in IN_A_WORLD}
    never = 10 * steps
    sections["train"] |= {
        "steps": steps,
        "validate_every": never,
        "checkpoint_every": never,
        "log_every": 10,
    }
    sections["data"]["path"] = str(store.absolute())
    return sections


def pairs(arguments: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """Rates of this checkout and the other one, whose order changes from round to round."""
    for number in range(arguments.rounds):
        order = [HERE, arguments.before] if number % 2 else [arguments.before, HERE]
        rates = {
            checkout: samples_per_second(
                checkout, arguments.recipe, arguments.store, arguments.steps
            )
            for checkout in order
        }
        yield rates[HERE], rates[arguments.before]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="another checkout")
    parser.add_argument("--recipe", default="recipes/kosmos_lstm.toml", help="in both checkouts")
    parser.add_argument("--store", type=Path, required=True, help="the recipe's demonstrations")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    arguments.before = arguments.before.absolute()
    ratios = []
    print("| round | here, samples/s | before, samples/s | ratio |\n|---|---|---|---|")
    for number, (here, before) in enumerate(pairs(arguments), 1):
        ratios.append(here / before)
        print(f"| {number} | {here:.0f} | {before:.0f} | {here / before:.3f} |", flush=True)
    print(f"\nmedian ratio {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
