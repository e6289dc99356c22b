"""python -m core.run RECIPE: record what demonstrations are missing, train the policy, evaluate it
and report on it.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from core.commands.command import command

if TYPE_CHECKING:
    from core.recipe.recipe import Recipe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery run", description="Train and evaluate the policy of a recipe."
    )
    parser.add_argument(
        "recipe", type=Path, help="a TOML file, recipes/kosmos_lstm.toml for example"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="train.steps=100 for example"
    )
    parser.add_argument(
        "--output", type=Path, help="the run's folder; default: runs/NAME for NAME.toml"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in the output folder"
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Check the recipe and what it needs, train, and where the recipe says so, evaluate and report."""
    arguments = _parser().parse_intermixed_args(argv)
    from core.recipe.recipe import load_recipe
    from core.registry.catalogue import (
        load_plugins,
    )  # these import torch, which --help need not wait for

    recipe = load_recipe(arguments.recipe, arguments.overrides, load_plugins())
    folder = arguments.output or _default_output(arguments.recipe)

    import torch
    from lightning_fabric.utilities.rank_zero import (
        rank_zero_only,
    )  # and a mistaken recipe need not wait for Fabric

    from core.training.train import train

    threads = torch.get_num_threads()  # before Fabric shares them among several processes
    rank_zero_only(_prepare)(recipe)
    code = train(recipe, folder, resume=arguments.resume)
    if code == 0 and recipe.evaluate:
        rank_zero_only(_evaluate)(recipe, folder, threads)
    return code


def _default_output(recipe: Path) -> Path:
    """runs/NAME for NAME.toml; a run's own recipe.toml goes on in its folder."""
    return recipe.parent if recipe.name == "recipe.toml" else Path("runs") / recipe.stem


def _prepare(recipe: "Recipe") -> None:
    """Have the data ready; of several processes the first does it, before training starts or meets
    the others.
    """
    from rich.console import Console

    from core.evaluation.preparation import prepare

    prepare(recipe, Console())


def _evaluate(recipe: "Recipe", folder: Path, threads: int) -> None:
    """Evaluate and report; of several processes the first does it, and now all threads are its own."""
    import torch
    from rich.console import Console

    from core.evaluation.display import show
    from core.evaluation.evaluation import evaluate
    from core.report.run_report import write_report

    torch.set_num_threads(threads)
    console = Console()
    show(evaluate(folder, recipe, console), console)
    console.print(f"report: {write_report(folder)}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
