"""`joinery show STORE.zarr`: what a store holds, what its numbers mean, and what looks wrong."""

import argparse
from typing import TYPE_CHECKING

from core.cli import command
from core.data.location import address

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from core.data.contracts import StoreInfo
    from core.data.inspection import TaskSummary
    from core.data.store import EpisodeStore


@command
def main(argv: list[str] | None = None) -> int:
    """Show a store."""
    path = _parser().parse_args(argv).store

    from rich.console import Console

    from core.data.inspection import inspect
    from core.data.store import EpisodeStore

    console, store = Console(soft_wrap=True), EpisodeStore(path)
    console.print(
        f"{path}: {len(store)} episodes, {store.frame_count} frames; {store.info.origin or 'origin unknown'}",
        markup=False,
    )
    show_info(store.info, console)
    for camera, codec in store.codecs.items():
        console.print(f"  camera {camera} is stored as {codec.name}", highlight=False, markup=False)
    if not len(store):
        return 0
    found = inspect(store)
    console.print(_tasks_table(found.tasks), statistics_table(store))
    for suspicion in found.suspicions:
        console.print(f"suspicious: {suspicion}", highlight=False, markup=False)
    if not found.suspicions:
        console.print("nothing looks suspicious")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joinery show", description="Show what a store holds.")
    parser.add_argument("store", type=address, help="the store: name.zarr, or its URL")
    return parser


def show_info(info: "StoreInfo", console: "Console") -> None:
    """Cameras, and what the numbers mean."""
    action = info.action
    grippers = {g.dimension: f", {g.kind} gripper: {g.closed:g} closed, {g.open:g} open" for g in action.grippers}
    for name, camera in info.cameras.items():
        console.print(
            f"  camera {name}: {camera.height} x {camera.width}, {info.fps:g} Hz", highlight=False, markup=False
        )
    console.print(f"  actions: {action.mode}, frame {action.frame}, rotation {action.rotation}, {action.rate:g} Hz")
    for number, (name, scale) in enumerate(zip(action.names, action.scale, strict=True)):
        console.print(f"    {number} {name}: 1.0 is {scale:g}{grippers.get(number, '')}", highlight=False, markup=False)
    console.print(f"  proprioception: {', '.join(info.proprio) or 'none'}", highlight=False, markup=False)


def statistics_table(store: "EpisodeStore") -> "Table":
    """The spread of a store's numbers, a row for each dimension."""
    from rich.markup import escape

    table = _table("dimension", "least", "1 %", "mean", "std", "99 %", "most")
    for feature, names in (("action", store.info.action.names), ("proprio", store.info.proprio)):
        s = store.statistics[feature]
        columns = (s.min, s.quantile(0.01), s.mean, s.std, s.quantile(0.99), s.max)
        for name, *row in zip(names, *columns, strict=True):
            table.add_row(escape(f"{feature} {name}"), *(f"{value:.4g}" for value in row))
    return table


def _tasks_table(tasks: "tuple[TaskSummary, ...]") -> "Table":
    from rich.markup import escape

    table = _table("task", "episodes", "frames", "shortest", "longest", "phrasings")
    for task in tasks:
        numbers = (task.episodes, task.frames, task.shortest, task.longest, len(task.instructions))
        table.add_row(escape(task.name), *map(str, numbers))
    return table


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
