"""The dataset of a desk arm that recipes/own_arm.toml is measured on, and the page about it."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.own_arm.arm import (
    CUBE,
    HOME,
    LAG,
    demonstrate,
    follow,
    joints_above,
    place_things,
    skeleton,
)
from tests.benchmarks.own_arm.drawing import COLOURS, cameras_of, draw

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "own-arm.md"


def mapping_of_the_page() -> str:
    found = re.search(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("seed", range(5))
def test_the_hand_goes_where_it_is_sent(seed: int) -> None:
    random = np.random.default_rng(seed)
    scene = place_things(random, tuple(COLOURS))
    for colour, place in scene.cubes.items():
        points, side = skeleton(joints_above(place, 0.05, scene.turns[colour], 50.0))
        np.testing.assert_allclose(points[-1], [*place, 0.05], atol=1e-9)
        turn = scene.turns[colour]
        # the fingers close along one of the cube's edges
        np.testing.assert_allclose(abs(side @ [-np.sin(turn), np.cos(turn), 0]), 1, atol=1e-9)


def test_a_demonstration_carries_the_cube_into_the_tray() -> None:
    random = np.random.default_rng(3)
    scene = place_things(random, tuple(COLOURS))
    commands = demonstrate(scene, "blue", random)
    tips = np.stack([skeleton(joints)[0][-1] for joints in commands])
    cube = np.array([*scene.cubes["blue"], CUBE / 2])
    assert np.linalg.norm(tips - cube, axis=1).min() < 0.005
    assert np.linalg.norm(tips[:, :2] - scene.tray, axis=1).min() < 0.01
    np.testing.assert_allclose(commands[[0, -1]], [HOME, HOME], atol=1.5)
    # the arm follows two frames later, read to a 4096th of a turn
    np.testing.assert_allclose(follow(commands)[LAG:], commands[:-LAG], atol=0.05)


def test_cameras_see_the_cubes_where_they_are() -> None:
    random = np.random.default_rng(1)
    scene = place_things(random, ("red",))
    images = draw(scene, {"red": np.array([*scene.cubes["red"], CUBE / 2])}, HOME, 1.0)
    assert {name: image.shape for name, image in images.items()} == dict.fromkeys(
        ("front", "wrist"), (480, 640, 3)
    )
    rows, columns = np.nonzero((images["front"] == COLOURS["red"]).all(axis=-1))
    top = np.array([[*scene.cubes["red"], CUBE]])
    pixels, _ = cameras_of(HOME)["front"].see(top)
    np.testing.assert_allclose([columns.mean(), rows.mean()], pixels[0], atol=2)


def test_the_dataset_is_read_as_the_page_says(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow (pip install -e '.[lerobot]')")
    from core.commands.import_ import main
    from core.store.store import EpisodeStore
    from tests.benchmarks.own_arm.recording import record

    record(tmp_path / "so100", episodes=2, seed=5)
    (tmp_path / "so100.toml").write_text(mapping_of_the_page())
    out = tmp_path / "own_arm.zarr"
    options = ["--mapping", str(tmp_path / "so100.toml"), "--jobs", "1"]
    assert main(["lerobot", str(tmp_path / "so100"), str(out), *options]) == 0
    store = EpisodeStore(out)
    random = np.random.default_rng([5, 1])
    commands = demonstrate(place_things(random, tuple(COLOURS)), "blue", random)
    assert store.instruction(1) == "Put the blue cube into the tray."
    np.testing.assert_allclose(store.actions(1, 0, len(commands)), commands, atol=1e-4)
    np.testing.assert_allclose(store.proprio(1, 0, len(commands)), follow(commands), atol=1e-4)
    assert {name: (c.height, c.width) for name, c in store.info.cameras.items()} == {
        "front": (480, 640),
        "wrist": (480, 640),
    }
    assert not store.info.assumed
    meaning = tomllib.loads(mapping_of_the_page())["meaning"]
    assert store.info.action.scale == tuple(meaning["scale"])
    assert store.info.action.grippers[0].open == 100
