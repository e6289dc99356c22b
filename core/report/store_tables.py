"""Prints the meaning and statistics of a store's numbers, and what looks wrong in the store."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.episodes.episode import StoreInfo
from core.report.store_inspection import Inspection, TaskSummary
from core.report.store_numbers import names_by_feature
from core.store.store import EpisodeStore


def show_store(store: EpisodeStore, inspection: Inspection | None, console: Console) -> None:
    """Print what a store holds and what looks wrong.

    inspection: None if the store has no episodes.
    """
    origin = store.info.origin or "origin unknown"
    console.print(
        f"{store.path}: {len(store)} episodes, {store.frame_count} frames; {origin}", markup=False
    )
    show_info(store.info, console)
    for camera in store.info.cameras:
        _print_plain(console, f"  camera {camera} is stored as {store.codecs[camera]}")
    if inspection is None:
        return
    console.print(_tasks_table(inspection.tasks), statistics_table(store))
    for suspicion in inspection.suspicions:
        _print_plain(console, f"suspicious: {suspicion}")
    if not inspection.suspicions:
        console.print("nothing looks suspicious")


def show_info(info: StoreInfo, console: Console) -> None:
    """Print cameras, features, and what the numbers of a store or a source mean."""
    action = info.action
    for name, camera in info.cameras.items():
        _print_plain(console, f"  camera {name}: {camera.height} x {camera.width}, {info.fps:g} Hz")
    for name, feature in info.features.items():
        _print_plain(console, f"  feature {name}: {feature}")
    convention = f"{action.mode}, frame {action.frame}, rotation {action.rotation}"
    console.print(f"  actions: {convention}, {action.rate:g} Hz")
    grippers = {gripper.dimension: gripper for gripper in action.grippers}
    for number, (name, scale) in enumerate(zip(action.names, action.scale, strict=True)):
        line = f"    {number} {name}: 1.0 is {scale:g}"
        if gripper := grippers.get(number):
            line += f", {gripper.kind} gripper: {gripper.closed:g} closed, {gripper.open:g} open"
        _print_plain(console, line)
    _print_plain(console, f"  proprioception: {', '.join(info.proprio) or 'none'}")


def statistics_table(store: EpisodeStore) -> Table:
    """Return a table of the statistics of a store's numbers, with a row for each dimension."""
    table = _make_table("dimension", "least", "1 %", "mean", "std", "99 %", "most")
    for feature, names in names_by_feature(store.info).items():
        s = store.statistics[feature]
        columns = (s.min, s.quantile(0.01), s.mean, s.std, s.quantile(0.99), s.max)
        for name, *row in zip(names, *columns, strict=True):
            table.add_row(escape(f"{feature} {name}"), *(f"{value:.4g}" for value in row))
    return table


def _tasks_table(tasks: tuple[TaskSummary, ...]) -> Table:
    table = _make_table("task", "episodes", "frames", "shortest", "longest", "phrasings")
    for task in tasks:
        numbers = (task.episodes, task.frames, task.shortest, task.longest, len(task.instructions))
        table.add_row(escape(task.name), *map(str, numbers))
    return table


def _make_table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _print_plain(console: Console, line: str) -> None:
    """Print a line as it is: without colours, and with square brackets as text, not markup."""
    console.print(line, highlight=False, markup=False)
