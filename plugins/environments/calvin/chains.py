"""The 1,000 chains of CALVIN's evaluation, and the scenes in which they begin."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

CHAINS = Path(__file__).with_name("chains.txt")
START = ("led", "lightbulb", "slider", "drawer", "red_block", "blue_block", "pink_block")
# the robot's `robot_obs` at the start
ROBOT = (
    *(0.02586889, -0.2313129, 0.5712808, 3.09045411, -0.02908596, 1.50013585, 0.07999963),
    *(-1.21779124, 1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928, 1.0),
)
# possible positions of a block at the start, in metres: the slider's two ends, then two places
# on the table
SLIDER = {
    "slider_left": (-2.40851662e-01, 9.24044687e-02, 4.60990009e-01),
    "slider_right": (7.03416330e-02, 9.24044687e-02, 4.60990009e-01),
}
TABLE = (
    (5.00000896e-02, -1.20000177e-01, 4.59990009e-01),
    (2.29995412e-01, -1.19995140e-01, 4.59990010e-01),
)


@dataclass(frozen=True)
class Chain:
    """One chain of CALVIN's evaluation.

    start: {object: its state}; the objects are the blocks, the slider, the drawer and the lights.
        In addition, "grasped" is 0.
    tasks: names of five tasks, in their order.
    """

    start: Mapping[str, str | int]
    tasks: tuple[str, ...]


@cache
def read_chains() -> tuple[Chain, ...]:
    """Return the 1,000 chains in their order.

    A file holds the chains, because CALVIN's `get_sequences(1000)`, which computes them, takes
    minutes.
    """
    chains = []
    for line in CHAINS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            start, _, tasks = line.partition(":")
            values = [int(word) if word.isdigit() else word for word in start.split()]
            start_by_name = {**dict(zip(START, values, strict=True)), "grasped": 0}
            chains.append(Chain(start_by_name, tuple(tasks.split())))
    return tuple(chains)


def scene_state(start: Mapping[str, str | int]) -> np.ndarray:
    """Return CALVIN's `scene_obs` (24) float64 of a chain's start.

    The array holds the states of the slider, drawer, button, switch and two lights, and the poses
    of three blocks. The start gives neither the blocks' yaw angles nor their places on the table.
    These are drawn at random, with a hash of the start as the seed. CALVIN's function
    `get_env_state_for_initial_condition` returns the same array.
    """
    random = np.random.RandomState(_fnv1_hash(str(start.values())))
    table = [*TABLE]
    random.shuffle(table)
    yaws = random.uniform(np.pi / 2 - np.pi / 8, np.pi / 2 + np.pi / 8, size=3)
    red_and_blue_on_table = start["red_block"] == start["blue_block"] == "table"
    table_positions = {
        "red_block": table[0],
        "blue_block": table[1] if red_and_blue_on_table else table[0],
        "pink_block": table[1],
    }
    slider, drawer = 0.28 * (start["slider"] == "left"), 0.22 * (start["drawer"] == "open")
    state = [slider, drawer, 0.0, 0.088 * int(start["lightbulb"]), start["lightbulb"], start["led"]]
    for (block, table_position), yaw in zip(table_positions.items(), yaws, strict=True):
        position = SLIDER.get(str(start[block]), table_position)
        state += [*position, 0.0, 0.0, yaw]
    return np.array(state, np.float64)


def _fnv1_hash(text: str) -> int:
    """Return the same hash as pyhash's fnv1_32: FNV-1 of the text in UTF-16, begun at 0."""
    value = 0
    for byte in text.encode("utf-16-le"):
        value = (value * 0x01000193 % 2**32) ^ byte
    return value
