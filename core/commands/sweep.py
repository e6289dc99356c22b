"""`joinery sweep FILE ...`: train and evaluate variants of recipes with several seeds."""

import argparse
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from core.commands.command import CommandParser, command, positive
from core.errors import ConfigError

if TYPE_CHECKING:
    from core.report.sweep_results import SweepResults
    from core.sweep.config import SweepConfig
    from core.sweep.plan import PlannedRun

ON = ("local", "slurm", "ray")


def _parser() -> CommandParser:
    parser = CommandParser(
        "sweep",
        "Train and evaluate variants of recipes with several seeds, and compare them. The same "
        "command goes on where it was interrupted.",
        writes="a folder for each run below that of --output, and in it sweep.html and sweep.json; "
        "and demonstrations that are missing. With --dry-run, nothing",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="FILE",
        help="the file of a sweep, recipes/sweeps/heads.toml for example, or recipes; and after "
        "them section.key=value: overrides of every recipe, or keys of [slurm] and [ray]",
    )
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=A,B,C",
        help="values of a key, policy_head.name=mlp,lstm for example; may be repeated",
    )
    parser.add_argument(
        "--range",
        action="append",
        default=[],
        metavar="KEY=LOW:HIGH[:log]",
        help="a range from which values of a key are drawn; may be repeated",
    )
    parser.add_argument("--trials", type=positive, help="how often values are drawn; default: 10")
    parser.add_argument(
        "--method",
        choices=("random", "optuna"),
        help="who chooses from the ranges: chance, or Optuna after each round of results; "
        "default: random",
    )
    parser.add_argument(
        "--seeds", help="how many seeds of training, or which: 5, or 1,2,3; default: 3"
    )
    parser.add_argument("--baseline", help="the variant that others are compared with")
    parser.add_argument("--output", type=Path, help="folder of the sweep; default: sweeps/NAME")
    parser.add_argument(
        "--jobs", type=positive, help="runs at once; default: 1 on this machine, all on a cluster"
    )
    parser.add_argument("--on", choices=ON, default="local", help="where runs run; default: local")
    parser.add_argument("--dry-run", action="store_true", help="check everything and list the runs")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Check all recipes, do the runs that are missing, and compare the variants."""
    arguments = _parser().parse(argv)
    config, name = _config(arguments)
    output = arguments.output or Path("sweeps") / name

    from core.registry.catalogue import load_plugins
    from core.sweep.executors.executor import make_executor
    from core.sweep.sweep import plan_sweep, run_sweep
    from core.system.console import output as output_console

    console = output_console()
    if arguments.dry_run:
        _show_plan(plan_sweep(config, output, load_plugins()), config)
        return 0
    executor = make_executor(arguments.on, config, arguments.jobs)
    signal.signal(signal.SIGTERM, _end)
    results = run_sweep(config, output, executor, load_plugins(), console)
    return _show(results, output)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (any frame)
    """End the sweep at SIGTERM; the executor then lets its runs save and end."""
    raise SystemExit(128 + number)


def _config(arguments: argparse.Namespace) -> "tuple[SweepConfig, str]":
    """Return the sweep of a file, if one is named, with what the arguments add; and its name."""
    from core.sweep.arguments import add_arguments, split_words
    from core.sweep.config import check_sweep, read_files

    paths, overrides = split_words(arguments.words)
    if not paths:
        raise ConfigError("name the file of a sweep, or a recipe: recipes/quickstart.toml")
    values, file = read_files(paths)
    add_arguments(values, arguments, overrides)
    return check_sweep(values, str(file or "the arguments")), (file or paths[0]).stem


def _show_plan(runs: "list[PlannedRun]", config: "SweepConfig") -> None:
    from core.system.console import output
    from core.system.tables import NumberTable

    table = NumberTable(("variant", "overrides", "runs", "finished"), left=("overrides",))
    by_name: dict[str, list[PlannedRun]] = {}
    for run in runs:
        by_name.setdefault(run.variant.name, []).append(run)
    for name, several in by_name.items():
        finished = sum(run.is_finished for run in several)
        overrides = " ".join(several[0].variant.overrides) or "-"
        table.add_row(name, overrides, str(len(several)), str(finished))
    output().print(table)
    count = len(runs)
    if config.search and config.is_study:
        count *= config.search.trials
        output().print(f"{config.search.trials} trials of each, whose values follow the results")
    output().print(f"{count} runs; nothing is run, and nothing is written")


def _show(results: "SweepResults", folder: Path) -> int:
    """Print the table and what has failed; return the exit code."""
    from core.report.sweep_page import results_table
    from core.sweep.sweep import PAGE
    from core.system.console import errors, output

    output().print(results_table(results))
    output().print(f"page: {folder / PAGE}")
    for line in results.missing:
        errors().print(f"error: {line}")
    if results.missing:
        errors().print("the same command tries these runs again, and leaves the others as they are")
    return 1 if results.missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
