"""Reads the numbers of a store, which are its actions and its proprioception."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from core.episodes.episode import StoreInfo
from core.store.store import EpisodeStore

NumberFeature = Literal["action", "proprio"]


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
