"""What acting needs in addition to the weights; every checkpoint holds a copy in state.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from core.loading.training_data import TrainingData

# entries of the state that only some data have
OPTIONAL = ("stores", "features", "assumed", "proprio_units")
# the entry that says where the data come from, {store: its origin}; training does not depend on it
ORIGINS = "origins"


def inference_state(data: TrainingData) -> dict[str, Any]:
    """Return the normalisers, conventions and names of the data, as JSON holds them."""
    info = data.info
    stores = [dataset.view.store for dataset in data.datasets]
    normalizers = [
        {
            "action_normalizer": dataset.action_normalizer.to_json(),
            "proprio_normalizer": dataset.proprio_normalizer.to_json(),
        }
        for dataset in data.datasets
    ]
    state: dict[str, Any] = dict(normalizers[0])
    if data.recipe.data.stores:
        labels = [dataset.label for dataset in data.datasets]
        state["stores"] = dict(zip(labels, normalizers, strict=True))
    state["action_convention"] = info.action.to_plain()
    state["cameras"] = {name: asdict(camera) for name, camera in info.cameras.items()}
    if info.features:
        state["features"] = {name: asdict(feature) for name, feature in info.features.items()}
    if info.assumed:
        state["assumed"] = dict(info.assumed)
    state["proprio"] = list(info.proprio)
    if info.proprio_units:
        state["proprio_units"] = list(info.proprio_units)
    state["fps"] = info.fps
    labels = [source.label for source in data.recipe.data.store_configs]
    state[ORIGINS] = {label: store.info.origin for label, store in zip(labels, stores, strict=True)}
    state["trained_on"] = {
        "episodes": sum(map(len, stores)),
        "frames": sum(store.frame_count for store in stores),
    }
    plain: dict[str, Any] = json.loads(json.dumps(state))
    return plain


def changed_data(former: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in which entries the new state differs; the paths of the stores are none of them.

    former: empty if nothing is known of it.
    """
    if not former:
        return []
    dropped = [key for key in OPTIONAL if key in former and key not in new]
    changed = [key for key in new if key != ORIGINS and former.get(key) != new[key]]
    return [*changed, *dropped]
