"""`joinery evaluate RUN`: let a trained policy act in an environment, and count its successes."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from core.commands.command import command
from core.errors import ConfigError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery evaluate", description="Evaluate a trained policy."
    )
    parser.add_argument("run", type=Path, help="a run's folder, runs/kosmos_lstm for example")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="of evaluate and environment"
    )
    parser.add_argument("--environment", metavar="NAME", help="default: the recipe's")
    parser.add_argument("--tasks", help="a,b,c; default: the recipe's, or all")
    parser.add_argument(
        "--episodes", type=int, help="attempts at each task; default: the recipe's, or 20"
    )
    parser.add_argument(
        "--chains", type=int, help="chains of tasks; default: the recipe's, or none"
    )
    parser.add_argument("--checkpoint", help="last or best; default: the recipe's, or last")
    parser.add_argument(
        "--output", type=Path, help="folder of the results; default: RUN/evaluation"
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Evaluate a run."""
    arguments = _parser().parse_intermixed_args(argv)
    overrides = [*_checked(arguments.overrides), *_options(arguments)]
    from core.recipe.recipe import load_recipe
    from core.registry.catalogue import (
        load_plugins,
    )  # these import torch, which --help need not wait for

    recipe = load_recipe(
        arguments.run / "recipe.toml", overrides, load_plugins(), arguments.environment
    )

    from rich.console import Console

    from core.evaluation.display import show
    from core.evaluation.evaluation import evaluate

    console = Console()
    show(evaluate(arguments.run, recipe, console, arguments.output), console)
    return 0


def _checked(overrides: Sequence[str]) -> Sequence[str]:
    """What the weights were trained with is as it is; raises ConfigError."""
    if wrong := [
        pair for pair in overrides if pair.partition(".")[0] not in ("evaluate", "environment")
    ]:
        raise ConfigError(
            [
                f"override '{pair}': only evaluate.* and environment.* may change now"
                for pair in wrong
            ]
        )
    return overrides


def _options(arguments: argparse.Namespace) -> list[str]:
    """The options as overrides of the recipe, so that they are checked like it."""
    tasks = [f"evaluate.tasks={json.dumps(arguments.tasks.split(','))}"] if arguments.tasks else []
    given = {key: getattr(arguments, key) for key in ("episodes", "chains", "checkpoint")}
    return tasks + [f"evaluate.{key}={value}" for key, value in given.items() if value is not None]


if __name__ == "__main__":
    raise SystemExit(main())
