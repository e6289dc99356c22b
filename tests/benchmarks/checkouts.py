"""Compare the speed of this checkout with another one: training, loading, evaluation or import.

    git worktree add ../before v0.1
    python -m tests.benchmarks.checkouts training ../before --store STORE
    python -m tests.benchmarks.checkouts loader ../before --store STORE
    python -m tests.benchmarks.checkouts evaluation ../before --run RUN
    python -m tests.benchmarks.checkouts import ../before --format lerobot --source SOURCE
    python -m tests.benchmarks.checkouts show ../before --store STORE

STORE holds the demonstrations of the recipe, recipes/data/tabletop_colours.zarr for example. RUN
is the folder of a trained run that both checkouts can read: train it with the older one. Each
checkout reads its own copy of the recipe, and may have other module names than this one. If the
main recipe is not the same in both, choose one that is, with --recipe.

A round measures both checkouts, one after the other, each in a fresh process; the order changes
from round to round. A ratio is this checkout's speed over the other's in the same round.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import tomli_w

HERE = Path(__file__).parents[2]


def run_in(checkout: Path, *arguments: str | Path) -> str:
    """Run Python in a checkout, with its own modules, and return what it prints."""
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{checkout}: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def training_speed(checkout: Path, options: argparse.Namespace) -> float:
    """Return the samples per second of training, the median of the later half of the steps."""
    with TemporaryDirectory() as folder:
        recipe, run = Path(folder, "training.toml"), Path(folder, "run")
        sections = _training_alone(checkout / options.recipe, options)
        recipe.write_text(tomli_w.dumps(sections), encoding="utf-8")
        run_in(checkout, "-m", "core.run", recipe, "--output", run)
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    key = "time/samples_per_second"
    rates = [values[key] for values in metrics if values.get(key) is not None]
    return median(rates[len(rates) // 2 :])


def _training_alone(recipe: Path, options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Return a recipe without environment, validation and checkpoints."""
    sections = tomllib.loads(recipe.read_text(encoding="utf-8"))
    for name in ("environment", "demonstrations", "evaluate"):
        sections.pop(name, None)
    never = 10 * options.steps
    sections["train"] |= {
        "steps": options.steps,
        "validate_every": never,
        "checkpoint_every": never,
        "log_every": 10,
    }
    sections["data"]["path"] = str(options.store)
    return sections


def loader_speed(checkout: Path, options: argparse.Namespace) -> float:
    """Return how many windows per second the recipe's Loader reads."""
    script = Path(__file__).with_name("loader_speed.py")
    recipe = checkout / options.recipe
    # -P: the folder of the script belongs to this checkout, so its modules must not be imported
    return float(run_in(checkout, "-P", script, recipe, options.store, str(options.batches)))


def evaluation_speed(checkout: Path, options: argparse.Namespace) -> float:
    """Return the control steps per second of an evaluation, over all of its environments."""
    with TemporaryDirectory() as folder:
        words = ["--output", folder, "--episodes", str(options.episodes)]
        run_in(checkout, "-m", "core.cli", "evaluate", options.run, *words)
        results = json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))
    return float(results["time"]["steps_per_second"])


def import_speed(checkout: Path, options: argparse.Namespace) -> float:
    """Return how many imports of the source a minute has room for, each with its start."""
    with TemporaryDirectory() as folder:
        out = Path(folder, "out.zarr")
        words = [options.format, options.source, out, *options.settings]
        return _runs_per_minute(checkout, "import", *words)


def show_speed(checkout: Path, options: argparse.Namespace) -> float:
    """Return how often a minute has room for `joinery show STORE`, each with its start."""
    return _runs_per_minute(checkout, "show", options.store)


def _runs_per_minute(checkout: Path, *words: str | Path) -> float:
    start = perf_counter()
    run_in(checkout, "-m", "core.cli", *words)
    return 60 / (perf_counter() - start)


def compare(
    speed: Callable[[Path, argparse.Namespace], float], unit: str, options: argparse.Namespace
) -> None:
    """Print the speeds and their ratio for each round, then the median ratio and its range."""
    print(f"| round | this checkout, {unit} | the other, {unit} | ratio |\n|---|---|---|---|")
    ratios = []
    for number in range(1, options.rounds + 1):
        order = [HERE, options.other] if number % 2 else [options.other, HERE]
        speeds = {checkout: speed(checkout, options) for checkout in order}
        here, other = speeds[HERE], speeds[options.other]
        ratios.append(here / other)
        print(f"| {number} | {here:,.4g} | {other:,.4g} | {here / other:.3f} |", flush=True)
    print(f"\nmedian ratio {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("training", help="the training step of a recipe")
    loader = commands.add_parser("loader", help="the batches of a recipe, without training")
    evaluation = commands.add_parser("evaluation", help="the rollouts of a trained run")
    importing = commands.add_parser("import", help="an import, with the start of the program")
    show = commands.add_parser("show", help="what a store holds, with the start of the program")
    for command in (training, loader, evaluation, importing, show):
        command.add_argument("other", type=Path, help="folder of the other checkout")
        command.add_argument("--rounds", type=int, default=7, help="default: 7")
    for command in (training, loader, show):
        command.add_argument("--store", type=Path, required=True, help="the demonstrations")
    importing.add_argument("--format", required=True, help="lerobot, for example")
    importing.add_argument("--source", type=Path, required=True, help="the dataset")
    importing.add_argument("--settings", nargs="*", default=[], help="key=value of both checkouts")
    for command in (training, loader):
        command.add_argument(
            "--recipe",
            default="recipes/kosmos_lstm.toml",
            help="its path in both checkouts; default: recipes/kosmos_lstm.toml",
        )
    training.add_argument("--steps", type=int, default=150, help="in each round; default: 150")
    loader.add_argument("--batches", type=int, default=1000, help="in each round; default: 1000")
    evaluation.add_argument("--run", type=Path, required=True, help="folder of a trained run")
    evaluation.add_argument("--episodes", type=int, default=4, help="of each task; default: 4")
    return parser


SPEEDS = {
    "training": (training_speed, "samples/s"),
    "loader": (loader_speed, "windows/s"),
    "evaluation": (evaluation_speed, "steps/s"),
    "import": (import_speed, "imports/min"),
    "show": (show_speed, "times/min"),
}


def main() -> None:
    options = _parser().parse_args()
    for name in ("other", "store", "run", "source"):
        if name in options:
            setattr(options, name, getattr(options, name).absolute())
    compare(*SPEEDS[options.command], options)


if __name__ == "__main__":
    main()
