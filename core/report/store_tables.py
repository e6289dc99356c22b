"""What is printed of a store: what it holds, what its numbers mean, how they are spread, and what
looks wrong.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from core.episodes.episode import StoreInfo
    from core.report.store_inspection import Inspection, TaskSummary
    from core.store.store import EpisodeStore


def show_store(store: "EpisodeStore", found: "Inspection | None", console: "Console") -> None:
    """Print all that is known of a store; found: None where it has no episodes."""
    console.print(
        f"{store.path}: {len(store)} episodes, {store.frame_count} frames; {store.info.origin or 'origin unknown'}",
        markup=False,
    )
    show_info(store.info, console)
    for camera in store.info.cameras:
        console.print(
            f"  camera {camera} is stored as {store.codecs[camera]}", highlight=False, markup=False
        )
    if found is None:
        return
    console.print(_tasks_table(found.tasks), statistics_table(store))
    for suspicion in found.suspicions:
        console.print(f"suspicious: {suspicion}", highlight=False, markup=False)
    if not found.suspicions:
        console.print("nothing looks suspicious")


def show_info(info: "StoreInfo", console: "Console") -> None:
    """Cameras, features, and what the numbers mean."""
    action = info.action
    grippers = {
        g.dimension: f", {g.kind} gripper: {g.closed:g} closed, {g.open:g} open"
        for g in action.grippers
    }
    for name, camera in info.cameras.items():
        console.print(
            f"  camera {name}: {camera.height} x {camera.width}, {info.fps:g} Hz",
            highlight=False,
            markup=False,
        )
    for name, feature in info.features.items():
        console.print(f"  feature {name}: {feature}", highlight=False, markup=False)
    console.print(
        f"  actions: {action.mode}, frame {action.frame}, rotation {action.rotation}, {action.rate:g} Hz"
    )
    for number, (name, scale) in enumerate(zip(action.names, action.scale, strict=True)):
        console.print(
            f"    {number} {name}: 1.0 is {scale:g}{grippers.get(number, '')}",
            highlight=False,
            markup=False,
        )
    console.print(
        f"  proprioception: {', '.join(info.proprio) or 'none'}", highlight=False, markup=False
    )


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
