"""`joinery evaluate RUN`: let a trained policy act in an environment, and count its successes.

Without an environment, the policy's predictions are compared with held-out episodes.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from core.commands.command import CommandParser, add_moved, checkpoint_name, command, path


def _parser() -> CommandParser:
    parser = CommandParser(
        "evaluate",
        "Evaluate a trained policy.",
        writes="results, films and predictions into RUN/evaluation, or the folder of --output",
    )
    parser.add_argument(
        "run", metavar="RUN", type=path, help="a run's folder, runs/kosmos_lstm for example"
    )
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
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_name,
        metavar="NAME",
        help="last, best, or its step; default: the recipe's, or last",
    )
    parser.add_argument(
        "--output", type=Path, help="folder of the results; default: RUN/evaluation"
    )
    add_moved(parser)
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Evaluate a run by its own recipe, with overrides of [evaluate] and [environment]."""
    arguments = _parser().parse(argv)
    overrides = [*arguments.overrides, *_options_as_overrides(arguments)]

    from core.recipe.places import parse_moved
    from core.recipe.recipe import load_recipe_of_run
    from core.recipe.sections import EvaluateConfig
    from core.registry.catalogue import load_plugins

    moved = parse_moved(arguments.moved)
    recipe = load_recipe_of_run(
        arguments.run, overrides, load_plugins(), arguments.environment, moved
    )
    checkpoint = arguments.checkpoint

    from core.evaluation.display import show
    from core.evaluation.evaluation import evaluate, raise_if_all_broke
    from core.evaluation.offline import evaluate_offline
    from core.report.run_held_out import show_held_out
    from core.system.console import output

    console = output()
    if recipe.environment is None:
        folder = arguments.output or arguments.run / "evaluation"
        evaluate_offline(arguments.run, recipe, folder, checkpoint or "last", moved)
        show_held_out(folder, console)
        return 0
    if checkpoint is not None:
        settings = recipe.evaluate or EvaluateConfig()
        recipe = replace(recipe, evaluate=replace(settings, checkpoint=checkpoint))
    evaluation = evaluate(arguments.run, recipe, console, arguments.output, moved)
    show(evaluation, console)
    raise_if_all_broke(evaluation)
    return 0


def _options_as_overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the options as overrides, so that they are checked together with the recipe."""
    overrides = []
    if arguments.tasks:
        overrides.append(f"evaluate.tasks={json.dumps(arguments.tasks.split(','))}")
    for key in ("episodes", "chains"):
        value = getattr(arguments, key)
        if value is not None:
            overrides.append(f"evaluate.{key}={value}")
    return overrides


if __name__ == "__main__":
    raise SystemExit(main())
