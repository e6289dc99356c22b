"""How fast `tabletop` is on one core, beside MuJoCo alone with the same steps and rays.

    python -m tests.benchmarks.tabletop

Every round measures all rows in turn, so a busy machine slows all of them. The figure of a row is
the median of the rounds.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import mujoco

from plugins.environments.tabletop.camera import RayCamera, look_at
from plugins.environments.tabletop.environment import (
    STATIC_POSITION,
    STATIC_TARGET,
    STATIC_VIEW,
    Tabletop,
    TabletopConfig,
)
from plugins.environments.tabletop.scene import SUBSTEPS


def per_second(function: Callable[[], object], count: int) -> float:
    began = perf_counter()
    for _ in range(count):
        function()
    return count / (perf_counter() - began)


def rows(size: int) -> dict[str, Callable[[], object]]:
    table = Tabletop(TabletopConfig(image_size=size))
    table.reset("lift_red", 0)
    scene = table.scene
    camera = RayCamera(scene.model, size, STATIC_VIEW, floor="table")
    rays = camera.rays @ look_at(STATIC_POSITION, STATIC_TARGET).T

    def step() -> None:
        table.step(table.expert())

    def step_and_observe() -> None:
        step()
        table.observe()

    def bare_step() -> None:
        mujoco.mj_step(scene.model, scene.data, SUBSTEPS)

    def bare_rays() -> None:
        # as many rays as all cameras have, from the position of the static one
        for _ in table.info.cameras:
            camera.cast(scene.data, STATIC_POSITION, rays)

    return {
        "MuJoCo alone, physics": bare_step,
        "control step with expert and oracle": step,
        "MuJoCo alone, rays of both cameras": bare_rays,
        "observation, both cameras": table.observe,
        "control step and observation": step_and_observe,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64, help="rows and columns of an image")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    measured = rows(arguments.size)
    speeds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(arguments.rounds):
        for name, function in measured.items():
            speeds[name].append(per_second(function, 100))
    print("| | per second and core |\n|---|---|")
    for name, rates in speeds.items():
        print(f"| {name} | {median(rates):,.0f} |")


if __name__ == "__main__":
    main()
