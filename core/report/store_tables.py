"""Prints the meaning and statistics of a store's numbers, and what looks wrong in the store."""

from rich.console import Console

from core.episodes.episode import ActionConvention, StoreInfo
from core.report.store_inspection import Inspection, TaskSummary
from core.report.store_numbers import action_unit, names_by_feature, proprio_units
from core.report.wording import significant
from core.store.store import EpisodeStore
from core.system.tables import NumberTable


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
    convention = {"mode": action.mode, "frame": action.frame, "rotation": action.rotation}
    parts = [
        f"{'' if key == 'mode' else f'{key} '}{value}{_doubt(key, info)}"
        for key, value in convention.items()
    ]
    _print_plain(console, f"  actions: {', '.join(parts)}, {action.rate:g} Hz")
    grippers = {gripper.dimension: gripper for gripper in action.grippers}
    for number, (name, scale) in enumerate(zip(action.names, action.scale, strict=True)):
        unit = f"{scale:g} {action_unit(action, number)}".rstrip()
        line = f"    {number} {name}: 1.0 is {unit}"
        if gripper := grippers.get(number):
            line += f", {gripper.kind} gripper: {gripper.closed:g} closed, {gripper.open:g} open"
        else:
            line += _doubt("scale", info)
        _print_plain(console, line)
    units = proprio_units(info)
    numbers = [f"{name} ({units.get(name, '')})".removesuffix(" ()") for name in info.proprio]
    _print_plain(console, f"  proprioception: {', '.join(numbers) or 'none'}")
    reasons: dict[str, list[str]] = {}
    for key, reason in info.assumed.items():
        reasons.setdefault(reason, []).append(key)
    for reason, keys in reasons.items():
        _print_plain(console, f"  assumed: {', '.join(keys)} ({reason})")
    if info.assumed:
        _print_plain(
            console, "  correct what is wrong under [meaning] in a mapping, or with joinery edit"
        )


def _doubt(key: str, info: StoreInfo) -> str:
    """Return a mark for what is assumed instead of recorded."""
    return " (assumed)" if key in info.assumed else ""


def statistics_table(store: EpisodeStore) -> NumberTable:
    """Return a table of the statistics of a store's numbers, with a row for each dimension.

    Its unit stands beside a name; that of an action is what its value 1.0 is, "0.02 m" for example.
    """
    units = proprio_units(store.info)
    table = NumberTable(("dimension", "least", "1 %", "mean", "std", "99 %", "most"))
    for feature, names in names_by_feature(store.info).items():
        s = store.statistics[feature]
        columns = (s.min, s.quantile(0.01), s.mean, s.std, s.quantile(0.99), s.max)
        for d, (name, *row) in enumerate(zip(names, *columns, strict=True)):
            unit = _unit(store.info.action, d) if feature == "action" else units.get(name, "")
            label = f"{feature} {name} ({unit})".removesuffix(" ()")
            table.add_row(label, *(significant(value, 4) for value in row))
    return table


def _unit(action: ActionConvention, dimension: int) -> str:
    """Return the unit of an action dimension, "m" or "0.02 m" for example; "" for a gripper."""
    unit, scale = action_unit(action, dimension), action.scale[dimension]
    return unit if not unit or scale == 1 else f"{scale:g} {unit}"


def _tasks_table(tasks: tuple[TaskSummary, ...]) -> NumberTable:
    table = NumberTable(("task", "episodes", "frames", "shortest", "longest", "phrasings"))
    for task in tasks:
        numbers = (task.episodes, task.frames, task.shortest, task.longest, len(task.instructions))
        table.add_row(task.name, *map(str, numbers))
    return table


def _print_plain(console: Console, line: str) -> None:
    """Print a line as it is: without colours, and with square brackets as text, not markup."""
    console.print(line, highlight=False, markup=False)
