"""The numbers of a store, actions and proprioception, in the form that all pages need."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from core.episodes.episode import StoreInfo
from core.store.store import EpisodeStore

NumberFeature = Literal["action", "proprio"]
# Values lie far outside if they are further from the middle 98 % than this many times its span.
OUTLIER_SPANS = 5.0


def names_by_feature(info: StoreInfo) -> Mapping[NumberFeature, tuple[str, ...]]:
    """Return the names of the dimensions of the actions and of the proprioception."""
    return {"action": info.action.names, "proprio": info.proprio}


def read_numbers(store: EpisodeStore, episode: int) -> Mapping[NumberFeature, np.ndarray]:
    """Read an episode's actions (n A) and proprioception (n P), float32."""
    length = int(store.length[episode])
    return {
        "action": store.actions(episode, 0, length),
        "proprio": store.proprio(episode, 0, length),
    }


def has_outliers(least: float, low: float, high: float, most: float) -> bool:
    """Return whether a dimension has values far outside of its middle 98 %, low to high."""
    return high > low and max(most - high, low - least) > OUTLIER_SPANS * (high - low)
