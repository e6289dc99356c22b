"""`joinery collect ENVIRONMENT OUT.zarr`: record demonstrations of an environment's expert."""

import argparse
from typing import TYPE_CHECKING

from core.commands.command import CommandParser, before_settings, command, local_path

if TYPE_CHECKING:
    from core.demonstrations.collect import Summary
    from core.system.tables import NumberTable


def _parser() -> CommandParser:
    # Not at the top: environments' processes import this file, and must not import numpy so early.
    from core.recipe.sections import DemonstrationsConfig

    defaults = DemonstrationsConfig()
    parser = CommandParser(
        "collect",
        "Let an expert demonstrate tasks.",
        writes="the episodes into OUT.zarr",
    )
    parser.add_argument(
        "environment",
        metavar="ENVIRONMENT",
        type=before_settings,
        help="an environment that `joinery plugins environment` lists",
    )
    parser.add_argument(
        "out", metavar="OUT", type=local_path, help="the store, new or to be continued: OUT.zarr"
    )
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings of the environment"
    )
    parser.add_argument(
        "--tasks", type=lambda text: text.split(","), default=[], help="a,b,c; default: all"
    )
    parser.add_argument(
        "--episodes",
        type=_count,
        default=defaults.episodes,
        help=f"successes of each task; default: {defaults.episodes}",
    )
    parser.add_argument(
        "--noise",
        type=_noise,
        default=defaults.noise,
        help=f"how much the expert is disturbed; default: {defaults.noise:g}",
    )
    parser.add_argument("--workers", type=_count, help="processes; default: one for each core")
    return parser


def _count(text: str) -> int:
    from core.recipe.sections import MOST_DEMONSTRATIONS

    count = int(text)
    if not 1 <= count <= MOST_DEMONSTRATIONS:
        raise argparse.ArgumentTypeError(f"{count} is not between 1 and {MOST_DEMONSTRATIONS:,}")
    return count


def _noise(text: str) -> float:
    noise = float(text)
    if not 0 <= noise <= 1:
        raise argparse.ArgumentTypeError(f"{noise:g} is not between 0 and 1")
    return noise


@command
def main(argv: list[str] | None = None) -> int:
    """Record demonstrations until each task has as many successes as asked for."""
    arguments = _parser().parse(argv)
    from core.commands.components import find_component
    from core.environments.workers import EnvironmentSpec

    component, config = find_component("environment", arguments.environment, arguments.settings)
    spec = EnvironmentSpec(component.name, component.build, config, str(component.plugin))

    from core.demonstrations.collect import collect
    from core.demonstrations.progress import live_progress
    from core.system.console import errors, output

    with live_progress(arguments.episodes, errors()) as report:
        summary = collect(
            spec,
            arguments.out,
            arguments.tasks,
            arguments.episodes,
            arguments.noise,
            arguments.workers,
            report,
        )
    console = output()
    console.print(_table(summary))
    for line in summary.warnings:
        errors().print(f"warning: {line}")
    for attempt in summary.broken:
        errors().print(f"{attempt}; counted as failed")
    console.print(f"{arguments.out}: {summary}")
    return 0


def _table(summary: "Summary") -> "NumberTable":
    """Return a table with a row for each task."""
    from core.system.tables import NumberTable

    table = NumberTable(("task", "kept", "failed", "mean length"))
    for name, task in summary.tasks.items():
        mean_length = task.frames / max(1, task.kept)
        table.add_row(name, str(task.kept), str(task.failed), f"{mean_length:.1f}")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
