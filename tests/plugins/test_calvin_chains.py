"""The chains and their scenes, compared with those that CALVIN's own functions return."""

import hashlib
import json

import numpy as np

from plugins.environments.calvin.chains import read_chains, scene_state

# hashes of the results of CALVIN's `get_sequences(1000)`, and of its scenes rounded to a nanometre
CHAINS_SHA256 = "840cb992c69ce9b6d59f6020966b6300c15233f8e0b9667b6486c1962424d308"
SCENES_SHA256 = "a66cd839365095f435f91b69a0f795408d6f75ceef5739ab6f1f1713a3a85771"


def test_chains_are_those_of_calvin() -> None:
    chains = [[chain.start, chain.tasks] for chain in read_chains()]
    assert hashlib.sha256(json.dumps(chains).encode()).hexdigest() == CHAINS_SHA256


def test_scenes_are_those_of_calvin() -> None:
    scenes = np.stack([scene_state(chain.start) for chain in read_chains()])
    assert scenes.shape == (1000, 24)
    assert hashlib.sha256(scenes.round(9).tobytes()).hexdigest() == SCENES_SHA256


def test_a_chain_has_five_tasks_and_a_start_for_every_object() -> None:
    for chain in read_chains():
        assert len(set(chain.tasks)) == 5
        assert [*chain.start] == [
            *("led", "lightbulb", "slider", "drawer"),
            *("red_block", "blue_block", "pink_block", "grasped"),
        ]


def test_a_scene_is_a_function_of_its_start() -> None:
    start = read_chains()[0].start
    np.testing.assert_array_equal(scene_state(start), scene_state(dict(start)))
    other = {**start, "drawer": "closed" if start["drawer"] == "open" else "open"}
    assert scene_state(other)[1] != scene_state(start)[1]
