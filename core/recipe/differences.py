"""In which keys two recipes differ, as far as the weights that they train depend on them."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from core.recipe.contents import PARTS, Recipe
from core.recipe.paths import SOURCES
from core.recipe.sections import EvaluateConfig, StoreConfig

# keys that may change when a run is resumed, because the weights do not depend on them
FREE_ON_RESUME = {
    "train.keep_last",
    "train.keep_frozen",
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.joint_table_every",
    "train.loggers",
    "train.callbacks",
    "data.path",
    "data.threads",
    "data.prefetch",
    *(f"evaluate.{field.name}" for field in fields(EvaluateConfig)),
    # the path of pretrained weights may change, because a checkpoint holds these weights or their
    # checksum
    *(f"{kind}.{key}" for kind in PARTS for key in SOURCES),
    "start.run",
}


def differences(former: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return {"section.key": (its former value, its new value)} of keys that affect the weights.

    The value of a key that is not set is None.
    """
    former_values, new_values = _values_by_key(former), _values_by_key(new)
    keys = former_values.keys() | new_values.keys()
    free = set(FREE_ON_RESUME)
    if not any(key.startswith("demonstrations.") for key in keys):
        # the environment may change, because it gives no training data
        free |= {key for key in keys if key.startswith("environment.")}
    if former.train.patience or new.train.patience:
        free.remove("train.validate_every")  # it decides when early stopping ends the run
    pairs = {key: (former_values.get(key), new_values.get(key)) for key in sorted(keys - free)}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _values_by_key(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as {"section.key": value}; a list of tables in the recipe becomes one value.

    A store is represented by its label and not by its path, so that it may be moved before a run is
    resumed. For the same reason, auxiliary heads are without the source of their initial weights.
    """
    values: dict[str, Any] = {}
    for name, section in tomllib.loads(recipe.as_toml()).items():
        if isinstance(section, dict):
            values.update({f"{name}.{key}": value for key, value in section.items()})
        else:
            values[name] = section
    stores = []
    for store in values.get("data.stores", []):
        label = StoreConfig(Path(store["path"]), store.get("name")).label
        stores.append({**store, "path": None, "name": label})
    values["data.stores"] = stores
    heads = values.get("auxiliary", [])
    values["auxiliary"] = [{**head, "pretrained": None} for head in heads]
    return values
