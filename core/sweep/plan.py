"""The runs of a sweep: each variant with each seed, in a folder of its own; checked, not begun."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.environments.workers import EnvironmentFailed
from core.errors import ConfigError, DataError
from core.evaluation.evaluation import raise_if_all_broke
from core.evaluation.results_log import read_results
from core.recipe.contents import MONITOR_KEYS, Recipe
from core.recipe.recipe import load_recipe
from core.registry.catalogue import Catalogue
from core.report.page import flatten
from core.report.run_metrics import read_metrics
from core.sweep.variants import Variant
from core.system.files import written_aside
from core.weights.checkpoint import checkpoints

# the recipe of a run as the sweep has resolved it, in the run's folder
FILE = "planned.toml"
# keys that change neither a run's weights nor its results
FREE = {*MONITOR_KEYS, "train.keep_last", "train.keep_frozen", "data.threads", "data.prefetch"}


@dataclass(frozen=True)
class PlannedRun:
    """A variant with a seed: an ordinary run, in a folder below that of the sweep."""

    variant: Variant
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        """What messages call the run."""
        return f"{self.variant.name}, seed {self.seed}"

    @property
    def has_begun(self) -> bool:
        """Whether its folder holds a plan."""
        return (self.folder / FILE).exists()

    @property
    def is_finished(self) -> bool:
        """Whether it has trained to its end, and was evaluated if its recipe says so.

        Of `joinery run`, the report comes last.
        """
        recipe, folder = self.recipe, self.folder
        if recipe.evaluate or (recipe.environment is None and recipe.data.holds_out):
            return (folder / "report.html").exists() and not _all_broke(folder)
        saved = checkpoints(folder)
        if saved and saved[-1].step == recipe.train.steps:
            return True
        metrics = folder / "metrics.jsonl"
        return metrics.exists() and "stopped_early" in read_metrics(metrics)

    def write(self) -> Path:
        """Write the recipe of the run into its folder, and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / FILE
        text = self.recipe.as_toml()
        if not path.exists() or path.read_bytes() != text.encode():
            with written_aside(path) as aside:
                aside.write_text(text, encoding="utf-8")
        return path


def _all_broke(folder: Path) -> bool:
    """Whether the environment broke in every attempt, so that nothing was measured."""
    evaluation = read_results(folder / "evaluation")
    try:
        if evaluation is not None:
            raise_if_all_broke(evaluation)
    except EnvironmentFailed:
        return True
    return False


def plan_runs(
    variants: Sequence[Variant], seeds: Sequence[int], output: Path, catalogue: Catalogue
) -> list[PlannedRun]:
    """Return the runs of all variants, seed by seed.

    So a sweep that is interrupted has whole comparisons of the first seeds.

    Raises ConfigError with every mistake in the recipe of any variant; a mistake that several
    variants share is one line.
    """
    loaded: list[tuple[Variant, Recipe]] = []
    mistakes: dict[str, list[str]] = {}
    for variant in variants:
        try:
            recipe = load_recipe(variant.recipe, variant.overrides, catalogue)
            loaded.append((variant, recipe))
        except ConfigError as error:
            for line in error.mistakes:
                mistakes.setdefault(line, []).append(variant.name)
    if mistakes:
        raise ConfigError([f"{line} ({_in(names)})" for line, names in mistakes.items()])
    return [
        PlannedRun(
            variant,
            seed,
            replace(recipe, train=replace(recipe.train, seed=seed)),
            output / variant.name / f"seed_{seed}",
        )
        for seed in seeds
        for variant, recipe in loaded
    ]


def _in(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"in {shown} and {len(names) - 3} more" if len(names) > 3 else f"in {shown}"


def refuse_changes(runs: Iterable[PlannedRun], catalogue: Catalogue) -> None:
    """Raise ConfigError if a run has begun with another recipe than the sweep now has for it."""
    lines, changed = [], {}
    for run in runs:
        if not run.has_begun or run.variant.name in changed:
            continue
        differences = _differences(run, catalogue)
        if differences:
            changed[run.variant.name] = run.folder.parent
        lines += [
            f"{run.variant.name}: {key} was {former}, and is now {new}"
            for key, (former, new) in differences.items()
        ]
    if changed:
        folders = " ".join(map(str, changed.values()))
        raise ConfigError(
            [
                *lines,
                "runs of one variant must not be mixed: name the changed ones otherwise, restore "
                f"these keys, name another --output, or remove what is there: {folders}",
            ]
        )


def _differences(run: PlannedRun, catalogue: Catalogue) -> dict[str, tuple[str, str]]:
    """Return {key: (its value when the run began, its value now)}, as far as results depend on it.

    Raises DataError if the file that the sweep wrote is damaged.
    """
    path = run.folder / FILE
    if path.read_bytes() == run.recipe.as_toml().encode():
        return {}
    try:
        former = load_recipe(path, [], catalogue)
    except ConfigError as error:
        raise DataError(
            f"{error.mistakes[0]}; remove {run.folder}, so that the run begins again"
        ) from None
    one, two = _flat(former), _flat(run.recipe)
    keys = sorted((one.keys() | two.keys()) - FREE)
    pairs = {key: (one.get(key, "unset"), two.get(key, "unset")) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _flat(recipe: Recipe) -> Mapping[str, str]:
    return flatten(tomllib.loads(recipe.as_toml()))


def shared_needs(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return one run for each combination of data and environment, which others share.

    Raises ConfigError if two variants would record different demonstrations into one store.
    """
    recorded: dict[str, tuple[Any, str]] = {}
    groups: dict[str, PlannedRun] = {}
    mistakes = []
    for run in runs:
        sections = run.recipe.as_dict()
        wanted = {key: sections.get(key) for key in ("environment", "demonstrations")}
        if run.recipe.demonstrations:
            store = str(run.recipe.data.path)
            first, name = recorded.setdefault(store, (wanted, run.variant.name))
            if first != wanted:
                mistakes.append(
                    f"{run.variant.name}: records other demonstrations into {store} than {name}; "
                    "give it a data.path of its own"
                )
        needs = {**wanted, "data": sections["data"], "evaluate": sections.get("evaluate")}
        groups.setdefault(repr(needs), run)
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    return list(groups.values())
