"""Images of the table by casting rays."""

import numpy as np
import pytest

from plugins.environments.tabletop import Tabletop, TabletopConfig
from plugins.environments.tabletop.camera import BACKGROUND, RayCamera, look_at
from plugins.environments.tabletop.scene import COLOURS
from tests.plugins.test_tabletop import run_expert


@pytest.fixture(scope="module")
def table() -> Tabletop:
    return Tabletop(TabletopConfig(image_size=32))


def test_pixels_show_the_geom_that_a_ray_hits(table: Tabletop) -> None:
    """From straight above a block, the image's middle has the block's colour."""
    table.reset("lift_red", 7)
    table.scene.refresh()
    size, height = 65, 0.5
    camera = RayCamera(table.scene.model, size, field_of_view=90, floor="table")
    blocks = table.scene.state().blocks
    for strongest, colour in enumerate(COLOURS):
        above = blocks[colour].position + np.array([0, 0, height])
        image = camera.render(table.scene.data, above, look_at(above, blocks[colour].position))
        distance = np.linalg.norm(blocks[colour].position[:2] - table.observe().proprio[:2])
        if distance > 0.08:  # not hidden by the gripper
            assert image[size // 2, size // 2].argmax() == strongest


def test_nothing_is_background(table: Tabletop) -> None:
    table.scene.refresh()
    camera = RayCamera(table.scene.model, 16, field_of_view=30, floor="table")
    at = np.array([0.0, 0.0, 1.0])
    image = camera.render(table.scene.data, at, look_at(at, np.array([0.0, 1.0, 2.0])))
    assert (image == BACKGROUND).all()


def test_the_lamp_is_seen(table: Tabletop) -> None:
    table.reset("switch_on", 0)
    dark = table.observe().images["static"].astype(int)
    assert run_expert(table, "switch_on")
    lit = table.observe().images["static"].astype(int)
    assert (np.abs(lit - dark).sum(-1)[:16] > 100).any()


def test_look_at_gives_a_camera_that_is_upright() -> None:
    axes = look_at(np.array([0.0, -2.0, 1.0]), np.zeros(3))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(axes[:, 0], [1, 0, 0], atol=1e-12)  # right
    assert axes[2, 1] > 0  # up
