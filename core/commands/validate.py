"""`joinery validate RUN STORE.zarr`: the errors of a policy's predicted actions on any store."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.command import CommandParser, add_moved, checkpoint_name, command, path, positive
from core.store.location import address

if TYPE_CHECKING:
    from rich.console import Console

    from core.evaluation.open_loop import OpenLoop, TaskError


def _parser() -> CommandParser:
    parser = CommandParser(
        "validate",
        "Compare the actions that a policy predicts with those of a store's episodes.",
        writes="the file of --json; without it, nothing",
    )
    parser.add_argument(
        "run", metavar="RUN", type=path, help="a run's folder, runs/kosmos_lstm for example"
    )
    parser.add_argument(
        "store", metavar="STORE", type=address, help="the store: STORE.zarr, or its URL"
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_name,
        default="last",
        help="last, best, or the step of a checkpoint; default: last",
    )
    parser.add_argument(
        "--episodes", type=positive, help="how many at most, of each task in turn; default: all"
    )
    parser.add_argument(
        "--as",
        dest="label",
        metavar="NAME",
        help="of a policy that was trained on several stores, that whose names and normalisers "
        "are used; default: STORE, if it is one of them, or else the first",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the errors there, too")
    add_moved(parser)
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Predict the actions of a store's episodes, and print the errors by task and by dimension."""
    arguments = _parser().parse(argv)

    from core.recipe.places import parse_moved
    from core.recipe.recipe import load_acting_recipe
    from core.registry.catalogue import load_plugins

    moved = parse_moved(arguments.moved)
    recipe = load_acting_recipe(arguments.run, load_plugins(), moved)

    from core.evaluation.open_loop import validate_on_store
    from core.report.page import write_page
    from core.system.console import output

    result = validate_on_store(
        arguments.run,
        recipe,
        arguments.store,
        arguments.checkpoint,
        arguments.label,
        arguments.episodes,
        moved,
    )
    _show(result, arguments.store, output())
    if arguments.json:
        text = json.dumps(_as_plain(result, str(arguments.store)), indent=1, allow_nan=False)
        write_page(arguments.json, text)
    return 0


def _show(result: "OpenLoop", store: object, console: "Console") -> None:
    """Print a table of the errors by task, and one of the errors by action dimension."""
    from core.report.run_held_out import shown_steps
    from core.system.tables import NumberTable

    total, noun = result.total, "held-out episodes" if result.held_out else "episodes"
    console.print(
        f"{store}: {total.episodes} {noun}, {total.frames} frames, {result.checkpoint}; mean "
        "squared errors of the normalised actions; constant: of the best constant action per task"
    )
    table = NumberTable(("task", "episodes", "error", "constant", "difference"))
    for task, error in {**result.by_task, "all": total}.items():
        table.add_row(task, *_cells(error))
    console.print(table)
    console.print("mean absolute errors in the units of the policy's actions")
    errors = result.in_units
    steps = shown_steps(len(errors.errors))
    table = NumberTable(("action", *(f"step {step + 1}" for step in steps), "constant"))
    for d, name in enumerate(errors.names):
        numbers = [*(errors.errors[step, d] for step in steps), errors.constant[d]]
        table.add_row(name, *("-" if x != x else f"{x:.4g}" for x in numbers))
    console.print(table)


def _cells(error: "TaskError") -> tuple[str, str, str, str]:
    """Return the cells of a task's row."""
    side = "below" if error.improvement > 0 else "above"
    return (
        str(error.episodes),
        f"{error.error:.4f}",
        f"{error.constant:.4f}",
        f"{abs(error.improvement):.0%} {side}",
    )


def _as_plain(result: "OpenLoop", store: str) -> dict[str, Any]:
    """Return the errors as plain data that JSON can hold; null stands for what no episode has."""
    in_units = result.in_units
    return {
        "store": store,
        "checkpoint": result.checkpoint,
        "held_out": result.held_out,
        "total": asdict(result.total),
        "by_task": {task: asdict(error) for task, error in result.by_task.items()},
        "names": list(in_units.names),
        "errors": [[None if x != x else x for x in row] for row in in_units.errors.tolist()],
        "constant": in_units.constant.tolist(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
