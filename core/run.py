"""python -m core.run RECIPE: train the policy that a recipe describes."""

import argparse
from pathlib import Path

from core.cli import command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joinery run", description="Train the policy of a recipe.")
    parser.add_argument("recipe", type=Path, help="a TOML file, recipes/kosmos_lstm.toml for example")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="train.steps=100 for example")
    parser.add_argument("--output", type=Path, help="the run's folder; default: runs/NAME for NAME.toml")
    parser.add_argument("--resume", action="store_true", help="continue the run in the output folder")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Check the recipe, then train."""
    arguments = _parser().parse_intermixed_args(argv)
    from core.plugins import load_plugins  # these import torch, which --help need not wait for
    from core.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides, load_plugins())

    from core.training.train import train  # and a mistaken recipe need not wait for Fabric

    return train(recipe, arguments.output or _default_output(arguments.recipe), resume=arguments.resume)


def _default_output(recipe: Path) -> Path:
    """runs/NAME for NAME.toml; a run's own recipe.toml goes on in its folder."""
    return recipe.parent if recipe.name == "recipe.toml" else Path("runs") / recipe.stem


if __name__ == "__main__":
    raise SystemExit(main())
