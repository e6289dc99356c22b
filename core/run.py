"""`joinery run RECIPE`, or python -m core.run RECIPE: train a policy, evaluate it, report on it.

If the recipe asks for demonstrations that are missing, they are recorded first.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from core.commands.command import CommandParser, add_moved, command, path

if TYPE_CHECKING:
    from core.recipe.contents import Recipe


def _parser() -> CommandParser:
    parser = CommandParser(
        "run",
        "Train and evaluate the policy of a recipe.",
        writes="the run's folder: recipe, checkpoints, metrics, evaluation and report.html; and "
        "demonstrations that are missing into the store of data.path. With --dry-run, nothing",
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        type=path,
        help="a TOML file, recipes/kosmos_lstm.toml for example",
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
    add_moved(parser)
    parser.add_argument(
        "--with-changes",
        action="store_true",
        help="with --resume: the recipe or the data may have changed; the run records what did",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build and check everything, do a few steps, say what they cost, and write nothing",
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Check the recipe, prepare its data, train; evaluate and report.

    With [evaluate], the policy acts in the environment. Without an [environment], its predictions
    are compared with held-out episodes.

    In training with several processes, each process runs this function, but only the first
    process prepares the data and evaluates.
    """
    parser = _parser()
    arguments = parser.parse(argv)
    if arguments.with_changes and not arguments.resume:
        parser.error("--with-changes: a run that goes on can change; add --resume")

    # Libraries are imported only now, so that --help is quick. Fabric is imported even later, after
    # the recipe has been checked, so that a mistake in the recipe is reported sooner.
    from core.recipe.places import find_places, parse_moved
    from core.recipe.recipe import load_recipe
    from core.registry.catalogue import load_plugins

    recipe = load_recipe(arguments.recipe, arguments.overrides, load_plugins())
    folder = arguments.output or Path("runs") / arguments.recipe.stem
    if arguments.output is None and arguments.recipe.name == "recipe.toml":
        folder = arguments.recipe.parent  # the recipe is in the folder of a run: continue that run
    moved = parse_moved(arguments.moved)
    if arguments.resume:
        recipe = find_places(recipe, folder, moved)

    import torch
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from core.training.dry_run import dry_run
    from core.training.train import train

    if arguments.dry_run:
        if rank_zero_only(_prepare_dry_run)(recipe) is not False:
            dry_run(
                recipe,
                folder,
                resume=arguments.resume,
                with_changes=arguments.with_changes,
                moved=moved,
            )
        return 0
    # read now, since Fabric later divides the threads among the processes
    threads = torch.get_num_threads()
    rank_zero_only(_prepare)(recipe)
    code = train(
        recipe,
        folder,
        resume=arguments.resume,
        with_changes=arguments.with_changes,
        moved=moved,
    )
    if code == 0 and recipe.evaluate:
        rank_zero_only(_evaluate)(recipe, folder, threads)
    elif code == 0 and recipe.environment is None and recipe.data.holds_out:
        rank_zero_only(_evaluate_offline)(recipe, folder, threads)
    return code


def _prepare(recipe: "Recipe") -> None:
    """Check the environment and record missing demonstrations; no process trains before that."""
    from core.evaluation.preparation import prepare
    from core.system.console import output

    prepare(recipe, output())


def _prepare_dry_run(recipe: "Recipe") -> bool:
    """Check the environment; return whether there are data to train on."""
    from core.evaluation.preparation import check_only
    from core.system.console import output

    return check_only(recipe, output())


def _evaluate(recipe: "Recipe", folder: Path, threads: int) -> None:
    """Evaluate the policy with `threads` threads, and write the report.

    Raises EnvironmentFailed if the environment broke in every attempt.
    """
    import torch

    from core.evaluation.display import show
    from core.evaluation.evaluation import evaluate, raise_if_all_broke
    from core.report.run_report import write_report
    from core.system.console import output

    torch.set_num_threads(threads)
    console = output()
    evaluation = evaluate(folder, recipe, console, asks_urls=True)
    show(evaluation, console)
    console.print(f"report: {write_report(folder)}")
    raise_if_all_broke(evaluation)


def _evaluate_offline(recipe: "Recipe", folder: Path, threads: int) -> None:
    """Compare the policy's predictions with held-out episodes, and write the report."""
    import torch

    from core.evaluation.offline import evaluate_offline
    from core.report.run_held_out import show_held_out
    from core.report.run_report import write_report
    from core.system.console import output

    torch.set_num_threads(threads)
    console = output()
    # early stopping ends a run only after its best checkpoint
    evaluate_offline(folder, recipe, checkpoint="best" if recipe.train.patience else "last")
    show_held_out(folder / "evaluation", console)
    console.print(f"report: {write_report(folder)}")


if __name__ == "__main__":
    raise SystemExit(main())
