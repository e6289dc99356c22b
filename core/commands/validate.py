"""`joinery validate RUN STORE.zarr`: the errors of a policy's predicted actions on any store."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.command import add_moved, checkpoint_name, command, positive
from core.store.location import address

if TYPE_CHECKING:
    from rich.console import Console

    from core.evaluation.open_loop import OpenLoop, TaskError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery validate",
        description="Compare the actions that a policy predicts with those of a store's episodes.",
    )
    parser.add_argument("run", type=Path, help="a run's folder, runs/kosmos_lstm for example")
    parser.add_argument("store", type=address, help="the store: name.zarr, or its URL")
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
    arguments = _parser().parse_args(argv)

    from core.recipe.places import parse_moved
    from core.recipe.recipe import load_recipe_of_run
    from core.registry.catalogue import load_plugins

    moved = parse_moved(arguments.moved)
    recipe = load_recipe_of_run(arguments.run, [], load_plugins(), moved=moved)

    from rich.console import Console

    from core.evaluation.open_loop import validate_on_store

    result = validate_on_store(
        arguments.run,
        recipe,
        arguments.store,
        arguments.checkpoint,
        arguments.label,
        arguments.episodes,
        moved,
    )
    _show(result, arguments.store, Console())
    if arguments.json:
        text = json.dumps(_as_plain(result, str(arguments.store)), indent=1, allow_nan=False)
        arguments.json.write_text(text, encoding="utf-8")
    return 0


def _show(result: "OpenLoop", store: object, console: "Console") -> None:
    """Print a table of the errors by task, and one of the errors by action dimension."""
    from rich import box
    from rich.table import Table

    from core.report.run_held_out import shown_steps

    total, noun = result.total, "held-out episodes" if result.held_out else "episodes"
    console.print(
        f"{store}: {total.episodes} {noun}, {total.frames} frames, {result.checkpoint}; mean "
        "squared errors of the normalised actions; constant: of the best constant action per task",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("task", "episodes", "error", "constant", "difference"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for task, error in {**result.by_task, "all": total}.items():
        table.add_row(task, *_cells(error))
    console.print(table, markup=False)
    console.print("mean absolute errors in the units of the policy's actions", soft_wrap=True)
    errors = result.in_units
    steps = shown_steps(len(errors.errors))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("action")
    for heading in (*(f"step {step + 1}" for step in steps), "constant"):
        table.add_column(heading, justify="right")
    for d, name in enumerate(errors.names):
        numbers = [*(errors.errors[step, d] for step in steps), errors.constant[d]]
        table.add_row(name, *("-" if x != x else f"{x:.4g}" for x in numbers))
    console.print(table, markup=False)


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
