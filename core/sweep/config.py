"""What a sweep tries: recipes, variants, seeds; from a TOML file and the command line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from core.errors import ConfigError
from core.recipe.checking import fill, raise_if_repeated, read_toml
from core.registry.part_settings import Positive

# keys by which a file is known for that of a sweep: no recipe has them
TOP_KEYS = ("recipes", "overrides", "seeds", "variant", "grid", "search", "baseline", "threads")
EXECUTORS = ("slurm", "ray")
# runs of a sweep at most: more are a mistake, and would fill memory before the first has begun
MOST_RUNS = 10_000
# bounds of a range, either side of zero: their difference is a number, too
LARGEST = 1e100
# names of options of sbatch, and those by which submitit finds what a job has written
OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
OWN_OPTIONS = {"output", "error", "open_mode"}
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]


@dataclass(frozen=True)
class VariantConfig:
    """One of several ways to train a recipe."""

    name: str
    """what tables and folders call it: letters, digits, and any of _ . , = + -"""
    overrides: tuple[str, ...] = ()
    """changes of the recipe, "section.key=value" each, as on the command line of `joinery run`."""


@dataclass(frozen=True)
class Range:
    """The numbers among which a search chooses."""

    low: int | float
    """the lowest; two whole numbers give whole numbers."""
    high: int | float
    """the highest."""
    log: bool = False
    """whether all factors are equally likely, not all differences."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if max(-self.low, self.high) > LARGEST:
            raise ValueError(f"low and high must be between {-LARGEST} and {LARGEST}")
        if self.log and self.low <= 0:
            raise ValueError(f"log = true needs a low above zero, got {self.low}")

    @property
    def is_whole(self) -> bool:
        """Whether the numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class SearchConfig:
    """Values that are chosen from ranges."""

    ranges: Mapping[str, Range | tuple[Any, ...]]
    """{"section.key": {low = 1e-4, high = 1e-2, log = true}}, or a list of choices."""
    trials: Positive = 10
    """how many combinations of values are tried."""
    method: Literal["random", "optuna"] = "random"
    """"random": all are drawn before the first run; "optuna": each round follows the results of the
    rounds before it, by Optuna's tree of Parzen estimators.
    """
    seed: Seed = 0
    """seed of the draws."""
    round: Positive = 4
    """with "optuna": trials that are chosen together, and can run at once."""

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("ranges names no key; name one, or drop the section")
        if empty := [key for key, choices in self.ranges.items() if choices == ()]:
            raise ValueError(f"ranges: {empty[0]} has no choices")


@dataclass(frozen=True)
class SlurmConfig:
    """The jobs of a sweep on a SLURM cluster."""

    partition: str | None = None
    """where they run; default: the cluster's."""
    minutes: Positive = 1440
    """longest duration of a run; one that takes longer goes on when the sweep is called again."""
    cpus: Positive | None = None
    """cores of a run; default: as many as its threads."""
    gpus: Annotated[int, Ge(0)] = 0
    """GPUs of a run."""
    memory_gb: Positive | None = None
    """memory of a run; default: the cluster's."""
    additional: Mapping[str, str | int] = field(default_factory=dict)
    """further options of sbatch: {account = "lab"}"""
    cluster: Literal["slurm", "local", "debug"] = "slurm"
    """submitit's name of the cluster; "local" starts the jobs on this machine, for a trial."""

    def __post_init__(self) -> None:
        # sbatch reads them from a script of the shell, which would run what follows a line break
        texts = [self.partition or "", *self.additional, *map(str, self.additional.values())]
        if broken := [text for text in texts if not text.isprintable()]:
            raise ValueError(f"options of sbatch are one line of text each, got {broken[0]!r}")
        if wrong := [key for key in self.additional if not OPTION.fullmatch(key)]:
            raise ValueError(
                f"additional.{wrong[0]}: expected the name of an option of sbatch without its "
                'dashes, "account" for example'
            )
        if own := sorted(OWN_OPTIONS & {key.replace("-", "_") for key in self.additional}):
            raise ValueError(f"additional.{own[0]}: the sweep reads this file of a job; drop it")


@dataclass(frozen=True)
class RayConfig:
    """The tasks of a sweep on a Ray cluster."""

    address: str | None = None
    """of the cluster, "auto" for example; default: a cluster of its own on this machine."""
    cpus: Positive | None = None
    """cores of a run; default: as many as its threads."""
    gpus: Annotated[float, Ge(0)] = 0.0
    """GPUs of a run; with 0.5, two runs share one."""


@dataclass(frozen=True)
class SweepConfig:
    """A sweep, checked.

    `slurm` and `ray` say where it runs, which changes none of its numbers.
    """

    recipes: tuple[Path, ...]
    """the recipes, relative to the sweep's folder."""
    overrides: tuple[str, ...] = ()
    """changes of every recipe, before those of the variants."""
    seeds: Positive | tuple[Seed, ...] = 3
    """seeds of training (`train.seed`), each used with every variant; a number n means 0 to n-1."""
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """{"section.key": values}: every combination of the values is tried."""
    baseline: str | None = None
    """the variant with which all others are compared; default: the first."""
    threads: Positive = 1
    """threads with which each run computes; they decide how sums are rounded."""
    variant: tuple[VariantConfig, ...] = ()
    search: SearchConfig | None = None
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        if not self.recipes:
            raise ValueError("recipes names none; name one")
        if self._count() > MOST_RUNS:
            raise ValueError(
                f"recipes, variants, grid, trials and seeds make {self._count()} runs, and a sweep "
                f"has {MOST_RUNS} at most; name fewer"
            )
        raise_if_repeated(tuple(str(path) for path in self.recipes), "recipes")
        raise_if_repeated(tuple(variant.name for variant in self.variant), "variant.name")
        raise_if_repeated(tuple(map(str, self.all_seeds)), "seeds")
        if not self.all_seeds:
            raise ValueError("seeds names none; name one")
        if empty := [key for key, values in self.grid.items() if not values]:
            raise ValueError(f"grid: {empty[0]} has no values")
        searched = self.search.ranges if self.search else {}
        if twice := sorted(self.grid.keys() & searched):
            raise ValueError(f"{twice[0]} is in grid and in search.ranges; drop one of the two")
        changed = [pair.partition("=")[0].strip() for pair in self._all_overrides()]
        if "train.seed" in (*changed, *self.grid, *searched):
            raise ValueError("train.seed is what seeds sets; name the seeds there")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, one by one."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def is_study(self) -> bool:
        """Whether values follow the results of earlier runs."""
        return self.search is not None and self.search.method == "optuna"

    def _count(self) -> int:
        """Return the number of runs."""
        seeds = self.seeds if isinstance(self.seeds, int) else len(self.seeds)
        points = prod(len(values) for values in self.grid.values())
        trials = self.search.trials if self.search else 1
        return len(self.recipes) * max(1, len(self.variant)) * points * trials * seeds

    def _all_overrides(self) -> list[str]:
        return [*self.overrides, *(pair for v in self.variant for pair in v.overrides)]


def is_sweep_file(values: Mapping[str, Any]) -> bool:
    """Whether the contents of a TOML file are those of a sweep, and not of a recipe."""
    return any(key in values for key in TOP_KEYS)


def read_files(paths: Sequence[Path]) -> tuple[dict[str, Any], Path | None]:
    """Return the contents of the sweep's file among `paths`, and its path; the others are recipes.

    Paths in it become absolute. Recipes that are named beside it replace its own. None: all files
    are recipes.

    Raises ConfigError if a file cannot be read, or if there are two files of sweeps.
    """
    contents = {path: read_toml(path, "the file") for path in paths}
    sweeps = [path for path, values in contents.items() if is_sweep_file(values)]
    if len(sweeps) > 1:
        raise ConfigError(f"{sweeps[1]}: a second sweep; name one file of a sweep, and recipes")
    values = dict(contents[sweeps[0]]) if sweeps else {}
    recipes = [str(path.absolute()) for path in paths if path not in sweeps]
    own = values.get("recipes")
    if recipes:
        values["recipes"] = recipes
    elif isinstance(own, list) and all(isinstance(path, str) for path in own):
        folder = sweeps[0].absolute().parent
        values["recipes"] = [str(folder / path) for path in own]
    return values, sweeps[0] if sweeps else None


def check_sweep(values: Mapping[str, Any], source: str) -> SweepConfig:
    """Make a sweep of plain data.

    source: what messages call it, the name of its file for example.

    Raises ConfigError with every mistake, one per line.
    """
    mistakes: list[str] = []
    tables = {"search": SearchConfig, "slurm": SlurmConfig, "ray": RayConfig}
    parts: dict[str, Any] = {}
    for name, kind in tables.items():
        if isinstance(table := values.get(name), dict):
            if name == "search":
                table = _check_ranges(table, mistakes)
            parts[name] = fill(kind, table, name, mistakes)
        elif table is not None:
            mistakes.append(f"{name}: expected a section [{name}], got {table!r}")
    variants = values.get("variant", [])
    if not isinstance(variants, list) or not all(isinstance(table, dict) for table in variants):
        mistakes.append(f"variant: expected tables [[variant]], got {variants!r}")
        variants = []
    several = [
        fill(VariantConfig, table, f"variant.{number}", mistakes)
        for number, table in enumerate(variants)
    ]
    plain = {key: value for key, value in values.items() if key not in (*tables, "variant")}
    own: list[str] = []
    config = fill(SweepConfig, {"recipes": [], **plain}, "", own)
    # the section has no name, so its keys begin with a dot, and what concerns all with a colon
    mistakes = [line.removeprefix(".").removeprefix(": ") for line in own] + mistakes
    if mistakes or config is None:
        raise ConfigError([f"{source}: {mistake}" for mistake in mistakes])
    try:
        return replace(config, variant=tuple(v for v in several if v), **parts)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None


def _check_ranges(search: Mapping[str, Any], mistakes: list[str]) -> Mapping[str, Any]:
    """Append a line for each wrong range of [search]; return the section with others for these."""
    ranges = search.get("ranges")
    if not isinstance(ranges, dict):
        return search
    checked = {}
    for key, choices in ranges.items():
        where, before = f"search.ranges.{key}", len(mistakes)
        if isinstance(choices, dict):
            fill(Range, choices, where, mistakes)
        elif not isinstance(choices, list):
            mistakes.append(
                f"{where}: expected {{low = 1, high = 4}}, or a list of choices, got {choices!r}"
            )
        checked[key] = choices if len(mistakes) == before else [0]
    return {**search, "ranges": checked}
