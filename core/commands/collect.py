"""`joinery collect ENVIRONMENT OUT.zarr`: let an environment's expert demonstrate its tasks into an
episode store.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from core.commands.command import command, local_path

if TYPE_CHECKING:
    from rich.table import Table

    from core.demonstrations.collect import Summary


@command
def main(argv: list[str] | None = None) -> int:
    """Collect demonstrations."""
    arguments = _parser().parse_intermixed_args(argv)
    from core.commands.components import find_component
    from core.environments.workers import EnvironmentSpec

    component, config = find_component("environment", arguments.environment, arguments.settings)
    spec = EnvironmentSpec(component.name, component.build, config)

    from rich.console import Console

    from core.demonstrations.collect import collect
    from core.demonstrations.progress import live_progress

    with live_progress(arguments.episodes, Console(stderr=True)) as report:
        summary = collect(
            spec,
            arguments.out,
            arguments.tasks,
            arguments.episodes,
            arguments.noise,
            arguments.workers,
            report,
        )
    Console().print(_table(summary))
    for attempt in summary.broken:
        print(f"{attempt}; counted as failed", file=sys.stderr)
    print(f"{arguments.out}: {summary}")
    return 0


def _table(summary: "Summary") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table("task", *("kept", "failed", "mean length"), box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, task in summary.tasks.items():
        table.add_row(
            escape(name), str(task.kept), str(task.failed), f"{task.frames / max(1, task.kept):.1f}"
        )
    return table


def _count(text: str) -> int:
    from core.recipe.sections import MOST_DEMONSTRATIONS

    if not 1 <= (number := int(text)) <= MOST_DEMONSTRATIONS:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and {MOST_DEMONSTRATIONS:,}")
    return number


def _noise(text: str) -> float:
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{number:g} is not between 0 and 1")
    return number


def _parser() -> argparse.ArgumentParser:
    from core.recipe.sections import DemonstrationsConfig

    usual = DemonstrationsConfig()
    parser = argparse.ArgumentParser(
        prog="joinery collect", description="Let an expert demonstrate tasks."
    )
    parser.add_argument("environment", help="a world that `joinery plugins environment` lists")
    parser.add_argument("out", type=local_path, help="the store, new or to be continued: name.zarr")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings of the environment"
    )
    parser.add_argument(
        "--tasks", type=lambda text: text.split(","), default=[], help="a,b,c; default: all"
    )
    parser.add_argument(
        "--episodes",
        type=_count,
        default=usual.episodes,
        help=f"successes of each task; default: {usual.episodes}",
    )
    parser.add_argument(
        "--noise",
        type=_noise,
        default=usual.noise,
        help=f"how much it is disturbed; default: {usual.noise:g}",
    )
    parser.add_argument("--workers", type=_count, help="processes; default: one for each core")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
