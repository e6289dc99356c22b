"""Reads the numbers of a store, which are its actions and its proprioception."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from core.episodes.conventions import gripper_of, rotation_columns
from core.episodes.episode import ActionConvention, StoreInfo
from core.episodes.units import units_by_name
from core.store.store import EpisodeStore

NumberFeature = Literal["action", "proprio"]
# Layouts of rotations whose numbers are angles.
ANGLES = ("euler_xyz", "axis_angle")


def names_by_feature(info: StoreInfo) -> Mapping[NumberFeature, tuple[str, ...]]:
    """Return the names of the dimensions of the actions and of the proprioception."""
    return {"action": info.action.names, "proprio": info.proprio}


def action_unit(action: ActionConvention, dimension: int) -> str:
    """Return the unit of an action dimension times its scale: "m", "rad", "m or rad", or none.

    A gripper has none, and neither have quaternions and the columns of a rotation matrix. Of
    rotations, it may be unclear which of the dimensions they are.
    """
    if gripper_of(action, dimension) is not None:
        return ""
    if action.units and (unit := action.units[dimension]):
        return "" if unit == "1" else unit
    if action.frame == "joint":
        return "rad"
    if action.rotation == "none":
        return "m"
    angle = "rad" if action.rotation in ANGLES else ""
    columns = rotation_columns(action)
    if not columns:
        return f"m or {angle or 'none'}"
    return angle if dimension in columns else "m"


def proprio_units(info: StoreInfo) -> dict[str, str]:
    """Return {name: unit} of the proprioceptive numbers whose unit is known; "" for none."""
    units = units_by_name(info.proprio, info.proprio_units)
    return {name: "" if unit == "1" else unit for name, unit in units.items()}


def read_numbers(store: EpisodeStore, episode: int) -> Mapping[NumberFeature, np.ndarray]:
    """Read an episode's actions (n A) and proprioception (n P), float32."""
    length = int(store.length[episode])
    return {
        "action": store.actions(episode, 0, length),
        "proprio": store.proprio(episode, 0, length),
    }
