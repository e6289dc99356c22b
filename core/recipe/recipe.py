"""A recipe is one TOML file; `load_recipe` makes frozen, checked dataclasses from it.

The steps of `load_recipe`, in this order:

1. read the file;
2. give keys of earlier versions their present names (core/recipe/former.py);
3. replace the environment, if the caller names another environment (core/recipe/overrides.py);
4. apply the overrides of the command line (core/recipe/overrides.py);
5. move keys that earlier versions had in another section (core/recipe/former.py);
6. check every section, then check whether the sections fit each other (core/recipe/tables.py);
7. make relative paths absolute (core/recipe/paths.py).

All mistakes of steps 4 and 6 are reported at once, before anything is built.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from core.errors import ConfigError
from core.recipe.checking import read_toml
from core.recipe.contents import MONITOR_KEYS, Recipe
from core.recipe.former import move_attention, rename_former_keys
from core.recipe.known_keys import unknown_keys
from core.recipe.overrides import (
    leftover_keys,
    override,
    replace_environment,
    section_of,
)
from core.recipe.packages import read_origins
from core.recipe.paths import with_absolute_paths
from core.recipe.places import find_places, use_copies
from core.recipe.sections import ENVIRONMENT_SECTIONS
from core.recipe.tables import Checker
from core.registry.catalogue import Catalogue
from core.system.links import check_run

# what evaluating a policy does without
NOT_FOR_EVALUATION = ("optimizer", *MONITOR_KEYS)
# what a policy that acts, on a robot for example, does without
NOT_FOR_ACTING = (*NOT_FOR_EVALUATION, "environment", *ENVIRONMENT_SECTIONS)


def load_recipe(
    path: Path,
    overrides: Iterable[str],
    catalogue: Catalogue,
    environment: str | None = None,
    ignored: Collection[str] = (),
) -> Recipe:
    """Read, override and check a recipe. Raises ConfigError with every mistake, one per line.

    overrides: from the command line: `section.key=value`, or `section={key = value}` for a whole
        section; `section.key=unset` and `section=unset` remove it.
    environment: name of an environment that replaces the recipe's environment. If the two differ,
        the recipe's `evaluate.tasks`, the names in [evaluate] and [demonstrations] are dropped.
    ignored: sections and keys of the file that are dropped, [optimizer] and `train.loggers` for
        example, because what they name need not be installed.
    """
    values = read_toml(path, "the recipe")
    for name in ignored:
        section, _, key = name.rpartition(".")
        table = values.get(section) if section else values
        if isinstance(table, dict):
            table.pop(key, None)
    rename_former_keys(values)
    if environment is not None:
        replace_environment(values, environment)
    former, overrides = deepcopy(values), list(overrides)
    overridden = override(values, overrides)
    mistakes = overridden.mistakes
    move_attention(values, catalogue)
    recipe = Checker(catalogue, mistakes, read_origins(path.parent)).recipe(values)
    if recipe is None:
        mistakes += leftover_keys(former, overrides, mistakes)
    else:
        mistakes += unknown_keys(recipe, overridden.unset)
    if recipe is None or mistakes:
        raise ConfigError([f"{path}: {mistake}" for mistake in mistakes])
    return with_absolute_paths(recipe, path.parent.absolute(), overridden.written)


def load_recipe_of_run(
    run: Path,
    overrides: Sequence[str],
    catalogue: Catalogue,
    environment: str | None = None,
    moved: Mapping[str, str] | None = None,
) -> Recipe:
    """Load the recipe of a trained run, whose policy will be evaluated.

    Only `evaluate.*` and `environment.*` may be overridden; the other keys describe how the policy
    was built and trained.

    moved: {former place of a file or folder: its place now}; see core/recipe/places.py.

    Raises ConfigError with every mistake, one per line, and DataError if a link in the run's folder
    leads out of it.
    """
    mistakes = [
        f"override '{override}': only evaluate.* and environment.* may change now"
        + ("; say where a file has moved to by --moved OLD=NEW" if "/" in override else "")
        for override in overrides
        if section_of(override) not in ("evaluate", "environment")
    ]
    if mistakes:
        raise ConfigError(mistakes)
    check_run(run)
    path = run / "recipe.toml"
    recipe = load_recipe(path, overrides, catalogue, environment, NOT_FOR_EVALUATION)
    return use_copies(find_places(recipe, run, moved or {}), run)


def load_acting_recipe(
    run: Path, catalogue: Catalogue, moved: Mapping[str, str] | None = None
) -> Recipe:
    """Load what the recipe of a trained run says about its policy.

    Whatever else it says does not matter, so the environment, the optimiser and the loggers that it
    names need not be installed: the recipe that is returned has no environment.

    moved: {former place of a file or folder: its place now}; see core/recipe/places.py.

    Raises ConfigError with every mistake, one per line, and DataError if a link in the run's folder
    leads out of it.
    """
    check_run(run)
    recipe = load_recipe(run / "recipe.toml", [], catalogue, ignored=NOT_FOR_ACTING)
    return use_copies(find_places(recipe, run, moved or {}), run)
